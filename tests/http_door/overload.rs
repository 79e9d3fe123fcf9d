//! More than the server takes: it says so, and when to come again.

use std::time::Duration;

use penstock::batch::BatchPolicy;
use penstock::serve::HttpSettings;

use crate::harness::{Answer, Door, Setup, Wire, bare, infer, post, until};

fn assert_come_again(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(seconds >= 1);
}

#[test]
fn a_model_that_is_not_ready_refuses_until_it_is() {
    let door = Door::with(Setup { ready: false, ..Setup::default() });
    let mut wire = Wire::open(door.address());
    let answer = wire.ask(infer(&[1.0]));
    assert_come_again(&answer);
    assert!(answer.error().contains("'double' is not ready"), "{}", answer.error());
    assert_eq!(wire.ask(bare("GET", "/v2/health/live")).status, 200);
    assert_eq!(wire.ask(bare("GET", "/v2/health/ready")).status, 503);
    let ready = wire.ask(bare("GET", "/v2/models/double/ready"));
    assert_eq!((ready.status, &ready.json()["ready"]), (503, &false.into()));
    assert_eq!(wire.ask(bare("GET", "/v2/models/double")).status, 200, "it can be looked at");
    door.endpoint.set_ready(true);
    assert_eq!(wire.ask(bare("GET", "/v2/health/ready")).status, 200);
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
}

fn narrow() -> Door {
    let policy = BatchPolicy { max_queue: 2, ..BatchPolicy::default() };
    let door = Door::with(Setup { policy, ..Setup::default() });
    door.gate.close();
    door
}

#[test]
fn a_full_queue_refuses_and_serves_again_once_it_has_room() {
    let door = narrow();
    let mut wires: Vec<_> = (0..3).map(|_| Wire::open(door.address())).collect();
    wires[0].send(infer(&[0.0]));
    door.wait_taken(1);
    wires[1].send(infer(&[1.0]));
    wires[2].send(infer(&[2.0]));
    door.wait_queued(2);
    let mut late = Wire::open(door.address());
    for _ in 0..3 {
        let answer = late.ask(infer(&[3.0]));
        assert_come_again(&answer);
        assert!(answer.error().contains("max_queue=2"), "{}", answer.error());
    }
    assert_eq!(late.ask(bare("GET", "/v2/health/live")).status, 200);
    door.gate.open();
    for (wire, expected) in wires.iter_mut().zip([0.0, 2.0, 4.0]) {
        assert_eq!(wire.answer().numbers(), [expected]);
    }
    assert_eq!(late.ask(infer(&[3.0])).numbers(), [6.0]);
    assert_eq!(door.endpoint.stats().rejected, 3);
    let metrics = late.ask(bare("GET", "/metrics"));
    let line = "penstock_requests_total{model=\"double\",outcome=\"overloaded\"} 3";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

/// A queue full of requests whose senders hung up is not full, however long the model is busy.
#[test]
fn those_who_hung_up_make_room_in_a_full_queue() {
    let door = narrow();
    let mut busy = Wire::open(door.address());
    busy.send(infer(&[0.0]));
    door.wait_taken(1);
    let mut left: Vec<_> = (0..2).map(|_| Wire::open(door.address())).collect();
    for wire in &mut left {
        wire.send(infer(&[1.0]));
    }
    door.wait_queued(2);
    let mut late = Wire::open(door.address());
    assert_come_again(&late.ask(infer(&[2.0])));
    drop(left);
    until("the server saw them leave", || door.inside.connections() == 2);
    let mut tries = Vec::new();
    // The search for those who left has a pause of its own; after that there must be room.
    until("there was room", || {
        let mut wire = Wire::open(door.address());
        wire.send(infer(&[3.0]));
        tries.push(wire);
        std::thread::sleep(Duration::from_millis(5));
        door.endpoint.stats().abandoned == 2
    });
    door.gate.open();
    assert_eq!(busy.answer().numbers(), [0.0]);
    let answered = tries.iter_mut().map(Wire::answer).filter(|answer| answer.status == 200).count();
    assert!((1..=2).contains(&answered), "{answered}");
}

#[test]
fn a_body_that_is_too_large_is_refused_by_name() {
    let http = HttpSettings { max_body: 1_000, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let spaces = |length: usize| {
        let body = crate::harness::body(&[1.0]);
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    let path = "/v2/models/double/infer";
    let mut wire = Wire::open(door.address());
    assert_eq!(wire.ask(post(path, &spaces(1_000))).numbers(), [2.0], "exactly at the limit");
    let answer = wire.ask(post(path, &spaces(1_001)));
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("max_body=1000"), "{}", answer.error());
    let mut chunked = Wire::open(door.address());
    let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    chunked.try_send(format!("{head}3e9\r\n{}\r\n0\r\n\r\n", spaces(1_001)));
    assert_eq!(chunked.answer().status, 413);
    assert_eq!(Wire::open(door.address()).ask(infer(&[1.0])).numbers(), [2.0]);
    let metrics = Wire::open(door.address()).ask(bare("GET", "/metrics"));
    let line = "penstock_requests_total{model=\"double\",outcome=\"invalid\"} 2";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}
