//! The end of a client.

use penstock::client::Client;
use penstock::error::ErrorKind;
use penstock::pool::Place;

use crate::asking::*;
use crate::server::{Server, Step, echo, ok, say};

/// `/slow` takes a while.
async fn server() -> Server {
    Server::start(|asked| match asked.target.as_str() {
        "/slow" => vec![Step::Wait(millis(150)), Step::Say(ok(b"slow"))],
        _ => say(echo(asked)),
    })
    .await
}

#[tokio::test]
async fn requests_that_are_out_come_to_their_end_and_no_more_are_taken() {
    let server = server().await;
    let client = client_with(&[&server], narrow(2));
    let late = client.route("/").unwrap().0;
    let out: Vec<_> = (0..2).map(|_| begin(&client, get("/slow"))).collect();
    eventually(|| server.count() == 2).await;
    let waiting = begin(&client, get("/never"));
    eventually(|| stats(&client, &server).pool.waiting == 1).await;
    client.close();
    for error in [
        client.route("/").map(|_| ()).unwrap_err(),
        client.route("http://other.invalid/").map(|_| ()).unwrap_err(),
        soon(Client::send(late, get("/never"))).await.map(|_| ()).unwrap_err(),
        soon(waiting).await.unwrap().map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    let closed = tokio::time::timeout(millis(10), client.closed()).await;
    assert!(closed.is_err(), "two requests are out");
    for task in out {
        assert_eq!(soon(task).await.unwrap().unwrap().body, &b"slow"[..]);
    }
    soon(client.closed()).await;
    eventually(|| server.open() == 0).await;
    assert_eq!(server.count_of("/never"), 0);
    client.close();
    soon(client.closed()).await;
}

#[tokio::test]
async fn a_stream_that_is_out_goes_on() {
    let server = Server::start(|_| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n".to_vec();
        vec![Step::Say(head), Step::Drip(vec![b'x'; 20], millis(3))]
    })
    .await;
    let client = client(&server);
    let (route, _) = client.route("/").unwrap();
    let (_, mut body) = soon(Client::stream(route, get("/"), Place::Unknown)).await.unwrap();
    client.close();
    let mut length = 0;
    while let Some(portion) = soon(body.next()).await.unwrap() {
        length += portion.len();
    }
    assert_eq!(length, 20);
    soon(client.closed()).await;
    eventually(|| server.open() == 0).await;
}

#[tokio::test]
async fn a_client_that_was_never_used_is_closed_at_once() {
    let server = server().await;
    let client = client(&server);
    client.close();
    soon(client.closed()).await;
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_client_that_is_dropped_closes_its_connections() {
    let server = server().await;
    let client = client(&server);
    text(&client, "/").await;
    let out = begin(&client, get("/slow"));
    eventually(|| server.count() == 2).await;
    drop(client);
    assert_eq!(soon(out).await.unwrap().unwrap().body, &b"slow"[..]);
    eventually(|| server.open() == 0).await;
}
