//! Who goes first, and on whose behalf: by the head of a request, and by its parameter.

use penstock::batch::BatchPolicy;

use crate::harness::{Door, Setup, Wire, bare, body, infer, post_with};

/// A server that takes requests one by one, so that the order shows.
fn one_by_one() -> Door {
    let policy = BatchPolicy { max_size: 1, ..BatchPolicy::default() };
    let door = Door::with(Setup { policy, ..Setup::default() });
    door.gate.close();
    door
}

fn with_parameter(priority: &str, number: f32) -> Vec<u8> {
    let body = body(&[number]);
    let inner = body.trim_end().strip_suffix('}').unwrap();
    post_with("", format!(r#"{inner},"parameters":{{"priority":{priority}}}}}"#).as_bytes())
}

fn with_head(fields: &str, number: f32) -> Vec<u8> {
    post_with(fields, body(&[number]).as_bytes())
}

#[test]
fn a_high_priority_goes_first_however_it_is_said() {
    let door = one_by_one();
    let requests = [
        infer(&[1.0]).into(),
        with_head("x-request-priority: low\r\n", 6.0),
        with_parameter("\"low\"", 7.0),
        with_parameter("0", 4.0),
        with_head("x-request-priority: normal\r\n", 5.0),
        with_head("x-request-priority: high\r\nx-request-tenant: a\r\n", 2.0),
        with_parameter("1", 3.0),
    ];
    let mut wires = Vec::new();
    for (at, request) in requests.into_iter().enumerate() {
        let mut wire = Wire::open(door.address());
        wire.send(request);
        if at == 0 {
            door.wait_taken(1);
        } else {
            door.wait_queued(at);
        }
        wires.push(wire);
    }
    door.gate.open();
    for wire in &mut wires {
        assert_eq!(wire.answer().status, 200);
    }
    assert_eq!(door.seen(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn what_cannot_be_is_refused_by_name_and_counted() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let long = format!("x-request-tenant: {}\r\n", "x".repeat(129));
    for (fields, words) in [
        ("x-request-priority: urgent\r\n", "x-request-priority is 'urgent'"),
        ("x-request-priority: low\r\nx-request-priority: low\r\n", "x-request-priority is given twice"),
        ("x-request-tenant: \r\n", "x-request-tenant is empty"),
        (&*long, "x-request-tenant is longer than 128"),
    ] {
        let answer = wire.ask(with_head(fields, 1.0));
        assert_eq!(answer.status, 400, "{fields}");
        assert!(answer.error().contains(words), "{}", answer.error());
    }
    for level in ["-1", "1.5", "\"urgent\"", "[]"] {
        let answer = wire.ask(with_parameter(level, 1.0));
        assert_eq!(answer.status, 400, "{level}");
        assert!(answer.error().contains("priority"), "{}", answer.error());
    }
    assert!(door.seen().is_empty());
    let metrics = wire.ask(bare("GET", "/metrics"));
    let line = "penstock_requests_total{model=\"double\",outcome=\"invalid\"} 8";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}
