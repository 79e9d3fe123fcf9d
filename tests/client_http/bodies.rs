//! Long bodies, both ways.

use penstock::client::Client;
use penstock::pool::Place;

use crate::asking::*;
use crate::server::{Server, Step, ok, say};

const LONG: usize = 20_000_000;

/// Bytes of which none is where another should be.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

#[tokio::test]
async fn long_bodies_go_up_and_come_down_whole() {
    let server = Server::start(|asked| say(ok(&asked.body))).await;
    let client = client(&server);
    let long = pattern(LONG);
    for _ in 0..2 {
        let response = ask(&client, post("/", long.clone())).await.unwrap();
        assert!(response.body == long);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn bodies_around_the_limits_of_buffers_are_whole() {
    let server = Server::start(|asked| say(ok(&asked.body))).await;
    let client = client(&server);
    for length in
        [1, 8 * 1024 - 100, 8 * 1024, 16 * 1024, 16 * 1024 + 1, 64 * 1024, 256 * 1024, 1024 * 1024 + 1]
    {
        let body = pattern(length);
        assert!(ask(&client, post("/", body.clone())).await.unwrap().body == body, "{length}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_that_answers_while_it_reads_is_read_while_it_is_written_to() {
    // What it says is more than the sockets between them hold, so that each side must read for the other to go on.
    let server = Server::hasty(|_| vec![Step::Say(ok(&pattern(LONG))), Step::Hold]).await;
    let client = client(&server);
    let response = ask(&client, post("/", pattern(LONG))).await.unwrap();
    assert!(response.body == pattern(LONG));
}

#[tokio::test]
async fn chunks_of_every_length_come_together() {
    let body = pattern(300_000);
    let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let (mut rest, mut length) = (&body[..], 1);
    while !rest.is_empty() {
        let (chunk, others) = rest.split_at(length.min(rest.len()));
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend([chunk, b"\r\n"].concat());
        (rest, length) = (others, length * 3 % 7001 + 1);
    }
    bytes.extend(b"0\r\n\r\n");
    let server = Server::start(move |_| say(bytes.clone())).await;
    assert!(ask(&client(&server), get("/")).await.unwrap().body == body);
}

#[tokio::test]
async fn a_stream_comes_to_its_end_and_leaves_its_connection_to_others() {
    let server =
        Server::start(|asked| say(ok(&pattern(if asked.target == "/long" { LONG } else { 0 })))).await;
    let client = client(&server);
    for target in ["/long", "/empty"] {
        let (route, _) = client.route("/").unwrap();
        let (response, mut body) =
            soon(Client::stream(route, get(target), Place::from("here"))).await.unwrap();
        assert!(response.body.is_empty());
        assert_eq!(stats(&client, &server).pool.leases, 1);
        assert_eq!(stats(&client, &server).explanation.held[0].place, Place::from("here"));
        let mut got = Vec::new();
        while let Some(portion) = soon(body.next()).await.unwrap() {
            got.extend(portion);
        }
        assert!(got == pattern(if target == "/long" { LONG } else { 0 }));
        assert!(is_at_rest(&client));
        assert!(soon(body.next()).await.unwrap().is_none());
    }
    assert_eq!(server.connections(), 1);
}
