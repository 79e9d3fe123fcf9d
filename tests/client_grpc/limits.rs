//! Time that is up, callers who leave, servers that are silent.

use std::time::Duration;

use h2::Reason;
use penstock::client::{ClientSettings, Http2Settings, Retry, Timeouts};
use penstock::error::ErrorKind;
use penstock::pool::PoolSettings;
use penstock::wire::grpc::Code;

use crate::answers::{echo, failure, framed, head};
use crate::asking::*;
use crate::server::{Asked, Server, Step};

fn held(asked: &Asked) -> Vec<Step> {
    match asked.path.as_str() {
        "/silent" => vec![Step::Hold],
        "/head" => vec![head(), Step::Hold],
        "/piece" => vec![head(), Step::Data(framed(b"x")), Step::Hold],
        _ => echo(asked),
    }
}

#[tokio::test]
async fn every_limit_is_kept_and_resets_the_stream() {
    let server = Server::start(held).await;
    let client = client(&server);
    let none = Timeouts { first: None, idle: None, total: None, ..Timeouts::default() };
    let limit = Some(millis(60));
    for (path, timeouts, kind) in [
        ("/silent", Timeouts { first: limit, ..none }, ErrorKind::FirstChunkTimeout),
        ("/silent", Timeouts { total: limit, ..none }, ErrorKind::DeadlineExceeded),
        ("/head", Timeouts { idle: limit, ..none }, ErrorKind::IdleTimeout),
        ("/piece", Timeouts { idle: limit, ..none }, ErrorKind::IdleTimeout),
        ("/piece", Timeouts { total: limit, ..none }, ErrorKind::DeadlineExceeded),
    ] {
        let error = fails(&client, within(call(path, b""), timeouts)).await;
        assert_eq!(error.kind(), kind, "{path}: {error}");
    }
    eventually(|| server.resets() == [Reason::CANCEL; 5]).await;
    eventually(|| is_at_rest(&client)).await;
    assert_eq!(message(&client, call("/s/m", b"x")).await, &b"x"[..]);
    assert_eq!((server.connections(), stats(&client, &server.url).ejected), (1, false));
}

#[tokio::test]
async fn a_call_whose_time_is_up_is_never_sent() {
    let server = Server::start(echo).await;
    let client = client(&server);
    message(&client, call("/first", b"")).await;
    let none = Timeouts { total: Some(Duration::ZERO), ..Timeouts::default() };
    assert_eq!(fails(&client, within(call("/never", b""), none)).await.kind(), ErrorKind::DeadlineExceeded);
    message(&client, call("/last", b"")).await;
    assert_eq!(server.count_of("/never"), 0);
}

#[tokio::test]
async fn a_deadline_that_the_server_keeps_is_not_held_against_it() {
    let server = Server::start(|_| failure(4, "time is up")).await;
    let client = client(&server);
    for _ in 0..20 {
        let response = ask(&client, call("/s/m", b"")).await.unwrap();
        assert_eq!((code(&response), response.status.as_u16()), (Code::DeadlineExceeded, 504));
    }
    assert!(!stats(&client, &server.url).ejected);
}

#[tokio::test]
async fn whoever_leaves_resets_his_stream_and_no_other() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/slow" => vec![Step::Wait(millis(150)), head(), Step::Data(framed(b"x")), crate::answers::status(0)],
        _ => held(asked),
    })
    .await;
    let client = client(&server);
    let slow = begin(&client, call("/slow", b""));
    for path in ["/silent", "/piece"] {
        let left = begin(&client, call(path, b""));
        eventually(|| server.count_of(path) == 1).await;
        left.abort();
    }
    eventually(|| server.resets() == [Reason::CANCEL; 2]).await;
    assert_eq!(soon(slow).await.unwrap().unwrap().body, &b"x"[..]);
    eventually(|| is_at_rest(&client)).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_that_answers_no_ping_is_given_up() {
    // It reads nothing once the connection stands: not even pings.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("grpc://{}", listener.local_addr().unwrap());
    let frozen = tokio::runtime::Handle::current().spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        std::future::pending::<()>().await;
    });
    let http2 =
        Http2Settings { ping_after: millis(50), ping_timeout: millis(50), ..Http2Settings::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let client = client_of(&[&url], ClientSettings { http2, retry, ..settings() });
    let error = fails(&client, call("/s/m", b"")).await;
    assert_eq!(error.kind(), ErrorKind::ReadFailed, "{error}");
    assert!(error.message().contains("ping"), "{error}");
    frozen.abort();
}

#[tokio::test]
async fn connections_end_at_their_age_and_calls_do_not_notice() {
    let server = Server::start(echo).await;
    let usual = settings();
    let pool = PoolSettings { max_age: Some(millis(40)), ..usual.grpc_pool.clone() };
    let client = client_of(&[&server.url], ClientSettings { grpc_pool: pool, ..usual });
    for _ in 0..40 {
        message(&client, call("/s/m", b"x")).await;
        tokio::time::sleep(millis(5)).await;
    }
    assert!(server.connections() >= 3, "{}", server.connections());
    eventually(|| server.open() <= 1).await;
}
