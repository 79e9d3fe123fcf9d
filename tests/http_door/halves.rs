//! Clients that shut down their sending half, and wait for what they are owed.

use std::sync::Arc;
use std::time::Duration;

use penstock::error::Result;
use penstock::pipeline::AnswerRow;
use penstock::tensor::Spares;

use crate::harness::{Door, INFER, Setup, Wire, bare, body, infer, output, post_with, until};

#[test]
fn a_half_that_closes_while_the_model_works_costs_no_answer() {
    let door = Door::open();
    door.gate.close();
    let mut running = Wire::open(door.address());
    running.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut queued = Wire::open(door.address());
    queued.send(infer(&[2.0]));
    door.wait_queued(1);
    running.half_close();
    queued.half_close();
    // Time for a server that would take it for the end.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(door.inside.connections(), 2);
    door.gate.open();
    for (wire, expected) in [(&mut running, 2.0), (&mut queued, 4.0)] {
        assert_eq!(wire.answer().numbers(), [expected]);
        assert!(wire.is_ended());
    }
    assert_eq!(door.endpoint.stats().abandoned, 0);
}

/// A whole request and its end lie in the kernel before the server looks for the first time.
#[test]
fn a_half_that_is_closed_before_the_server_looks_costs_no_answer() {
    let door = Door::open();
    let numbers = vec![1.0_f32; 200_000];
    let large =
        format!(r#"{{"inputs":[{{"name":"x","shape":[1,200000],"datatype":"FP32","data":{numbers:?}}}]}}"#);
    let chunked = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        body(&[3.0]).len(),
        body(&[3.0])
    );
    for (request, expected) in [
        (infer(&[1.0]).into_bytes(), vec![2.0]),
        (chunked.into_bytes(), vec![6.0]),
        (post_with("", large.as_bytes()), vec![2.0; 200_000]),
    ] {
        let way_in = door.waiting();
        let mut wire = Wire::open(way_in.address());
        let mut health = Wire::open(way_in.address());
        health.send(bare("GET", "/v2/models/double"));
        health.half_close();
        // More than the kernel keeps is sent while the server reads.
        if request.len() < 100_000 {
            wire.send(&request);
            wire.half_close();
            way_in.accept();
        } else {
            way_in.accept();
            wire.send(&request);
            wire.half_close();
        }
        assert_eq!(wire.answer().numbers(), expected);
        assert!(wire.is_ended());
        assert_eq!(health.answer().status, 200);
        assert!(health.is_ended());
    }
}

#[test]
fn requests_sent_ahead_are_answered_after_the_half_is_closed() {
    let door = Door::open();
    let way_in = door.waiting();
    let mut wire = Wire::open(way_in.address());
    for number in 0..10_u8 {
        wire.send(infer(&[f32::from(number)]));
        wire.send(bare("GET", "/v2/health/live"));
    }
    wire.half_close();
    way_in.accept();
    for number in 0..10_u8 {
        assert_eq!(wire.answer().numbers(), [f64::from(number) * 2.0]);
        assert_eq!(wire.answer().status, 200);
    }
    assert!(wire.is_ended());
    until("no connection was left", || door.inside.connections() == 0);
}

#[test]
fn a_half_that_closes_between_two_requests_ends_the_connection() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
    wire.half_close();
    assert!(wire.is_ended());
}

fn floods(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    output(&vec![vec![1.0; 4_000_000]; rows.len()], spares)
}

#[test]
fn a_half_that_closes_while_the_answer_is_sent_costs_none_of_it() {
    let door = Door::with(Setup { model: floods, ..Setup::default() });
    let mut wire = Wire::open(door.address());
    wire.send(infer(&[1.0]));
    until("the answer began", || wire.has_come());
    wire.half_close();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(wire.answer().numbers().len(), 4_000_000);
    assert!(wire.is_ended());
    until("no connection was left", || door.inside.connections() == 0);
}

#[test]
fn a_half_that_closes_within_a_request_ends_it() {
    let door = Door::open();
    let whole = infer(&[1.0]);
    for cut in [10, whole.len() - 60, whole.len() - 1] {
        let mut wire = Wire::open(door.address());
        wire.send(&whole[..cut]);
        wire.half_close();
        if let Some(answer) = wire.try_answer() {
            answer.assert_last_words(400);
        }
        assert!(wire.is_ended());
    }
    let mut chunked = Wire::open(door.address());
    chunked.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"));
    chunked.half_close();
    if let Some(answer) = chunked.try_answer() {
        answer.assert_last_words(400);
    }
    until("no connection was left", || door.inside.connections() == 0);
    assert_eq!(door.inside.in_flight(), 0);
    assert!(door.seen().is_empty());
}

/// HTTP/1.0 knows no interim answers, so it cannot be found out whether the client is still there: it counts as gone.
#[test]
fn an_older_client_that_closes_its_half_while_the_model_works_has_left() {
    let door = Door::open();
    door.gate.close();
    let mut running = Wire::open(door.address());
    running.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut old = Wire::open(door.address());
    old.send(infer(&[2.0]).replacen("HTTP/1.1", "HTTP/1.0", 1));
    door.wait_queued(1);
    old.half_close();
    assert!(old.is_ended());
    until("the server let go of it", || door.inside.connections() == 1);
    door.gate.open();
    assert_eq!(running.answer().numbers(), [2.0]);
    let mut quick = Wire::open(door.address());
    quick.send("GET /v2/health/live HTTP/1.0\r\n\r\n");
    quick.half_close();
    assert_eq!(quick.answer().status, 200, "what is answered at once is answered");
    assert_eq!(door.seen(), [1.0]);
}
