//! Clients that hang up: what they asked for costs the model nothing.

use crate::harness::{Door, Wire, body, infer, until};

#[test]
fn a_request_whose_sender_hung_up_never_reaches_the_model() {
    let door = Door::open();
    door.gate.close();
    let mut first = Wire::open(door.address());
    first.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut stays = Wire::open(door.address());
    let mut leaves = Wire::open(door.address());
    leaves.send(infer(&[2.0]));
    door.wait_queued(1);
    stays.send(infer(&[3.0]));
    door.wait_queued(2);
    drop(leaves);
    until("the server saw it leave", || door.inside.connections() == 2);
    door.gate.open();
    assert_eq!(first.answer().numbers(), [2.0]);
    assert_eq!(stays.answer().numbers(), [6.0]);
    assert_eq!(door.seen(), [1.0, 3.0]);
    assert_eq!(door.endpoint.stats().abandoned, 1);
}

#[test]
fn all_rows_of_a_request_leave_with_its_sender() {
    let door = Door::open();
    door.gate.close();
    let mut first = Wire::open(door.address());
    first.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut leaves = Wire::open(door.address());
    leaves.send(infer(&[2.0, 3.0, 4.0]));
    door.wait_queued(3);
    drop(leaves);
    until("the server saw it leave", || door.inside.connections() == 1);
    door.gate.open();
    assert_eq!(first.answer().numbers(), [2.0]);
    assert_eq!(first.ask(infer(&[5.0])).numbers(), [10.0]);
    assert_eq!(door.seen(), [1.0, 5.0]);
    assert_eq!(door.endpoint.stats().abandoned, 3);
}

#[test]
fn a_sender_that_hangs_up_while_the_model_runs_takes_nobody_along() {
    let door = Door::open();
    door.gate.close();
    let mut leaves = Wire::open(door.address());
    leaves.send(infer(&[1.0]));
    door.wait_taken(1);
    drop(leaves);
    until("the server saw it leave", || door.inside.connections() == 0);
    let mut stays = Wire::open(door.address());
    stays.send(infer(&[2.0]));
    door.wait_queued(1);
    door.gate.open();
    assert_eq!(stays.answer().numbers(), [4.0]);
    assert_eq!(door.seen(), [1.0, 2.0]);
}

#[test]
fn a_body_that_breaks_off_is_no_request() {
    let door = Door::open();
    let mut leaves = Wire::open(door.address());
    let whole = body(&[1.0]);
    let head = "POST /v2/models/double/infer HTTP/1.1\r\nhost: test\r\n";
    leaves.send(format!("{head}content-length: {}\r\n\r\n{}", whole.len(), &whole[..whole.len() - 1]));
    drop(leaves);
    until("the server saw it leave", || door.inside.connections() == 0);
    assert_eq!(Wire::open(door.address()).ask(infer(&[2.0])).numbers(), [4.0]);
    assert_eq!(door.seen(), [2.0]);
}

#[test]
fn the_next_request_of_a_full_connection_waits_for_the_one_before() {
    let door = Door::open();
    door.gate.close();
    let mut wire = Wire::open(door.address());
    wire.send(infer(&[1.0]) + &infer(&[2.0]));
    door.wait_taken(1);
    assert_eq!(door.endpoint.stats().queued, 0);
    door.gate.open();
    assert_eq!(wire.answer().numbers(), [2.0]);
    assert_eq!(wire.answer().numbers(), [4.0]);
}
