//! Requests over HTTP/2, several at a time.

use std::time::Duration;

use bytes::Bytes;
use h2::server::Builder;
use http::{Request, Response, StatusCode};
use penstock::client::Http2Settings;
use penstock::error::ErrorKind;
use penstock::pool::Condition;

use crate::harness::{Listener, Server, collect, connect, get, open, soon};

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://test{path}")).body(()).unwrap()
}

#[tokio::test]
async fn bodies_of_any_size_go_both_ways() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    assert_eq!((http2.condition(), http2.open_streams()), (Condition::Usable, 0));
    let echo = tokio::runtime::Handle::current().spawn(async move {
        for _ in 0..3 {
            let mut asked = server.next().await;
            let mut sending = asked.answer(false);
            let mut body = asked.request.into_body();
            while let Some(piece) = body.data().await {
                let mut piece = piece.unwrap();
                body.flow_control().release_capacity(piece.len()).unwrap();
                while !piece.is_empty() {
                    sending.reserve_capacity(piece.len());
                    let room = std::future::poll_fn(|context| sending.poll_capacity(context))
                        .await
                        .unwrap()
                        .unwrap();
                    sending.send_data(piece.split_to(room.min(piece.len())), false).unwrap();
                }
            }
            sending.send_data(Bytes::new(), true).unwrap();
        }
    });
    for length in [0, 1, 5_000_000] {
        let body =
            Bytes::from((0..length).map(|index| u8::try_from(index % 251).unwrap()).collect::<Vec<_>>());
        let (head, mut answer) = soon(http2.send(post("/echo"), body.clone())).await.unwrap();
        assert_eq!((head.status(), http2.open_streams()), (StatusCode::OK, 1));
        assert_eq!(collect(&mut answer).await.unwrap(), body);
        assert!(answer.is_ended());
        drop(answer);
        assert_eq!(http2.open_streams(), 0);
    }
    soon(echo).await.unwrap();
}

#[tokio::test]
async fn the_servers_limit_is_known_before_the_first_request_and_kept() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let mut server = Server::start(builder).await;
    let http2 = connect(&server).await;
    assert_eq!(http2.capacity(), 2);
    let requests = (0..5).map(|index| get(&http2, &format!("/{index}"))).collect::<Vec<_>>();
    let mut held = vec![server.next().await, server.next().await];
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(server.asked.try_recv().is_err(), "a third at a time");
        held.remove(0).answer(true);
        held.push(server.next().await);
    }
    for asked in &mut held {
        asked.answer(true);
    }
    for request in requests {
        assert_eq!(soon(request).await.unwrap().unwrap().0.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn without_a_limit_of_the_servers_the_setting_rules() {
    for streams in [1, 128, 500] {
        let server = Server::start(Builder::new()).await;
        let settings = Http2Settings { streams, ..Http2Settings::default() };
        assert_eq!(open(server.address, settings).await.unwrap().capacity(), streams);
    }
    let listener = Listener::plain().await;
    for settings in [
        Http2Settings { streams: 0, ..Http2Settings::default() },
        Http2Settings { stream_window: 0, ..Http2Settings::default() },
        Http2Settings { stream_window: 1 << 31, ..Http2Settings::default() },
    ] {
        assert_eq!(open(listener.address, settings).await.err().unwrap().kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn readers_that_pause_stall_no_other() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    let mut paused = Vec::new();
    for _ in 0..3 {
        let request = get(&http2, "/endless");
        let mut asked = server.next().await;
        let mut sending = asked.answer(false);
        paused.push(soon(request).await.unwrap().unwrap().1);
        // Until the server has to wait.
        while let Ok(room) = tokio::time::timeout(Duration::from_millis(200), async {
            sending.reserve_capacity(1 << 16);
            std::future::poll_fn(|context| sending.poll_capacity(context)).await.unwrap().unwrap()
        })
        .await
        {
            sending.send_data(Bytes::from(vec![0; room]), false).unwrap();
        }
        std::mem::forget((asked, sending));
    }
    let request = get(&http2, "/fourth");
    let mut asked = server.next().await;
    let mut sending = asked.answer(false);
    let length = 16 << 20;
    let feeding = tokio::runtime::Handle::current().spawn(async move {
        let mut rest = Bytes::from(vec![7; length]);
        while !rest.is_empty() {
            sending.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|context| sending.poll_capacity(context)).await.unwrap().unwrap();
            let piece = rest.split_to(room.min(rest.len()));
            sending.send_data(piece, rest.is_empty()).unwrap();
        }
    });
    let (_, mut body) = soon(request).await.unwrap().unwrap();
    assert_eq!(collect(&mut body).await.unwrap().len(), length);
    soon(feeding).await.unwrap();
    // What lies ready for those who paused is not lost.
    assert!(!soon(paused[0].next()).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn many_small_pieces_that_nobody_reads_end_nothing() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    let mut paused = Vec::new();
    for _ in 0..8 {
        let request = get(&http2, "/tokens");
        let mut sending = server.next().await.answer(false);
        for _ in 0..60_000 {
            sending.send_data(Bytes::from_static(b"data: a token\n"), false).unwrap();
        }
        sending.send_data(Bytes::new(), true).unwrap();
        paused.push(soon(request).await.unwrap().unwrap().1);
    }
    let request = get(&http2, "/last");
    server.next().await.answer_with("fine");
    assert_eq!(collect(&mut soon(request).await.unwrap().unwrap().1).await.unwrap(), b"fine");
    for body in &mut paused {
        assert_eq!(collect(body).await.unwrap().len(), 60_000 * b"data: a token\n".len());
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_is_reset_and_the_connection_goes_on() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    let canceled = async |respond: &mut dyn FnMut(&mut std::task::Context<'_>) -> std::task::Poll<_>| {
        let reason: Result<h2::Reason, h2::Error> = soon(std::future::poll_fn(respond)).await;
        assert_eq!(reason.unwrap(), h2::Reason::CANCEL);
    };
    let request = get(&http2, "/before-the-head");
    let mut asked = server.next().await;
    request.abort();
    canceled(&mut |context| asked.respond.poll_reset(context)).await;

    let request = get(&http2, "/within-the-body");
    let mut sending = server.next().await.answer(false);
    sending.send_data("one".into(), false).unwrap();
    let (_, mut body) = soon(request).await.unwrap().unwrap();
    assert_eq!(soon(body.next()).await.unwrap().unwrap(), "one");
    drop(body);
    canceled(&mut |context| sending.poll_reset(context)).await;

    let request = get(&http2, "/after");
    server.next().await.answer_with("fine");
    assert_eq!(collect(&mut soon(request).await.unwrap().unwrap().1).await.unwrap(), b"fine");
    assert_eq!((http2.condition(), http2.open_streams()), (Condition::Usable, 0));
}

#[tokio::test]
async fn an_answer_may_come_before_the_server_has_read_the_body() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    let sender = http2.clone();
    let request = tokio::runtime::Handle::current()
        .spawn(async move { soon(sender.send(post("/large"), Bytes::from(vec![0; 1 << 22]))).await });
    let mut asked = server.next().await;
    let refusal = Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(()).unwrap();
    asked.respond.send_response(refusal, true).unwrap();
    drop(asked);
    let (head, mut body) = soon(request).await.unwrap().unwrap();
    assert_eq!(head.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(collect(&mut body).await.unwrap().is_empty());
}

#[tokio::test]
async fn headers_of_http1_are_left_out_and_what_http2_forbids_is_refused() {
    let mut server = Server::start(Builder::new()).await;
    let http2 = connect(&server).await;
    let mut head = post("/headers?q=1");
    for (name, value) in [
        ("host", "other"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("x-kept", "yes"),
    ] {
        head.headers_mut().insert(name, value.parse().unwrap());
    }
    let sender = http2.clone();
    let request = tokio::runtime::Handle::current()
        .spawn(async move { soon(sender.send(head, Bytes::from("x"))).await });
    let mut asked = server.next().await;
    assert_eq!(asked.request.uri(), "http://test/headers?q=1");
    assert_eq!(asked.request.headers().len(), 1);
    assert_eq!(asked.request.headers()["x-kept"], "yes");
    asked.answer(true);
    soon(request).await.unwrap().unwrap();

    let relative = Request::get("/path").version(http::Version::HTTP_2).body(()).unwrap();
    let error = soon(http2.send(relative, Bytes::new())).await.err().unwrap();
    assert_eq!((error.error.kind(), error.unsent), (ErrorKind::Config, true));
}
