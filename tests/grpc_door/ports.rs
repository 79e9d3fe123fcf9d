//! A port for gRPC alone, and one for both.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use http::Request;
use penstock::serve::{HttpServer, listen};

use crate::harness::{Client, Door, INFER, PATIENCE, one};

fn second(door: &Door) -> HttpServer {
    let runtime = penstock::runtime::handle().unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    HttpServer::open_grpc(listen(any).unwrap(), Arc::clone(&door.inside), true, &runtime).unwrap()
}

/// The whole answer to a request in HTTP/1.1.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn both_ports_answer_calls_and_their_requests_share_batches() {
    let door = Door::open();
    let second = second(&door);
    assert_ne!(second.address(), door.address());
    let clients = [Client::open(door.address()), Client::open(second.address())];
    door.gate.close();
    let first = clients[0].call(INFER, one(0.0));
    door.wait_taken(1);
    let calls = clients.each_ref().map(|client| client.call(INFER, one(1.0)));
    door.wait_queued(2);
    door.gate.open();
    assert_eq!(first.end().numbers(), [0.0]);
    for call in calls {
        assert_eq!(call.end().numbers(), [2.0]);
    }
    assert_eq!(door.endpoint.stats().batches, 2);
}

#[test]
fn http_where_grpc_alone_is_answered_is_told_where_to_go() {
    let door = Door::open();
    let second = second(&door);
    let words = format!("http on port {}", door.address().port());
    let answer =
        ask(second.address(), "GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    assert!(answer.contains(&words), "{answer}");
    let client = Client::open(second.address());
    let request = Request::get("http://test/v2").body(()).unwrap();
    let ended = client.send(request, true).end();
    assert_eq!((ended.http_status, ended.code), (415, None));
    assert!(String::from_utf8_lossy(&ended.bytes).contains(&words));
    assert_eq!(ended.head["accept"], "application/grpc");
    assert_eq!(client.call(INFER, one(1.0)).end().numbers(), [2.0]);
}

#[test]
fn a_call_over_the_older_http_is_told_what_it_needs() {
    let door = Door::open();
    let head = "content-type: application/grpc\r\nhost: x\r\nconnection: close\r\ncontent-length: 5";
    let request = format!("POST {INFER} HTTP/1.1\r\n{head}\r\n\r\n\0\0\0\0\0");
    let answer = ask(door.address(), &request);
    assert!(answer.starts_with("HTTP/1.1 505"), "{answer}");
    assert!(answer.contains("grpc needs http/2"), "{answer}");
}

#[test]
fn both_ports_close_together() {
    let door = Door::open();
    let second = second(&door);
    let client = Client::open(second.address());
    door.gate.close();
    let running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    door.server.begin_close();
    second.begin_close();
    door.gate.open();
    assert_eq!(running.end().numbers(), [2.0]);
    client.wait_closed();
    assert!(door.inside.connection_count().wait_none(PATIENCE), "neither listens any more");
}
