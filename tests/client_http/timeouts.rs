//! Every limit of time has a kind of error of its own, which names it.

use std::time::Duration;

use penstock::client::{Client, ClientSettings, ConnectSettings, Timeouts};
use penstock::error::{Error, ErrorKind};
use penstock::pool::{Place, PoolSettings};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::runtime::Handle;

use crate::asking::*;
use crate::server::{Server, Step, echo, ok, say};

/// `/head` is not answered, `/body` not to the end, `/slow` not at once.
async fn server() -> Server {
    Server::start(|asked| match asked.target.as_str() {
        "/head" => vec![Step::Hold],
        "/body" => vec![Step::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome".into()), Step::Hold],
        "/slow" => vec![Step::Wait(millis(200)), Step::Say(ok(b"slow"))],
        _ => say(echo(asked)),
    })
    .await
}

/// Long limits, to be shortened one at a time.
fn long() -> Timeouts {
    let long = Some(Duration::from_secs(20));
    Timeouts { acquire: long, first: long, idle: long, total: long, ..Timeouts::default() }
}

fn is(error: &Error, kind: ErrorKind, limit: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(limit), "{error}");
}

#[tokio::test]
async fn limits_of_an_answer_are_named() {
    let server = server().await;
    let short = Some(millis(61));
    let (first, idle, total) = (
        Timeouts { first: short, ..long() },
        Timeouts { idle: short, ..long() },
        Timeouts { total: short, ..long() },
    );
    for (target, timeouts, kind, words) in [
        ("/head", first, ErrorKind::FirstChunkTimeout, "first-byte time-out of 61ms"),
        ("/body", idle, ErrorKind::IdleTimeout, "idle time-out of 61ms"),
        ("/head", total, ErrorKind::DeadlineExceeded, "total time-out of 61ms"),
        ("/body", total, ErrorKind::DeadlineExceeded, "total time-out of 61ms"),
    ] {
        let client = client(&server);
        is(&fails(&client, within(get(target), timeouts)).await, kind, words);
        is_none_the_worse(&client, &server).await;
    }
}

#[tokio::test]
async fn a_limit_bounds_its_part_and_no_other() {
    let server = server().await;
    let client = client(&server);
    let idle = Timeouts { idle: Some(millis(60)), ..long() };
    assert_eq!(ask(&client, within(get("/slow"), idle)).await.unwrap().body, &b"slow"[..]);
    let first = Timeouts { first: Some(millis(60)), ..long() };
    let (route, _) = client.route("/").unwrap();
    let (_, mut body) =
        soon(Client::stream(route, within(get("/body"), first), Place::Unknown)).await.unwrap();
    assert_eq!(soon(body.next()).await.unwrap().unwrap(), b"some");
    let next = tokio::time::timeout(millis(200), body.next()).await;
    assert!(next.is_err(), "the first byte had come");
}

#[tokio::test]
async fn limits_of_the_wait_for_a_connection_are_named() {
    let server = server().await;
    let acquire = Timeouts { acquire: Some(millis(62)), ..long() };
    let total = Timeouts { total: Some(millis(62)), ..long() };
    for (timeouts, kind, words) in [
        (acquire, ErrorKind::AcquireTimeout, "within 62ms"),
        (total, ErrorKind::DeadlineExceeded, "total time-out of 62ms"),
    ] {
        let client = client_with(&[&server], narrow(1));
        let holding = begin(&client, get("/head"));
        eventually(|| stats(&client, &server).pool.in_use == 1).await;
        is(&fails(&client, within(get("/"), timeouts)).await, kind, words);
        assert_eq!(stats(&client, &server).pool.timed_out, 1);
        assert!(!stats(&client, &server).ejected, "it says nothing about the server");
        give_up(holding).await;
        is_none_the_worse(&client, &server).await;
    }
}

#[tokio::test]
async fn the_limit_of_the_pool_is_named_where_it_is_the_shorter() {
    let server = server().await;
    let usual = narrow(1);
    let pool = PoolSettings { acquire_timeout: Some(millis(70)), ..usual.pool.clone() };
    let client = client_with(&[&server], ClientSettings { pool, ..usual });
    let holding = begin(&client, get("/head"));
    eventually(|| stats(&client, &server).pool.in_use == 1).await;
    let error = fails(&client, within(get("/"), long())).await;
    assert_eq!(error.kind(), ErrorKind::AcquireTimeout);
    assert!(error.message().contains("within 0.07") && error.message().contains("max_size=1"), "{error}");
    give_up(holding).await;
}

/// A listener whose queue is full: who connects waits.
pub(crate) struct Full {
    pub(crate) url: String,
    _kept: Vec<Socket>,
}

impl Full {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&SockAddr::from(any)).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{}", address.as_socket().unwrap());
        let mut kept = vec![listener];
        for _ in 0..4 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            kept.push(socket);
        }
        Self { url, _kept: kept }
    }
}

#[tokio::test]
async fn the_limit_of_a_connect_is_named() {
    let full = Full::new();
    let connect = ConnectSettings { timeout: millis(63), ..settings().connect };
    let client =
        Client::new(std::slice::from_ref(&full.url), ClientSettings { connect, ..once() }, Handle::current())
            .unwrap();
    let error = fails(&client, get("/")).await;
    is(&error, ErrorKind::ConnectTimeout, "0.063");
    assert!(error.message().contains(&full.url), "{error}");
}
