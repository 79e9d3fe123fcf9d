//! Connections that are refused, reset, or never heard of again.

use std::net::SocketAddr;

use penstock::client::{Client, Timeouts};
use penstock::error::ErrorKind;
use penstock::pool::Place;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::asking::*;
use crate::server::{Asked, Server, Step, echo, say};

/// An address that nobody listens at.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A server that goes wrong at every path but `/well`.
async fn wrong(steps: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Server {
    Server::start(move |asked| if asked.target == "/well" { say(echo(asked)) } else { steps(asked) }).await
}

#[tokio::test]
async fn a_refusal_names_who_refused() {
    let address = nobody().await;
    let client = Client::new(&[format!("http://{address}")], settings(), Handle::current()).unwrap();
    let error = fails(&client, post("/", "x")).await;
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.message().contains(&format!("refused by {address}")), "{error}");
    // It was never sent: a POST is tried as often as a GET.
    let stats = client.stats().remove(0);
    assert_eq!((stats.pool.failed, stats.pool.leases, stats.outstanding), (3, 0, 0));
}

#[tokio::test]
async fn a_server_that_comes_up_between_two_attempts_is_found() {
    let address = nobody().await;
    let client = Client::new(&[format!("http://{address}")], settings(), Handle::current()).unwrap();
    let asking = begin(&client, post("/", "x"));
    eventually(|| client.stats()[0].pool.failed > 0).await;
    let server = Server::at(address, |asked| say(echo(asked))).await;
    let response = soon(asking).await.unwrap().unwrap();
    assert!(response.attempts > 1);
    assert_eq!((&response.body[..], server.count()), (&b"POST / x"[..], 1));
}

#[tokio::test]
async fn a_reset_instead_of_a_head_is_a_failed_read() {
    for head in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let server = wrong(move |_| vec![Step::Say(head.into()), Step::Wait(millis(5)), Step::Reset]).await;
        let client = client(&server);
        let error = fails(&client, post("/", "x")).await;
        assert_eq!(error.kind(), ErrorKind::ReadFailed, "{error}");
        assert!(error.message().contains(&server.url), "{error}");
        assert_eq!(server.count(), 1, "what was sent is not sent again");
        is_none_the_worse(&client, &server).await;
    }
}

#[tokio::test]
async fn a_reset_in_the_body_is_a_failed_read() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let server = wrong(move |_| vec![Step::Say(half.into()), Step::Wait(millis(5)), Step::Reset]).await;
    let client = client(&server);
    let error = fails(&client, post("/", "x")).await;
    assert_eq!(error.kind(), ErrorKind::ReadFailed);
    assert!(error.message().contains("in the middle of an answer"), "{error}");
    is_none_the_worse(&client, &server).await;

    let (route, _) = client.route("/").unwrap();
    let (response, mut body) = soon(Client::stream(route, get("/"), Place::Unknown)).await.unwrap();
    assert_eq!(response.status, 200);
    let mut got = Vec::new();
    let error = loop {
        match soon(body.next()).await {
            Ok(portion) => got.extend(portion.expect("it has no end")),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), &got[..]), (ErrorKind::ReadFailed, &b"half"[..]));
    assert!(soon(body.next()).await.unwrap().is_none(), "a body that failed has no more");
}

#[tokio::test]
async fn a_get_that_is_lost_in_the_body_is_sent_again() {
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok";
    let server = Server::start(move |asked| match asked.connection {
        0 => vec![Step::Say(whole.into()), Step::Reset],
        _ => say(echo(asked)),
    })
    .await;
    let response = ask(&client(&server), get("/a")).await.unwrap();
    assert_eq!((response.attempts, &response.body[..]), (2, &b"GET /a "[..]));
}

#[tokio::test]
async fn a_black_hole_is_left_at_the_limit() {
    let server = wrong(|_| vec![Step::Hold]).await;
    let client = client(&server);
    let timeouts = Timeouts { first: Some(millis(80)), ..Timeouts::default() };
    let error = fails(&client, within(get("/"), timeouts)).await;
    assert_eq!(error.kind(), ErrorKind::FirstChunkTimeout);
    assert!(error.message().contains("80ms") && error.message().contains(&server.url), "{error}");
    assert_eq!(server.count(), 1, "a time-out is not tried again");
    is_none_the_worse(&client, &server).await;
    assert_eq!(server.connections(), 2, "the connection is not used again");
}

#[tokio::test]
async fn a_drip_is_read_to_its_end() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nat last";
    let server = Server::start(move |_| vec![Step::Drip(answer.to_vec(), millis(1))]).await;
    let client = client(&server);
    for _ in 0..2 {
        assert_eq!(text(&client, "/").await, "at last");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_first_byte_of_a_stream_does_not_wait_for_the_second() {
    let server = Server::start(|_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
        vec![Step::Say(head.into()), Step::Drip(vec![b'x'; 100], millis(10))]
    })
    .await;
    let client = client(&server);
    let (route, _) = client.route("/").unwrap();
    let (response, mut body) = soon(Client::stream(route, get("/"), Place::Unknown)).await.unwrap();
    assert_eq!((response.status.as_u16(), server.dripped() < 50), (200, true));
    let first = soon(body.next()).await.unwrap().unwrap();
    assert!(first.len() < 50 && server.dripped() < 50, "{} of {}", first.len(), server.dripped());
    let mut length = first.len();
    while let Some(portion) = soon(body.next()).await.unwrap() {
        length += portion.len();
    }
    assert_eq!(length, 100);
    assert!(is_at_rest(&client));
}
