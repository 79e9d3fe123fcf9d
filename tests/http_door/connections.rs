//! Connections that live long, come in pieces, or make no sense.

use std::time::Duration;

use penstock::serve::HttpSettings;

use crate::harness::{Door, Setup, Wire, bare, body, infer, until};

#[test]
fn a_connection_serves_one_request_after_another() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for number in 0..200_u8 {
        assert_eq!(wire.ask(infer(&[f32::from(number)])).numbers(), [f64::from(number) * 2.0]);
    }
    assert_eq!(door.inside.connections(), 1);
}

#[test]
fn a_connection_ends_where_the_client_asks_for_it() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let request = infer(&[1.0]).replacen("host: test", "host: test\r\nconnection: close", 1);
    assert_eq!(wire.ask(request).numbers(), [2.0]);
    assert!(wire.is_ended());
    let mut old = Wire::open(door.address());
    assert_eq!(old.ask("GET /v2/health/live HTTP/1.0\r\n\r\n").status, 200);
    assert!(old.is_ended());
    until("no connection was left", || door.inside.connections() == 0);
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let mut ahead = String::new();
    for number in 0..20_u8 {
        ahead.push_str(&infer(&[f32::from(number)]));
        if number == 10 {
            ahead.push_str(&bare("GET", "/nowhere"));
        }
    }
    wire.send(ahead);
    for number in 0..20_u8 {
        assert_eq!(wire.answer().numbers(), [f64::from(number) * 2.0]);
        if number == 10 {
            assert_eq!(wire.answer().status, 404);
        }
    }
}

/// The beginning of the next request is no reason to hold an answer back.
#[test]
fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let next = infer(&[2.0]);
    let (begin, rest) = next.split_at(next.len() / 2);
    wire.send(infer(&[1.0]) + begin);
    assert_eq!(wire.answer().numbers(), [2.0]);
    assert_eq!(wire.ask(rest).numbers(), [4.0]);
    let (begin, rest) = next.split_at(20);
    wire.send(infer(&[1.0]) + begin);
    assert_eq!(wire.answer().numbers(), [2.0]);
    assert_eq!(wire.ask(rest).numbers(), [4.0]);
}

/// Nor is a whole one, with which the model is busy, nor one behind that.
#[test]
fn an_answer_does_not_wait_for_the_answers_to_requests_that_follow() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    door.gate.close();
    wire.send(bare("GET", "/v2") + &infer(&[2.0]) + &infer(&[3.0]));
    assert_eq!(wire.answer().status, 200);
    door.gate.open();
    assert_eq!(wire.answer().numbers(), [4.0]);
    assert_eq!(wire.answer().numbers(), [6.0]);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for byte in infer(&[21.0]).bytes() {
        wire.send([byte]);
    }
    assert_eq!(wire.answer().numbers(), [42.0]);
}

#[test]
fn a_body_may_come_in_chunks_and_after_being_asked_for() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let whole = body(&[4.0]);
    let (first, second) = whole.split_at(20);
    let head = "POST /v2/models/double/infer HTTP/1.1\r\nhost: test\r\n";
    wire.send(format!("{head}transfer-encoding: chunked\r\n\r\n14\r\n{first}\r\n"));
    wire.send(format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len()));
    assert_eq!(wire.answer().numbers(), [8.0]);
    wire.send(format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", whole.len()));
    assert_eq!(wire.read(false).unwrap().status, 100);
    assert_eq!(wire.ask(whole).numbers(), [8.0]);
}

fn impatient() -> Door {
    let http = HttpSettings { header_timeout: Duration::from_millis(50), ..HttpSettings::default() };
    Door::with(Setup { http, ..Setup::default() })
}

#[test]
fn a_client_that_never_ends_its_headers_is_cut_off() {
    let door = impatient();
    let mut silent = Wire::open(door.address());
    let mut slow = Wire::open(door.address());
    slow.send("GET /v2/health/live HTTP/1.1\r\nhost:");
    assert!(slow.read(true).is_none_or(|answer| answer.status == 408));
    silent.try_send("GET ");
    assert!(silent.read(true).is_none_or(|answer| answer.status == 408));
    until("no connection was left", || door.inside.connections() == 0);
    assert_eq!(Wire::open(door.address()).ask(infer(&[1.0])).numbers(), [2.0]);
}

#[test]
fn the_time_for_headers_does_not_count_while_the_model_works() {
    let door = impatient();
    door.gate.close();
    let mut wire = Wire::open(door.address());
    wire.send(infer(&[1.0]));
    door.wait_taken(1);
    std::thread::sleep(Duration::from_millis(100));
    door.gate.open();
    assert_eq!(wire.answer().numbers(), [2.0]);
}

#[test]
fn garbage_harms_nobody_but_its_sender() {
    let door = Door::open();
    let long = format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let garbage: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\ncontent-length: minus\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ];
    for bytes in garbage {
        let mut wire = Wire::open(door.address());
        wire.try_send(bytes);
        wire.half_close();
        if let Some(answer) = wire.read(true) {
            assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
    }
    until("no connection was left", || door.inside.connections() == 0);
    assert_eq!(Wire::open(door.address()).ask(infer(&[1.0])).numbers(), [2.0]);
    assert_eq!(door.seen(), [1.0]);
}

#[test]
fn a_client_that_closes_its_side_leaves_the_server_unharmed() {
    let door = Door::open();
    let mut wires: Vec<_> = (0..5).map(|_| Wire::open(door.address())).collect();
    wires[0].half_close();
    wires[1].send("POST /v2/models/double/infer HTTP/1.1\r\nhost: te");
    wires[1].half_close();
    wires[2].send("POST /v2/models/double/infer HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{");
    wires[2].half_close();
    wires[3].send(bare("GET", "/v2/health/live"));
    wires[3].half_close();
    wires[4].send(infer(&[1.0]));
    wires[4].half_close();
    drop(wires);
    until("no connection was left", || door.inside.connections() == 0);
    assert_eq!(Wire::open(door.address()).ask(infer(&[2.0])).numbers(), [4.0]);
}
