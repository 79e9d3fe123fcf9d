//! How long a request may take, by its header and by its parameter.

use crate::harness::{Door, Wire, bare, body, infer, post_with, until};

fn asked(headers: &str, number: f32) -> Vec<u8> {
    post_with(headers, body(&[number]).as_bytes())
}

/// A request with the parameter `timeout`, in microseconds.
fn with_parameter(micros: &str, number: f32) -> Vec<u8> {
    let body = body(&[number]);
    let inner = body.trim_end().strip_suffix('}').unwrap();
    post_with("", format!(r#"{inner},"parameters":{{"timeout":{micros}}}}}"#).as_bytes())
}

#[test]
fn a_deadline_that_has_passed_never_reaches_the_model() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let answer = wire.ask(asked("x-request-timeout: 0\r\n", 1.0));
    assert_eq!(answer.status, 504);
    assert_eq!(answer.error(), "the 0ns of x-request-timeout have passed");
    assert_eq!(door.endpoint.stats().requests, 0);
    assert_eq!(wire.ask(asked("x-request-timeout: 30\r\n", 1.0)).numbers(), [2.0]);
    assert_eq!(wire.ask(with_parameter("30000000", 2.0)).numbers(), [4.0]);
    assert_eq!(wire.ask(with_parameter("0", 3.0)).numbers(), [6.0], "none stands for no limit");
}

#[test]
fn a_request_whose_time_passes_in_the_queue_leaves_it() {
    let door = Door::open();
    door.gate.close();
    let mut wires: Vec<_> = (0..4).map(|_| Wire::open(door.address())).collect();
    wires[0].send(infer(&[1.0]));
    door.wait_taken(1);
    wires[1].send(asked("x-request-timeout: 0.06\r\n", 2.0));
    wires[2].send(with_parameter("60000", 3.0));
    wires[3].send(asked("x-request-timeout: 60\r\n", 4.0));
    for (wire, words) in
        wires[1..3].iter_mut().zip(["60ms of x-request-timeout", "60ms of the parameter timeout"])
    {
        let answer = wire.answer();
        assert_eq!(answer.status, 504);
        assert!(answer.error().contains(words), "{}", answer.error());
    }
    door.gate.open();
    assert_eq!(wires[0].answer().numbers(), [2.0]);
    assert_eq!(wires[3].answer().numbers(), [8.0]);
    until("those who were too late were found", || door.endpoint.stats().expired == 2);
    let metrics = Wire::open(door.address()).ask(bare("GET", "/metrics"));
    let line = "penstock_requests_total{model=\"double\",outcome=\"expired\"} 2";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

#[test]
fn a_time_that_is_none_is_refused_by_name() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for value in ["soon", "-1", "nan", ""] {
        let answer = wire.ask(asked(&format!("x-request-timeout: {value}\r\n"), 1.0));
        assert_eq!(answer.status, 400, "{value}");
        assert!(answer.error().contains("x-request-timeout is"), "{}", answer.error());
    }
    for micros in ["-1", "1.5", "\"soon\""] {
        assert_eq!(wire.ask(with_parameter(micros, 1.0)).status, 400, "{micros}");
    }
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
}
