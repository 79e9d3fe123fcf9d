//! What goes over the wire: HTTP/2, a connection for each request, other methods, answers before the request is out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Response, Version};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Server, adds_up, closed, open};
use crate::bench::{Protocol, Spacing, run};
use crate::error::ErrorKind;

#[tokio::test]
async fn clients_share_connections_of_http_2() {
    let server = Server::http2(|request| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.uri().path(), "/any");
        assert_eq!(request.headers().get("x-tenant").unwrap(), "a");
        assert!(request.uri().authority().is_some() && !request.headers().contains_key("host"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::from(body))
    })
    .await;
    let mut plan = server.plan(7, closed(10));
    plan.target = plan.target.header("x-tenant", "a").unwrap();
    plan.bodies = vec!["zero".into(), "one ".repeat(50_000).into()];
    plan.protocol = Protocol::Http2 { streams: 3 };
    plan.keep_bodies = true;
    let report = run(&plan).await.unwrap();
    assert_eq!((report.ok, report.failed(), report.reopened), (70, 0, 0));
    assert_eq!(server.connections(), 3);
    for (index, body) in plan.bodies.iter().enumerate() {
        assert!(report.answers_to(index).iter().all(|answer| answer.body == *body));
    }
    assert!(report.first_byte.quantile(0.5) <= report.quantile(0.5));
}

#[tokio::test]
async fn a_server_without_http_2_costs_every_request_and_nothing_hangs() {
    let server = Server::hello().await;
    let mut plan = server.plan(2, closed(5));
    plan.protocol = Protocol::Http2 { streams: 1 };
    let report = run(&plan).await.unwrap();
    assert_eq!((report.ok, report.failed()), (0, 10));
}

#[tokio::test]
async fn every_request_can_have_a_connection_of_its_own() {
    let server = Server::http(|request| async move {
        assert_eq!(request.headers().get("connection").unwrap(), "close");
        Response::new(Full::from("hello"))
    })
    .await;
    let mut plan = server.plan(3, closed(10));
    plan.protocol = Protocol::Http1Close;
    let report = run(&plan).await.unwrap();
    assert_eq!((report.ok, report.reopened, server.connections()), (30, 0, 30));
}

#[tokio::test]
async fn a_get_has_no_body_and_a_head_gets_none() {
    let server = Server::http(|request| async move {
        assert!(!request.headers().contains_key("content-length"));
        Response::new(Full::from("hello"))
    })
    .await;
    for (method, bytes) in [(Method::GET, 25), (Method::HEAD, 0)] {
        let mut plan = server.plan(1, closed(5));
        (plan.method, plan.bodies) = (method, vec!["".into()]);
        let report = run(&plan).await.unwrap();
        assert_eq!((report.ok, report.bytes_read, report.reopened), (5, bytes, 0));
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_out_is_an_answer() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await;
        // Leaves the rest of the request where it is, until the client goes.
        tokio::time::sleep(Duration::from_millis(300)).await;
    })
    .await;
    let mut plan = server.plan(1, closed(2));
    plan.bodies = vec![vec![b'x'; 32 * 1024 * 1024].into()];
    let report = run(&plan).await.unwrap();
    assert_eq!((report.statuses.get(&413), report.failed(), report.reopened), (Some(&2), 0, 1), "{report:?}");
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_are_a_protocol_error() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi there").await;
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    let report = run(&server.plan(1, closed(3))).await.unwrap();
    assert_eq!(report.transport_errors.get(&ErrorKind::ProtocolError), Some(&3));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_request() {
    // Closes each connection after its first answer, without a word about it.
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    })
    .await;
    // A request each 20 ms: the client learns of the end in between.
    let report = run(&server.plan(1, open(50.0, 300, Spacing::Constant))).await.unwrap();
    assert_eq!((report.ok, report.failed(), report.reopened), (15, 0, 14), "{report:?}");
}

#[tokio::test]
async fn a_server_that_answers_some_with_503_is_counted_by_status() {
    let turn = Arc::new(AtomicUsize::new(0));
    let server = Server::http(move |_| {
        let refused = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
        async move {
            let mut response = Response::new(Full::from("x"));
            *response.status_mut() = if refused { 503 } else { 200 }.try_into().unwrap();
            response
        }
    })
    .await;
    let mut plan = server.plan(2, closed(15));
    plan.check = true;
    let report = run(&plan).await.unwrap();
    assert_eq!((report.statuses.get(&503), report.ok, report.failed()), (Some(&10), 20, 0));
    // None of them is an inference response.
    assert_eq!(report.wrong, 30);
    assert_eq!(report.first_wrong.as_deref(), Some("its status is 503"));
    assert!(adds_up(&report) && report.answers().is_empty());
}
