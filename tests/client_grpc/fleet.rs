//! Endpoints of HTTP and of gRPC side by side.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use penstock::client::{Client, ClientSettings, GrpcCall, Request, Retry, Target};
use penstock::error::ErrorKind;
use penstock::pool::{BalancePolicy, EjectSettings};
use penstock::wire::grpc::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::answers::{answer, echo, failure, framed};
use crate::asking::*;
use crate::server::{Server, Step};

/// A server of HTTP/1.1 that answers every request with `http`.
async fn http_server() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::runtime::Handle::current().spawn(async move {
        let mut lines = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            lines.spawn(async move {
                let mut read = vec![0; 4096];
                while stream.read(&mut read).await.is_ok_and(|length| length > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhttp").await.unwrap();
                }
            });
        }
    });
    (url, task)
}

/// A request that has a form for both.
fn either() -> Request {
    let mut request = Request::new(Method::POST, Target::new("/v2/models/m/infer").unwrap());
    request.body = Bytes::from_static(b"{}");
    request.grpc = Some(GrpcCall { path: "/s/Infer".into(), message: framed(b"m").into() });
    request
}

fn in_turns() -> ClientSettings {
    ClientSettings { balance: BalancePolicy::RoundRobin, ..settings() }
}

#[tokio::test]
async fn a_request_goes_to_whoever_speaks_one_of_its_forms() {
    let (http, _serving) = http_server().await;
    let grpc = Server::start(|_| answer(b"grpc")).await;
    let client = client_of(&[&http, &grpc.url], in_turns());
    let mut bodies = Vec::new();
    for _ in 0..4 {
        let response = ask(&client, either()).await.unwrap();
        assert_eq!((response.status.as_u16(), response.grpc.is_some()), (200, &response.body[..] == b"grpc"));
        let target = if response.grpc.is_some() { "/s/Infer" } else { "/v2/models/m/infer" };
        assert_eq!(response.target.as_str(), target);
        bodies.push(response.body);
    }
    bodies.sort();
    assert_eq!(bodies, [&b"grpc"[..], b"grpc", b"http", b"http"]);
    for _ in 0..4 {
        assert_eq!(message(&client, call("/s/m", b"")).await, &b"grpc"[..]);
        let plain = Request::new(Method::GET, Target::new("/v2").unwrap());
        assert_eq!(ask(&client, plain).await.unwrap().body, &b"http"[..]);
    }
}

#[tokio::test]
async fn a_request_that_no_endpoint_speaks_is_refused_in_words() {
    let (http, _serving) = http_server().await;
    let grpc = Server::start(|_| answer(b"grpc")).await;
    let error = fails(&client_of(&[&http], settings()), call("/s/m", b"")).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("gRPC only") && error.message().contains(&http), "{error}");
    let plain = Request::new(Method::GET, Target::new("/v2").unwrap());
    let error = fails(&client_of(&[&grpc.url], settings()), plain).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("HTTP only") && error.message().contains(&grpc.url), "{error}");
    assert_eq!(grpc.count(), 0);
}

#[tokio::test]
async fn retries_go_from_one_protocol_to_the_other() {
    let (http, _serving) = http_server().await;
    let broken = Server::start(|_| vec![Step::Close]).await;
    let client = client_of(&[&broken.url, &http], in_turns());
    let mut most = 0;
    for _ in 0..4 {
        let response = ask(&client, Request { idempotent: true, ..either() }).await.unwrap();
        assert_eq!(response.body, &b"http"[..]);
        most = most.max(response.attempts);
    }
    assert_eq!(most, 2);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let grpc = Server::start(|_| answer(b"grpc")).await;
    let client = client_of(&[&nowhere, &grpc.url], in_turns());
    for _ in 0..4 {
        assert_eq!(ask(&client, either()).await.unwrap().body, &b"grpc"[..]);
    }
}

#[tokio::test]
async fn codes_are_asked_for_again_by_the_status_that_they_stand_for() {
    let bad = Server::start(|_| failure(14, "not now")).await;
    let good = Server::start(|_| answer(b"good")).await;
    let retry = Retry { statuses: vec![http::StatusCode::SERVICE_UNAVAILABLE], ..Retry::default() };
    let client = client_of(&[&bad.url, &good.url], ClientSettings { retry, ..in_turns() });
    for _ in 0..2 {
        let again = Request { idempotent: true, ..call("/s/m", b"") };
        assert_eq!(message(&client, again).await, &b"good"[..]);
    }
    assert_eq!(bad.count(), 2, "each began with the first");
    let response = ask(&client, call("/s/m", b"")).await.unwrap();
    assert!([Code::Unavailable, Code::Ok].contains(&code(&response)));
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_left_out_and_comes_back() {
    let good = Server::start(|_| answer(b"good")).await;
    let bad = Server::start(|_| failure(14, "not now")).await;
    let third = Server::start(|_| answer(b"good")).await;
    let eject =
        EjectSettings { failures: Some(2), time: Duration::from_millis(300), ..EjectSettings::default() };
    let client = client_of(&[&good.url, &bad.url, &third.url], ClientSettings { eject, ..in_turns() });
    for _ in 0..8 {
        ask(&client, call("/s/m", b"")).await.unwrap();
    }
    assert!(stats(&client, &bad.url).ejected);
    assert_eq!(bad.count(), 2);
    tokio::time::sleep(millis(350)).await;
    ask(&client, call("/s/m", b"")).await.unwrap();
    assert_eq!(bad.count(), 3, "it is tried again");
}

#[tokio::test]
async fn an_endpoint_that_asks_to_be_left_alone_is() {
    let busy = Server::start(|_| {
        let fields =
            [("content-type", "application/grpc"), ("grpc-status", "8"), ("grpc-retry-pushback-ms", "60000")];
        vec![Step::Only(200, fields.map(|(name, value)| (name, value.to_owned())).to_vec())]
    })
    .await;
    let good = Server::start(|_| answer(b"good")).await;
    let client = client_of(&[&busy.url, &good.url], in_turns());
    for _ in 0..6 {
        ask(&client, call("/s/m", b"")).await.unwrap();
    }
    assert_eq!(busy.count(), 1);
}

#[tokio::test]
async fn all_that_can_serve_being_out_is_no_reason_to_serve_nobody() {
    let (http, _serving) = http_server().await;
    let (second, _serving) = http_server().await;
    let bad = Server::start(|_| failure(14, "not now")).await;
    let eject = EjectSettings { failures: Some(1), ..EjectSettings::default() };
    let client = client_of(&[&http, &second, &bad.url], ClientSettings { eject, ..in_turns() });
    for _ in 0..3 {
        assert_eq!(code(&ask(&client, call("/s/m", b"")).await.unwrap()), Code::Unavailable);
    }
    assert_eq!(bad.count(), 3);
}

#[tokio::test]
async fn a_server_that_comes_back_at_its_address_is_found() {
    let first = Server::start(echo).await;
    let address = first.address();
    let client: Client = client(&first);
    message(&client, call("/s/m", b"x")).await;
    first.break_off();
    drop(first);
    soon(async {
        while fails(&client, call("/s/m", b"x")).await.kind() != ErrorKind::ConnectFailed {
            tokio::time::sleep(millis(5)).await;
        }
    })
    .await;
    let second = Server::at(address, echo).await;
    soon(async {
        while ask(&client, call("/s/m", b"x")).await.is_err() {
            tokio::time::sleep(millis(10)).await;
        }
    })
    .await;
    assert!(second.count() >= 1);
}
