//! Answers that are none.

use penstock::client::Request;
use penstock::error::{Error, ErrorKind};

use crate::asking::*;
use crate::server::{Server, Step, answer, echo, say};

/// What comes of bytes that a server answers with before it closes.
async fn refusal(bytes: Vec<u8>) -> Error {
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/well" => say(echo(asked)),
        _ => vec![Step::Say(bytes.clone()), Step::Hold],
    })
    .await;
    let client = client(&server);
    let error = fails(&client, get("/")).await;
    assert_eq!(server.count(), 1, "what is no answer is not asked for again");
    assert!(error.message().contains(&server.url), "{error}");
    is_none_the_worse(&client, &server).await;
    error
}

#[tokio::test]
async fn what_is_no_answer_is_refused_in_words() {
    let long = format!("HTTP/1.1 200 OK\r\nlong: {}", "x".repeat(70_000)).into_bytes();
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(129)).into_bytes();
    for (bytes, words) in [
        (long, "longer than 65536 bytes"),
        (many, "more than 128 fields"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "not one of HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x16".to_vec(), "not one of HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_vec(), "not one of HTTP/1.1"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n".to_vec(), "switched protocols"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
            "two content-lengths",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\na".to_vec(), "content-length is no number"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na".to_vec(),
            "contradict",
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n".to_vec(), "than chunked"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(), "no hexadecimal number"),
    ] {
        let error = refusal(bytes).await;
        assert_eq!(error.kind(), ErrorKind::ProtocolError);
        assert!(error.message().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_head_of_many_fields_within_the_limit_is_one() {
    let fields: Vec<_> = (0..127).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let fields = fields.concat();
    let server = Server::start(move |_| say(answer("200 OK", &fields, b"hi"))).await;
    let response = ask(&client(&server), get("/")).await.unwrap();
    assert_eq!((response.fields.iter().count(), response.fields.get("X-126")), (128, Some(&b"126"[..])));
}

#[tokio::test]
async fn an_answer_that_is_shorter_than_it_says_is_a_failed_read() {
    let server = Server::start(|_| {
        vec![Step::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort".into()), Step::Close]
    })
    .await;
    let error = fails(&client(&server), get("/")).await;
    assert_eq!(error.kind(), ErrorKind::ReadFailed);
    assert!(error.message().contains("before its answer was whole"), "{error}");
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_not_asked_for_again() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/well" => say(echo(asked)),
        "/exact" => say(answer("200 OK", "", &[b'x'; 1000])),
        "/chunked" => say(format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
            "x".repeat(1001)
        )),
        _ => say(answer("200 OK", "", &[b'x'; 1001])),
    })
    .await;
    let client = client(&server);
    let limited = |target| Request { max_response: 1000, ..get(target) };
    assert_eq!(ask(&client, limited("/exact")).await.unwrap().body.len(), 1000);
    for target in ["/", "/chunked"] {
        let error = fails(&client, limited(target)).await;
        assert_eq!(error.kind(), ErrorKind::ReadFailed);
        assert!(error.message().contains("max_response=1000"), "{error}");
        assert_eq!(server.count_of(target), 1, "{target}");
    }
    is_none_the_worse(&client, &server).await;
}
