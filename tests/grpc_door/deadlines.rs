//! `grpc-timeout`, and callers who give up.

use std::time::Duration;

use penstock::wire::grpc::framed;
use penstock::wire::grpc::proto::inference::InferParameter;
use penstock::wire::grpc::proto::inference::infer_parameter::ParameterChoice;

use crate::harness::{Client, Door, INFER, LIVE, STREAM, one, raw, until};

const DEADLINE_EXCEEDED: u8 = 4;

#[test]
fn a_deadline_that_has_passed_never_reaches_the_model() {
    let door = Door::open();
    let client = Client::open(door.address());
    for path in [INFER, STREAM, LIVE] {
        let ended = client.call_with(path, &[("grpc-timeout", "0n")], one(1.0)).end();
        assert_eq!(ended.code, Some(DEADLINE_EXCEEDED), "{path}");
        assert!(ended.message.contains("grpc-timeout"), "{}", ended.message);
    }
    assert!(door.seen().is_empty());
    assert_eq!(door.endpoint.stats().requests, 0);
}

#[test]
fn a_request_whose_time_passes_in_the_queue_leaves_it() {
    let door = Door::open();
    let client = Client::open(door.address());
    door.gate.close();
    let running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    let late = client.call_with(INFER, &[("grpc-timeout", "60m")], one(2.0));
    let patient = client.call_with(INFER, &[("grpc-timeout", "1H")], one(3.0));
    assert_eq!(late.end().code, Some(DEADLINE_EXCEEDED));
    door.gate.open();
    assert_eq!(running.end().numbers(), [2.0]);
    assert_eq!(patient.end().numbers(), [6.0]);
    assert_eq!(door.seen(), [1.0, 3.0]);
    assert_eq!(door.endpoint.stats().expired, 1);
}

#[test]
fn the_parameter_of_the_protocol_is_a_deadline_too() {
    let door = Door::open();
    let client = Client::open(door.address());
    door.gate.close();
    let running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    let mut request = raw(&[2.0]);
    let micros = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(60_000)) };
    request.parameters.insert("timeout".into(), micros);
    let ended = client.call_with(INFER, &[("grpc-timeout", "1H")], framed(&request)).end();
    assert_eq!(ended.code, Some(DEADLINE_EXCEEDED));
    assert_eq!(ended.message, "the 60ms of the parameter timeout have passed");
    door.gate.open();
    assert_eq!(running.end().numbers(), [2.0]);
    assert_eq!(door.seen(), [1.0]);
}

#[test]
fn a_request_whose_time_passes_in_the_model_is_told_in_time() {
    let door = Door::open();
    let client = Client::open(door.address());
    door.gate.close();
    let late = client.call_with(INFER, &[("grpc-timeout", "60m")], one(2.0));
    assert_eq!(late.end().code, Some(DEADLINE_EXCEEDED));
    assert_eq!(door.inside.in_flight(), 0);
    door.gate.open();
    assert_eq!(client.call(INFER, one(3.0)).end().numbers(), [6.0]);
}

#[test]
fn a_message_that_does_not_come_in_time_is_no_longer_waited_for() {
    let door = Door::open();
    let client = Client::open(door.address());
    let mut call = client.begin(INFER, &[("grpc-timeout", "50m")]);
    call.push(one(1.0).slice(..10));
    let ended = call.end();
    assert_eq!(ended.code, Some(DEADLINE_EXCEEDED));
    assert!(ended.message.contains("grpc-timeout"), "{}", ended.message);
}

#[test]
fn a_call_that_is_cancelled_never_reaches_the_model() {
    let door = Door::open();
    let client = Client::open(door.address());
    door.gate.close();
    let running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    let leaves = client.call(INFER, one(2.0));
    door.wait_queued(1);
    let stays = client.call(INFER, one(3.0));
    door.wait_queued(2);
    leaves.reset();
    until("it was no longer in flight", || door.inside.in_flight() == 2);
    door.gate.open();
    assert_eq!(running.end().numbers(), [2.0]);
    assert_eq!(stays.end().numbers(), [6.0]);
    assert_eq!(door.seen(), [1.0, 3.0]);
}

#[test]
fn a_stream_ends_with_its_time() {
    let door = Door::open();
    let client = Client::open(door.address());
    door.gate.close();
    let mut call = client.begin(STREAM, &[("grpc-timeout", "100m")]);
    call.push(one(1.0));
    let ended = call.end();
    assert_eq!((ended.code, ended.messages.len()), (Some(DEADLINE_EXCEEDED), 0));
    until("nothing was in flight", || door.inside.in_flight() == 0);
    std::thread::sleep(Duration::from_millis(1));
}
