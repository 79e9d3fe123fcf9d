//! Streams of messages each way.

use bytes::Bytes;
use h2::Reason;
use penstock::client::{Client, ClientSettings, Duplex, Http2Settings, Request, Timeouts};
use penstock::error::{ErrorKind, Result};
use penstock::pool::Place;
use penstock::wire::grpc::Code;
use tokio::runtime::Handle;

use crate::answers::{failure, framed, head, status};
use crate::asking::*;
use crate::server::{Asked, Server, Step};

const STREAM: &str = "/s/EchoStream";

fn script(asked: &Asked) -> Vec<Step> {
    match asked.path.as_str() {
        "/s/FailStream" => vec![head(), Step::Data(framed(b"one")), status(5)],
        "/s/RefuseStream" => failure(8, "full"),
        "/s/ResetStream" => {
            vec![head(), Step::Data(framed(b"one")), Step::Wait(millis(20)), Step::Reset(Reason::CANCEL)]
        }
        "/s/CloseStream" => vec![head(), Step::Data(framed(b"one")), Step::Wait(millis(20)), Step::Close],
        "/s/BareStream" => vec![head(), Step::Data(framed(b"one")), Step::End],
        "/s/DeafStream" => vec![head(), Step::Hold],
        "/s/SilentStream" => vec![Step::Hold],
        STREAM => vec![head(), Step::Echo, status(0)],
        _ => crate::answers::echo(asked),
    }
}

/// A stream that begins without a message.
fn stream(path: &'static str) -> Request {
    let mut request = call(path, b"");
    request.grpc.as_mut().unwrap().message = Bytes::new();
    request.timeouts = Timeouts { first: None, idle: None, ..Timeouts::default() };
    request
}

async fn open(client: &Client, request: Request) -> Result<Duplex> {
    let (route, _) = client.route("/")?;
    soon(Client::duplex(route, request, Place::Fixed("a test"))).await
}

async fn next(duplex: &mut Duplex) -> Option<Bytes> {
    soon(duplex.next()).await.unwrap()
}

fn end(duplex: &Duplex) -> Code {
    duplex.end().unwrap().code
}

#[tokio::test]
async fn messages_go_both_ways_until_both_sides_are_done() {
    let server = Server::start(script).await;
    let client = client(&server);
    let mut duplex = open(&client, with_fields(stream(STREAM), &[("x-tenant", "a")])).await.unwrap();
    for message in [&b"one"[..], b"", b"three"] {
        duplex.send(framed(message).into()).await.unwrap();
        assert_eq!(next(&mut duplex).await.unwrap(), message);
        let held = &stats(&client, &server.url);
        assert_eq!((held.outstanding, held.pool.leases, held.explanation.held.len()), (1, 1, 1));
        assert_eq!(held.explanation.held[0].place, Place::Fixed("a test"));
    }
    assert!(duplex.end().is_none());
    duplex.finish().await.unwrap();
    duplex.finish().await.unwrap();
    assert_eq!(duplex.send(framed(b"late").into()).await.unwrap_err().kind(), ErrorKind::StreamClosed);
    assert_eq!(next(&mut duplex).await, None);
    assert_eq!(end(&duplex), Code::Ok);
    assert_eq!(next(&mut duplex).await, None, "the end stays the end");
    assert!(is_at_rest(&client));
    assert_eq!(server.asked()[0].fields["x-tenant"], "a");
    assert_eq!(message(&client, call("/s/m", b"x")).await, &b"x"[..]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_first_message_may_go_with_the_call() {
    let server = Server::start(script).await;
    let client = client(&server);
    let mut duplex = open(&client, call(STREAM, b"first")).await.unwrap();
    assert_eq!(next(&mut duplex).await.unwrap(), &b"first"[..]);
    duplex.finish().await.unwrap();
    assert_eq!(next(&mut duplex).await, None);
}

#[tokio::test]
async fn large_messages_wait_for_the_server_and_none_for_the_other_way() {
    let server = Server::start(script).await;
    let client = client(&server);
    let (mut sender, mut receiver) = open(&client, stream(STREAM)).await.unwrap().split();
    let long = Bytes::from(vec![7; 3_000_000]);
    let sent = Bytes::from(framed(&long));
    let sending = Handle::current().spawn(async move {
        for _ in 0..4 {
            sender.send(sent.clone()).await.unwrap();
        }
        sender.finish().await.unwrap();
    });
    for _ in 0..4 {
        assert!(soon(receiver.next()).await.unwrap().unwrap() == long);
    }
    assert_eq!(soon(receiver.next()).await.unwrap(), None);
    assert_eq!(receiver.end().unwrap().code, Code::Ok);
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn a_server_that_takes_nothing_holds_the_sender_back() {
    let server = Server::start(script).await;
    let client = client(&server);
    let mut request = stream("/s/DeafStream");
    request.timeouts.total = Some(millis(200));
    let (mut sender, mut receiver) = open(&client, request).await.unwrap().split();
    let long: Bytes = framed(&vec![0; 1_000_000]).into();
    let held = tokio::time::timeout(millis(50), sender.send(long.clone())).await;
    assert!(held.is_err(), "its window is 64 KiB");
    let error = soon(sender.send(long)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert!(soon(receiver.next()).await.is_err());
    eventually(|| server.resets() == [Reason::CANCEL]).await;
    eventually(|| is_at_rest(&client)).await;
}

#[tokio::test]
async fn a_message_that_was_left_half_sent_is_sent_whole() {
    let server = Server::start(script).await;
    let client = client(&server);
    let (mut sender, mut receiver) = open(&client, stream(STREAM)).await.unwrap().split();
    let long = vec![7; 3_000_000];
    // Nothing reads the echo yet: the server stands still, and so does the sender.
    let left = tokio::time::timeout(millis(100), sender.send(framed(&long).into())).await;
    assert!(left.is_err());
    let rest = Handle::current().spawn(async move {
        sender.send(framed(b"next").into()).await.unwrap();
        sender.finish().await.unwrap();
    });
    assert!(soon(receiver.next()).await.unwrap().unwrap() == long);
    assert_eq!(soon(receiver.next()).await.unwrap().unwrap(), &b"next"[..]);
    assert_eq!(soon(receiver.next()).await.unwrap(), None);
    soon(rest).await.unwrap();
}

#[tokio::test]
async fn every_end_is_told() {
    let server = Server::start(script).await;
    let client = client(&server);
    for (path, messages, code) in [
        ("/s/FailStream", 1, Code::NotFound),
        ("/s/RefuseStream", 0, Code::ResourceExhausted),
        ("/s/ResetStream", 1, Code::Cancelled),
    ] {
        let mut duplex = open(&client, stream(path)).await.unwrap();
        for _ in 0..messages {
            assert_eq!(next(&mut duplex).await.unwrap(), &b"one"[..]);
        }
        assert_eq!(next(&mut duplex).await, None, "{path}");
        assert_eq!(end(&duplex), code, "{path}");
        assert!(is_at_rest(&client));
        let late = soon(duplex.send(framed(b"late").into())).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::StreamClosed, "{path}: {late}");
    }
    for (path, kind) in
        [("/s/BareStream", ErrorKind::ProtocolError), ("/s/CloseStream", ErrorKind::ReadFailed)]
    {
        let mut duplex = open(&client, stream(path)).await.unwrap();
        assert_eq!(next(&mut duplex).await.unwrap(), &b"one"[..]);
        let error = soon(duplex.next()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{path}: {error}");
        assert_eq!(soon(duplex.next()).await.unwrap_err().kind(), ErrorKind::StreamClosed);
        assert!(is_at_rest(&client) && duplex.end().is_none());
    }
}

#[tokio::test]
async fn limits_are_those_of_the_request() {
    let server = Server::start(script).await;
    let client = client(&server);
    let limit = Some(millis(50));
    for (path, change, kind) in [
        (
            "/s/SilentStream",
            Timeouts { first: limit, ..stream(STREAM).timeouts },
            ErrorKind::FirstChunkTimeout,
        ),
        ("/s/DeafStream", Timeouts { idle: limit, ..stream(STREAM).timeouts }, ErrorKind::IdleTimeout),
        ("/s/DeafStream", Timeouts { total: limit, ..stream(STREAM).timeouts }, ErrorKind::DeadlineExceeded),
    ] {
        let mut duplex = open(&client, within(stream(path), change)).await.unwrap();
        let error = soon(duplex.next()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{path}: {error}");
    }
    eventually(|| server.resets() == [Reason::CANCEL; 3]).await;
    let mut duplex = open(&client, Request { max_response: 10, ..call(STREAM, &[0; 11]) }).await.unwrap();
    let error = soon(duplex.next()).await.unwrap_err();
    assert!(error.message().contains("max_response=10"), "{error}");
    drop(duplex);
    eventually(|| is_at_rest(&client)).await;
}

#[tokio::test]
async fn whoever_drops_a_half_resets_the_stream() {
    let server = Server::start(script).await;
    let client = client(&server);
    let (mut sender, receiver) = open(&client, stream(STREAM)).await.unwrap().split();
    sender.send(framed(b"x").into()).await.unwrap();
    eventually(|| server.count() == 1).await;
    drop(receiver);
    assert_eq!(sender.send(framed(b"x").into()).await.unwrap_err().kind(), ErrorKind::StreamClosed);
    eventually(|| server.resets() == [Reason::CANCEL] && is_at_rest(&client)).await;
    let (mut sender, mut receiver) = open(&client, stream(STREAM)).await.unwrap().split();
    sender.send(framed(b"x").into()).await.unwrap();
    assert_eq!(soon(receiver.next()).await.unwrap().unwrap(), &b"x"[..]);
    drop(sender);
    let error = soon(receiver.next()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamClosed);
    assert!(error.message().contains("given up by this side"), "{error}");
    eventually(|| server.resets() == [Reason::CANCEL; 2] && is_at_rest(&client)).await;
    let whole = open(&client, stream("/s/SilentStream")).await.unwrap();
    eventually(|| server.count() == 3).await;
    drop(whole);
    eventually(|| server.resets() == [Reason::CANCEL; 3] && is_at_rest(&client)).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_stream_counts_as_one_of_its_connections() {
    let server = Server::start(script).await;
    let http2 = Http2Settings { streams: 2, ..Http2Settings::default() };
    let client = client_of(&[&server.url], ClientSettings { http2, ..settings() });
    let mut open_streams = Vec::new();
    for _ in 0..4 {
        open_streams.push(open(&client, call(STREAM, b"x")).await.unwrap());
    }
    eventually(|| server.connections() == 2).await;
    for duplex in &mut open_streams {
        assert_eq!(next(duplex).await.unwrap(), &b"x"[..]);
    }
    assert_eq!(stats(&client, &server.url).outstanding, 4);
}

#[tokio::test]
async fn a_stream_is_opened_where_there_is_a_connection() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("grpc://{}", closed.local_addr().unwrap());
    drop(closed);
    let server = Server::start(script).await;
    let client = client_of(&[&nowhere, &server.url], settings());
    for _ in 0..6 {
        let mut duplex = open(&client, call(STREAM, b"x")).await.unwrap();
        assert_eq!(next(&mut duplex).await.unwrap(), &b"x"[..]);
    }
    let alone = client_of(&[&nowhere], settings());
    assert_eq!(open(&alone, stream(STREAM)).await.err().unwrap().kind(), ErrorKind::ConnectFailed);
    let http = client_of(&["http://127.0.0.1:1"], settings());
    let mut request = stream(STREAM);
    request.http = true;
    assert_eq!(open(&http, request).await.err().unwrap().kind(), ErrorKind::Config);
}
