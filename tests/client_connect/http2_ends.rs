//! How connections of HTTP/2 end, and what that means for the requests on them.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::Request;
use penstock::client::{Http2, Http2Settings};
use penstock::error::ErrorKind;
use penstock::pool::Condition;
use tokio::net::TcpListener;

use crate::harness::{Listener, Server, collect, connect, get, open, raw, soon};

async fn becomes(http2: &Http2, condition: Condition) {
    soon(async {
        while http2.condition() != condition {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Ends a request after a while.
async fn give_up<T>(request: tokio::task::JoinHandle<T>) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    request.abort();
    assert!(soon(request).await.is_err_and(|ended| ended.is_cancelled()));
}

#[tokio::test]
async fn a_connection_that_the_server_ends_drains() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    let request = get(&http2, "/last");
    let mut asked = server.next().await;
    server.leave();
    becomes(&http2, Condition::Draining).await;
    let error = soon(get(&http2, "/late")).await.unwrap().err().unwrap();
    assert!(error.unsent, "{error:?}");
    asked.answer_with("fine");
    assert_eq!(collect(&mut soon(request).await.unwrap().unwrap().1).await.unwrap(), b"fine");
    drop(asked);
    becomes(&http2, Condition::Closed).await;
    assert!(soon(get(&http2, "/later")).await.unwrap().err().unwrap().unsent);
}

#[tokio::test]
async fn only_what_the_server_surely_did_nothing_about_is_unsent() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    for (reason, unsent) in
        [(Reason::REFUSED_STREAM, true), (Reason::INTERNAL_ERROR, false), (Reason::CANCEL, false)]
    {
        let request = get(&http2, "/");
        server.next().await.respond.send_reset(reason);
        let error = soon(request).await.unwrap().err().unwrap();
        assert_eq!((error.unsent, error.error.kind()), (unsent, ErrorKind::ReadFailed), "{error:?}");
        assert!(error.error.to_string().contains("the server reset the stream"), "{error:?}");
    }
    assert_eq!(http2.condition(), Condition::Usable);
    let request = get(&http2, "/");
    let asked = server.next().await;
    server.break_off();
    let error = soon(request).await.unwrap().err().unwrap();
    assert_eq!((error.unsent, error.error.kind()), (false, ErrorKind::ReadFailed), "{error:?}");
    drop(asked);
    becomes(&http2, Condition::Closed).await;
}

#[tokio::test]
async fn a_goaway_below_a_request_makes_it_unsent() {
    // The last stream that the server took up is 0: none (RFC 9113, section 6.8).
    let (address, _server) = raw(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    let http2 = open(address, Http2Settings::default()).await.unwrap();
    let error = soon(get(&http2, "/")).await.unwrap().err().unwrap();
    assert!(error.unsent, "{error:?}");
    assert_ne!(http2.condition(), Condition::Usable);
}

#[tokio::test]
async fn a_connection_that_closed_in_between_leaves_the_request_unsent() {
    let server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    server.break_off();
    becomes(&http2, Condition::Closed).await;
    let head = Request::post("http://test/").body(()).unwrap();
    let error = soon(http2.send(head, Bytes::from("once"))).await.err().unwrap();
    assert!(error.unsent, "{error:?}");
}

#[tokio::test]
async fn a_request_that_waited_for_its_turn_when_the_connection_broke_is_unsent() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(1);
    let mut server = Server::start(builder).await;
    let http2 = connect(&server).await;
    let first = get(&http2, "/first");
    let asked = server.next().await;
    let second = get(&http2, "/second");
    soon(async {
        while http2.open_streams() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.break_off();
    drop(asked);
    let (first, second) =
        (soon(first).await.unwrap().err().unwrap(), soon(second).await.unwrap().err().unwrap());
    assert!(!first.unsent && second.unsent, "{first:?} {second:?}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_not_an_end() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    let request = get(&http2, "/");
    let mut asked = server.next().await;
    let mut sending = asked.answer(false);
    sending.send_data("half".into(), false).unwrap();
    let (_, mut body) = soon(request).await.unwrap().unwrap();
    assert_eq!(soon(body.next()).await.unwrap().unwrap(), "half");
    server.break_off();
    drop((asked, sending));
    let error = soon(body.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadFailed);
    assert!(error.to_string().starts_with("the response broke off: "), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_asked_and_given_up() {
    let (address, _server) = raw(&[]).await;
    let settings = Http2Settings {
        ping_after: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(250),
        ..Http2Settings::default()
    };
    let http2 = open(address, settings).await.unwrap();
    let error = soon(get(&http2, "/")).await.unwrap().err().unwrap();
    assert_eq!((error.unsent, error.error.kind()), (false, ErrorKind::ReadFailed));
    assert!(error.error.to_string().contains("did not answer a ping within 0.25 s"), "{error:?}");
    assert_eq!(http2.condition(), Condition::Closed);
}

#[tokio::test]
async fn a_server_that_gives_no_sign_until_a_request_is_given_up_is_asked_at_once() {
    let (address, _server) = raw(&[]).await;
    // By itself it would not be asked within the test.
    let settings = Http2Settings { ping_timeout: Duration::from_millis(100), ..Http2Settings::default() };
    let http2 = open(address, settings).await.unwrap();
    give_up(get(&http2, "/")).await;
    becomes(&http2, Condition::Closed).await;
}

#[tokio::test]
async fn a_server_that_shows_that_it_is_there_keeps_its_connection_whoever_gives_up() {
    let server = Server::start(Builder::new()).await;
    let settings = Http2Settings { ping_timeout: Duration::from_millis(300), ..Http2Settings::default() };
    let http2 = open(server.address, settings).await.unwrap();
    for _ in 0..20 {
        give_up(get(&http2, "/")).await;
    }
    assert_eq!(http2.condition(), Condition::Usable);
}

#[tokio::test]
async fn a_slow_server_that_answers_pings_is_waited_for() {
    let mut server = Server::start(Builder::new()).await;
    let settings = Http2Settings {
        ping_after: Duration::from_millis(20),
        ping_timeout: Duration::from_millis(300),
        ..Http2Settings::default()
    };
    let http2 = open(server.address, settings).await.unwrap();
    let request = get(&http2, "/slow");
    let mut asked = server.next().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    asked.answer_with("at last");
    assert_eq!(collect(&mut soon(request).await.unwrap().unwrap().1).await.unwrap(), b"at last");
    assert_eq!(http2.condition(), Condition::Usable);
}

#[tokio::test]
async fn a_connection_that_nobody_holds_ends() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    let request = get(&http2, "/");
    let mut asked = server.next().await;
    let mut sending = asked.answer(false);
    let (_, mut body) = soon(request).await.unwrap().unwrap();
    drop(http2);
    // A response that is still being read holds it.
    sending.send_data("all of it".into(), true).unwrap();
    assert_eq!(collect(&mut body).await.unwrap(), b"all of it");
    drop((body, sending, asked));
    server.ended().await;
}

#[tokio::test]
async fn who_does_not_speak_http2_is_told() {
    let listener = Listener::plain().await;
    let error = open(listener.address, Http2Settings::default()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.to_string().starts_with("the other side does not speak HTTP/2: "), "{error}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings =
        Http2Settings { handshake_timeout: Duration::from_millis(250), ..Http2Settings::default() };
    let error = open(silent.local_addr().unwrap(), settings).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
    assert!(error.to_string().contains("within 0.25 s"), "{error}");
}
