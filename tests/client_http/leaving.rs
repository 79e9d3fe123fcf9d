//! Callers who leave: their connection is closed, their place is given back, and the next request does not notice.

use std::sync::Arc;

use penstock::client::{Client, ClientSettings, ConnectSettings};
use penstock::pool::Place;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::asking::*;
use crate::server::{Server, Step, echo, say};
use crate::timeouts::Full;

/// `/head` is not answered, `/body` not to the end.
async fn server() -> Server {
    Server::start(|asked| match asked.target.as_str() {
        "/head" => vec![Step::Hold],
        "/body" => vec![Step::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome".into()), Step::Hold],
        _ => say(echo(asked)),
    })
    .await
}

#[tokio::test]
async fn one_who_waits_for_a_connection_leaves_the_line() {
    let server = server().await;
    let client = client_with(&[&server], narrow(1));
    let holding = begin(&client, get("/head"));
    eventually(|| stats(&client, &server).pool.in_use == 1).await;
    let waiting: Vec<_> = (0..5).map(|_| begin(&client, get("/never"))).collect();
    let last = begin(&client, get("/last"));
    eventually(|| stats(&client, &server).pool.waiting == 6).await;
    for task in waiting {
        give_up(task).await;
    }
    assert_eq!((stats(&client, &server).pool.waiting, stats(&client, &server).pool.cancelled), (1, 5));
    give_up(holding).await;
    assert_eq!(soon(last).await.unwrap().unwrap().body, &b"GET /last "[..]);
    assert_eq!((server.count_of("/never"), server.most_open() <= 2), (0, true));
    assert!(is_at_rest(&client));
}

#[tokio::test]
async fn one_who_is_being_connected_leaves_the_connection_to_others() {
    let full = Full::new();
    let connect = ConnectSettings { timeout: millis(150), ..settings().connect };
    let settings = ClientSettings { connect, ..settings() };
    let client = Client::new(std::slice::from_ref(&full.url), settings, Handle::current()).unwrap();
    let connecting = begin(&client, get("/"));
    eventually(|| client.stats()[0].pool.connecting == 1).await;
    give_up(connecting).await;
    assert!(is_at_rest(&client));
    eventually(|| client.stats()[0].pool.connecting == 0).await;
    assert_eq!(client.stats()[0].pool.cancelled, 1);

    let server = server().await;
    let client = crate::asking::client(&server);
    let connecting = begin(&client, get("/never"));
    tokio::task::yield_now().await;
    assert_eq!(stats(&client, &server).pool.waiting, 1);
    give_up(connecting).await;
    eventually(|| stats(&client, &server).pool.idle == 1).await;
    assert_eq!(text(&client, "/next").await, "GET /next ");
    assert_eq!((server.connections(), server.count()), (1, 1));
}

#[tokio::test]
async fn one_who_is_sending_sends_no_more() {
    const LENGTH: usize = 50_000_000;
    let goes_on = Arc::new(Notify::new());
    let told = Arc::clone(&goes_on);
    let server = Server::hasty(move |asked| match asked.target.as_str() {
        "/long" => vec![Step::Pause(Arc::clone(&told)), Step::Hold],
        _ => say(echo(asked)),
    })
    .await;
    let client = client(&server);
    let sending = begin(&client, post("/long", vec![b'x'; LENGTH]));
    eventually(|| server.count() == 1).await;
    give_up(sending).await;
    goes_on.notify_one();
    is_none_the_worse(&client, &server).await;
}

#[tokio::test]
async fn one_who_waits_for_an_answer_closes_the_connection() {
    for target in ["/head", "/body"] {
        let server = server().await;
        let client = client(&server);
        let reading = begin(&client, get(target));
        eventually(|| server.count() == 1).await;
        tokio::time::sleep(millis(20)).await;
        give_up(reading).await;
        is_none_the_worse(&client, &server).await;
        assert_eq!(stats(&client, &server).pool.created, 2, "{target}");
    }
}

#[tokio::test]
async fn one_who_drops_a_stream_closes_the_connection() {
    let server = server().await;
    let client = client(&server);
    let (route, _) = client.route("/").unwrap();
    let (_, mut body) = soon(Client::stream(route, get("/body"), Place::Unknown)).await.unwrap();
    assert_eq!(soon(body.next()).await.unwrap().unwrap(), b"some");
    assert_eq!((stats(&client, &server).outstanding, server.open()), (1, 1));
    drop(body);
    assert!(is_at_rest(&client));
    is_none_the_worse(&client, &server).await;
}

#[tokio::test]
async fn those_who_leave_at_any_moment_leave_nothing_behind() {
    let server = server().await;
    let client = client_with(&[&server], narrow(3));
    for round in 0..60_u64 {
        let tasks: Vec<_> = (0..12).map(|_| begin(&client, post("/", vec![b'x'; 3000]))).collect();
        tokio::time::sleep(std::time::Duration::from_micros(round * 37)).await;
        for task in tasks {
            task.abort();
        }
    }
    eventually(|| is_at_rest(&client)).await;
    assert!(server.most_open() <= 4, "{} connections were open", server.most_open());
    let all: Vec<_> = (0..12).map(|_| begin(&client, get("/"))).collect();
    for task in all {
        assert_eq!(soon(task).await.unwrap().unwrap().status, 200);
    }
}
