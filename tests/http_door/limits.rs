//! What exceeds a limit of the door is refused in words, counted, and harms nobody else.

use penstock::serve::HttpSettings;

use crate::harness::{Door, INFER, Setup, Wire, bare, body, infer, post, until};

fn limited(http: HttpSettings) -> Door {
    Door::with(Setup { http, ..Setup::default() })
}

#[test]
fn a_body_that_is_said_to_be_too_large_is_refused_before_it_is_sent() {
    let door = limited(HttpSettings { max_body: 1_000, ..HttpSettings::default() });
    for expectation in ["", "expect: 100-continue\r\n"] {
        let mut wire = Wire::open(door.address());
        wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\n{expectation}content-length: 1001\r\n\r\n"));
        let answer = wire.read(true).unwrap();
        answer.assert_last_words(413);
        assert!(answer.error().contains("max_body=1000"), "{}", answer.error());
        assert!(wire.is_ended());
    }
    assert_eq!(door.refused("max_body"), 2);
    assert!(door.seen().is_empty());
}

/// A client that is still sending when it is refused must get to read why.
#[test]
fn a_client_that_goes_on_sending_reads_why_it_is_refused() {
    let door = limited(HttpSettings { max_body: 1_000, ..HttpSettings::default() });
    let bulk = vec![b' '; 4 << 20];
    for _ in 0..10 {
        let mut wire = Wire::open(door.address());
        wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", bulk.len()));
        wire.try_send(&bulk);
        wire.answer().assert_last_words(413);
    }
}

#[test]
fn a_chunked_body_is_refused_where_it_passes_the_limit() {
    let door = limited(HttpSettings { max_body: 1_000, ..HttpSettings::default() });
    let mut wire = Wire::open(door.address());
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"));
    for _ in 0..3 {
        wire.try_send(format!("1f4\r\n{}\r\n", " ".repeat(500)));
    }
    wire.answer().assert_last_words(413);
    assert!(wire.is_ended());
    assert_eq!(door.refused("max_body"), 1);
}

#[test]
fn a_head_that_is_too_large_or_no_head_at_all_is_refused_in_words() {
    let door = limited(HttpSettings { max_head: 100 << 10, ..HttpSettings::default() });
    let many = "a: b\r\n".repeat(101);
    let large = format!("a: {}\r\n", "b".repeat(100 << 10));
    let path = "a".repeat(70 << 10);
    for (head, status) in [
        (format!("GET /v2 HTTP/1.1\r\nhost: t\r\n{many}\r\n"), 431),
        (format!("GET /v2 HTTP/1.1\r\nhost: t\r\n{large}\r\n"), 431),
        (format!("GET /{path} HTTP/1.1\r\nhost: t\r\n\r\n"), 414),
        ("GET\r\n\r\n".to_owned(), 400),
        ("\0\0\0\0\r\n\r\n".to_owned(), 400),
        ("GET /v2 HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET /v2 HTTP/1.1\r\nno header\r\n\r\n".to_owned(), 400),
        ("GET /v2 HTTP/1.1\r\na\0: b\r\n\r\n".to_owned(), 400),
        (format!("POST {INFER} HTTP/1.1\r\ncontent-length: minus\r\n\r\n"), 400),
        (format!("POST {INFER} HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"), 400),
        (format!("POST {INFER} HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n"), 400),
    ] {
        let shown = &head[..head.len().min(60)];
        let mut wire = Wire::open(door.address());
        wire.try_send(&head);
        let answer = wire.try_answer().unwrap_or_else(|| panic!("no answer to {shown:?}"));
        assert_eq!(answer.status, status, "{shown:?}");
        answer.assert_last_words(status);
        assert!(wire.is_ended());
    }
    assert_eq!(Wire::open(door.address()).ask(infer(&[1.0])).numbers(), [2.0]);
}

/// What the HTTP library refuses by itself comes right behind an answer: both must be whole.
#[test]
fn garbage_behind_a_request_is_refused_in_words_after_its_answer() {
    let door = Door::open();
    for first in [infer(&[1.0]), bare("GET", "/v2/health/live"), bare("GET", "/nowhere")] {
        for garbage in ["GARBAGE\r\n\r\n".to_owned(), "GET /v2 HTTP/1.1\r\nno header\r\n\r\n".to_owned()] {
            let mut wire = Wire::open(door.address());
            wire.send(first.clone() + &garbage);
            assert!(wire.answer().status < 500);
            wire.answer().assert_last_words(400);
            assert!(wire.is_ended());
        }
    }
}

#[test]
fn exactly_as_many_headers_as_may_be_are_taken() {
    let door = Door::open();
    let headers = "a: b\r\n".repeat(99);
    let mut wire = Wire::open(door.address());
    assert_eq!(wire.ask(format!("GET /v2 HTTP/1.1\r\nhost: t\r\n{headers}\r\n")).status, 200);
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
}

#[test]
fn one_connection_too_many_is_told_so_and_the_others_are_served() {
    let door = limited(HttpSettings { max_connections: 2, ..HttpSettings::default() });
    let mut wires = [Wire::open(door.address()), Wire::open(door.address())];
    for wire in &mut wires {
        assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
    }
    for _ in 0..3 {
        let mut late = Wire::open(door.address());
        late.try_send(infer(&[9.0]));
        let answer = late.answer();
        answer.assert_last_words(503);
        assert!(answer.header_number("retry-after") >= 1);
        assert!(answer.error().contains("max_connections=2"), "{}", answer.error());
        assert!(late.is_ended());
    }
    assert_eq!(door.refused("max_connections"), 3);
    let [mut stays, leaves] = wires;
    assert_eq!(stays.ask(infer(&[2.0])).numbers(), [4.0]);
    drop(leaves);
    until("there was room", || door.inside.connections() == 1);
    let mut next = Wire::open(door.address());
    assert_eq!(next.ask(infer(&[3.0])).numbers(), [6.0]);
    assert!(!door.seen().contains(&9.0));
}

#[test]
fn more_in_flight_than_may_be_are_refused_and_everything_else_is_answered() {
    let door = limited(HttpSettings { max_in_flight: 2, ..HttpSettings::default() });
    door.gate.close();
    let mut running = Wire::open(door.address());
    running.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut reading = Wire::open(door.address());
    let whole = body(&[2.0]);
    reading.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", whole.len()));
    until("the second was in flight", || door.inside.in_flight() == 2);
    let mut late = Wire::open(door.address());
    for _ in 0..2 {
        let answer = late.ask(infer(&[3.0]));
        assert_eq!(answer.status, 503);
        assert!(answer.header_number("retry-after") >= 1);
        assert!(answer.error().contains("max_in_flight=2"), "{}", answer.error());
        for path in ["/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/double", "/metrics"] {
            assert_eq!(late.ask(bare("GET", path)).status, 200, "{path}");
        }
    }
    assert_eq!(door.refused("max_in_flight"), 2);
    door.gate.open();
    assert_eq!(running.answer().numbers(), [2.0]);
    assert_eq!(reading.ask(whole).numbers(), [4.0]);
    assert_eq!(late.ask(infer(&[3.0])).numbers(), [6.0]);
    assert_eq!(door.inside.in_flight(), 0);
    assert_eq!(late.ask(post(INFER, "no json")).status, 400);
    assert_eq!(door.inside.in_flight(), 0, "a request that failed is in flight no more");
}

#[test]
fn what_stands_beside_and_behind_the_chunks_of_a_body_has_limits() {
    let door = Door::open();
    let whole = body(&[1.0]);
    let chunked = |extension: &str, trailers: &str| {
        let length = whole.len();
        format!(
            "POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n\
             {length:x}{extension}\r\n{whole}\r\n0\r\n{trailers}\r\n"
        )
    };
    let mut wire = Wire::open(door.address());
    assert_eq!(wire.ask(chunked(";a=b", "a: b\r\nx-request-tenant: other\r\n")).numbers(), [2.0]);
    for request in [
        chunked(&format!(";a={}", "b".repeat(20 << 10)), ""),
        chunked("", &format!("a: {}\r\n", "b".repeat(70 << 10))),
        chunked("", &"a: b\r\n".repeat(101)),
    ] {
        let mut wire = Wire::open(door.address());
        wire.try_send(&request);
        wire.answer().assert_last_words(400);
        assert!(wire.is_ended());
    }
    assert_eq!(door.seen(), [1.0]);
    assert_eq!(wire.ask(infer(&[2.0])).numbers(), [4.0]);
}
