//! Servers that hang up, talk nonsense or are not there.

use http::Response;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Server, adds_up, closed};
use crate::bench::{Report, run};
use crate::error::ErrorKind;

fn count(report: &Report, kind: ErrorKind) -> u64 {
    report.transport_errors.get(&kind).copied().unwrap_or_default()
}

#[tokio::test]
async fn a_server_that_closes_after_every_answer_costs_no_request() {
    let server = Server::http(|_| async {
        let mut response = Response::new(Full::from("bye"));
        response.headers_mut().insert("connection", "close".parse().unwrap());
        response
    })
    .await;
    let report = run(&server.plan(2, closed(10))).await.unwrap();
    assert_eq!((report.ok, report.sent, report.failed(), report.unfinished), (20, 20, 0, 0));
    assert_eq!((report.reopened, report.gave_up), (18, 0));
}

#[tokio::test]
async fn a_connection_that_breaks_costs_its_request_and_is_opened_anew_until_the_limit() {
    // Reads the request, says half an answer and hangs up.
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    let mut plan = server.plan(2, closed(10));
    plan.max_reopens = 3;
    let report = run(&plan).await.unwrap();
    // Each client loses one request on each of its four connections, and has no fifth.
    assert_eq!((report.sent, report.answered(), count(&report, ErrorKind::ReadFailed)), (8, 0, 8));
    assert_eq!((report.reopened, report.gave_up, report.unfinished), (6, 2, 12));
    assert_eq!(report.bytes_read, 32);
    assert!(adds_up(&report));
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_protocol_error() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"SSH-2.0-surprise\r\n\r\n").await;
    })
    .await;
    let report = run(&server.plan(1, closed(3))).await.unwrap();
    assert_eq!((count(&report, ErrorKind::ProtocolError), report.failed()), (3, 3));
}

#[tokio::test]
async fn a_server_that_goes_away_fails_the_connections_that_follow() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::gone(&listener);
    let mut plan = server.plan(1, closed(5));
    plan.max_reopens = 2;
    let (report, ()) = tokio::join!(run(&plan), async {
        let _ = listener.accept().await;
        drop(listener);
    });
    let report = report.unwrap();
    assert_eq!((report.reopened, report.gave_up, report.answered()), (0, 1, 0));
    assert_eq!(count(&report, ErrorKind::ConnectFailed), 2);
    assert!(adds_up(&report));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::gone(&listener);
    drop(listener);
    let error = run(&server.plan(1, closed(1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
}
