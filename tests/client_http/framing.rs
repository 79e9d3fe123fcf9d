//! Where an answer ends, and whether its connection goes on.

use http::Method;

use crate::asking::*;
use crate::server::{Server, Step, answer, echo, ok, say};

/// Asks twice; gives both bodies and how many connections that took.
async fn asked_twice(bytes: &[u8]) -> (Vec<u8>, Vec<u8>, usize) {
    let bytes = bytes.to_vec();
    let server = Server::start(move |_| say(bytes.clone())).await;
    let client = client(&server);
    let first = ask(&client, get("/")).await.unwrap();
    let second = ask(&client, get("/")).await.unwrap();
    assert_eq!(second.reused, server.connections() == 1);
    eventually(|| is_at_rest(&client)).await;
    (first.body.into(), second.body.into(), server.connections())
}

#[tokio::test]
async fn connections_go_on_where_both_sides_know_where_the_answer_ended() {
    for (head, connections) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", 1),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: keep-alive\r\n\r\nhi", 1),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\nhi", 2),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", 2),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\nConnection: Keep-Alive\r\n\r\nhi", 1),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\n\r\n", 1),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\nC: d\r\n\r\n", 1),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", 1),
        ("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", 1),
    ] {
        assert_eq!(asked_twice(head.as_bytes()).await, (b"hi".into(), b"hi".into(), connections), "{head}");
    }
}

#[tokio::test]
async fn answers_without_a_body_are_over_with_their_head() {
    for head in ["204 No Content\r\n\r\n", "304 Not Modified\r\ncontent-length: 99\r\n\r\n"] {
        let answer = format!("HTTP/1.1 {head}");
        assert_eq!(asked_twice(answer.as_bytes()).await, (vec![], vec![], 1), "{head}");
    }
    let server =
        Server::start(|_| say("HTTP/1.1 200 OK\r\ncontent-length: 99\r\ncontent-encoding: gzip\r\n\r\n"))
            .await;
    let client = client(&server);
    for _ in 0..2 {
        let response = ask(&client, request(Method::HEAD, "/")).await.unwrap();
        assert_eq!((response.status.as_u16(), response.body.len()), (200, 0));
        assert_eq!(response.fields.get("content-length"), Some(&b"99"[..]));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_body_of_unknown_length_ends_with_its_connection() {
    let server = Server::start(|_| {
        vec![
            Step::Say("HTTP/1.1 200 OK\r\n\r\nall of".into()),
            Step::Wait(millis(5)),
            Step::Say(" it".into()),
            Step::Close,
        ]
    })
    .await;
    let client = client(&server);
    for connections in 1..3 {
        assert_eq!(text(&client, "/").await, "all of it");
        assert_eq!(server.connections(), connections);
    }
}

#[tokio::test]
async fn interim_answers_may_come_alone() {
    let server = Server::start(|asked| {
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        vec![Step::Say(interim.to_vec()), Step::Wait(millis(10)), Step::Say(echo(asked))]
    })
    .await;
    let asked = with_fields(post("/", "x"), &[("Expect", "100-continue")]);
    assert_eq!(ask(&client(&server), asked).await.unwrap().body, &b"POST / x"[..]);
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_out() {
    let refusal = || answer("413 Too Large", "", b"no more");
    let ends: [fn() -> Vec<Step>; 3] =
        [|| vec![Step::Hold], || vec![Step::Close], || vec![Step::Wait(millis(20)), Step::Reset]];
    for end in ends {
        let server = Server::hasty(move |asked| match asked.method.as_str() {
            "GET" => say(echo(asked)),
            _ => std::iter::once(Step::Say(refusal())).chain(end()).collect(),
        })
        .await;
        let client = client(&server);
        let response = ask(&client, post("/", vec![b'x'; 5_000_000])).await.unwrap();
        assert_eq!((response.status.as_u16(), &response.body[..]), (413, &b"no more"[..]));
        is_none_the_worse(&client, &server).await;
    }
}

#[tokio::test]
async fn what_follows_an_answer_belongs_to_no_other() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/more" => say([ok(b"mine"), ok(b"not mine")].concat()),
        "/later" => vec![Step::Say(ok(b"mine")), Step::Wait(millis(10)), Step::Say(ok(b"not mine"))],
        _ => say(echo(asked)),
    })
    .await;
    let client = client(&server);
    assert_eq!(text(&client, "/more").await, "mine");
    assert_eq!(text(&client, "/next").await, "GET /next ");
    assert_eq!(server.connections(), 2);
    assert_eq!(text(&client, "/later").await, "mine");
    tokio::time::sleep(millis(50)).await;
    assert_eq!(text(&client, "/next").await, "GET /next ");
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn the_server_gets_what_was_asked() {
    let server = Server::echo().await;
    let client = client(&server);
    let asked =
        with_fields(post("/a?b=%20", "body"), &[("X-One", "1"), ("x-two", "2"), ("Content-Length", "9")]);
    ask(&client, asked).await.unwrap();
    ask(&client, post("/empty", "")).await.unwrap();
    ask(&client, with_fields(get("/plain"), &[("host", "other.example")])).await.unwrap();
    let address = server.address();
    let heads: Vec<_> = server.asked().into_iter().map(|asked| asked.head).collect();
    let first = format!(
        "POST /a?b=%20 HTTP/1.1\r\nhost: {address}\r\nX-One: 1\r\nx-two: 2\r\ncontent-length: 4\r\n\r\n"
    );
    assert_eq!(heads[0], first);
    assert!(heads[1].ends_with("content-length: 0\r\n\r\n"), "{}", heads[1]);
    assert_eq!(heads[2], "GET /plain HTTP/1.1\r\nhost: other.example\r\n\r\n");
}

#[tokio::test]
async fn the_client_gets_what_was_answered() {
    let server =
        Server::start(|_| say("HTTP/1.1 418 Short And Stout\r\nA: 1\r\na: 2\r\nContent-Length: 0\r\n\r\n"))
            .await;
    let response = ask(&client(&server), get("/")).await.unwrap();
    assert_eq!((response.status.as_u16(), response.fields.reason()), (418, "Short And Stout"));
    let fields: Vec<_> = response.fields.iter().collect();
    assert_eq!(fields[..2], [(&b"A"[..], &b"1"[..]), (b"a", b"2")]);
    assert_eq!((&*response.endpoint, response.version), (&*server.url, http::Version::HTTP_11));
    assert!(response.first_byte <= response.elapsed);
}
