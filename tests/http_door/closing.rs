//! How a server ends: nothing that was accepted is lost.

use std::net::TcpStream;
use std::time::Duration;

use penstock::serve::{HttpServer, HttpSettings, listen};

use crate::harness::{Door, PATIENCE, Setup, Wire, bare, infer, until};

#[test]
fn health_says_not_ready_before_anything_is_refused() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    assert_eq!(wire.ask(bare("GET", "/v2/health/ready")).status, 200);
    door.service.begin_close();
    assert_eq!(wire.ask(bare("GET", "/v2/health/ready")).status, 503);
    assert_eq!(wire.ask(bare("GET", "/v2/health/live")).status, 200);
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0], "requests are still served");
    assert_eq!(Wire::open(door.address()).ask(infer(&[1.0])).numbers(), [2.0]);
}

#[test]
fn what_was_accepted_is_answered_and_nobody_new_is_let_in() {
    let door = Door::open();
    door.gate.close();
    let mut running = Wire::open(door.address());
    running.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut queued = Wire::open(door.address());
    queued.send(infer(&[2.0]));
    door.wait_queued(1);
    let mut idle = Wire::open(door.address());
    assert_eq!(idle.ask(bare("GET", "/v2/health/live")).status, 200);
    let count = door.inside.connection_count();
    door.server.begin_close();
    assert!(!door.service.is_ready());
    assert!(idle.is_ended(), "a connection without a request has nothing to wait for");
    until("connections were refused", || TcpStream::connect(door.address()).is_err());
    assert!(!count.wait_none(Duration::from_millis(10)), "two are still to be answered");
    door.gate.open();
    for (wire, expected) in [(&mut running, 2.0), (&mut queued, 4.0)] {
        let answer = wire.answer();
        assert_eq!(answer.numbers(), [expected]);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(wire.is_ended());
    }
    assert!(count.wait_none(PATIENCE));
    assert_eq!(door.inside.connections(), 0);
    door.server.begin_close();
}

/// The kernel has accepted a connection before the server knows of it; its client may have sent a request already.
#[test]
fn who_waits_in_the_kernel_when_the_server_closes_is_answered() {
    let door = Door::open();
    door.gate.close();
    let way_in = door.waiting();
    let mut wires: Vec<_> = (0..20).map(|_| Wire::open(way_in.address())).collect();
    for (number, wire) in (0..20_u8).zip(&mut wires) {
        wire.send(infer(&[f32::from(number)]));
    }
    let address = way_in.address();
    way_in.begin_close();
    until("all were read", || door.inside.in_flight() == 20);
    std::thread::sleep(Duration::from_millis(20));
    door.gate.open();
    for (number, wire) in (0..20_u8).zip(&mut wires) {
        let answer = wire.answer();
        assert_eq!(answer.numbers(), [f64::from(number) * 2.0]);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(wire.is_ended());
    }
    until("connections were refused", || TcpStream::connect(address).is_err());
}

#[test]
fn what_lies_in_the_kernel_when_the_server_closes_is_answered() {
    let door = Door::open();
    let mut wires: Vec<_> = (0..20).map(|_| Wire::open(door.address())).collect();
    for wire in &mut wires {
        assert_eq!(wire.ask(bare("GET", "/v2/health/live")).status, 200);
    }
    for (number, wire) in (0..20_u8).zip(&mut wires) {
        wire.send(infer(&[f32::from(number)]));
    }
    door.server.begin_close();
    for (number, wire) in (0..20_u8).zip(&mut wires) {
        assert_eq!(wire.answer().numbers(), [f64::from(number) * 2.0]);
        assert!(wire.is_ended());
    }
}

#[test]
fn nobody_waits_for_a_client_that_says_nothing() {
    let http = HttpSettings { header_timeout: PATIENCE * 3, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let mut silent: Vec<_> = (0..5).map(|_| Wire::open(door.address())).collect();
    until("all were let in", || door.inside.connections() == 5);
    let count = door.inside.connection_count();
    door.server.begin_close();
    assert!(count.wait_none(PATIENCE));
    assert!(TcpStream::connect(door.address()).is_err(), "the port is free by then");
    assert!(silent.iter_mut().all(Wire::is_ended));
}

#[test]
fn a_model_that_closes_answers_what_waits_and_refuses_what_comes() {
    let door = Door::open();
    door.gate.close();
    let mut running = Wire::open(door.address());
    running.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut queued = Wire::open(door.address());
    queued.send(infer(&[2.0]));
    door.wait_queued(1);
    door.endpoint.close(true);
    let mut late = Wire::open(door.address());
    let refused = late.ask(infer(&[3.0]));
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    door.gate.open();
    assert_eq!(running.answer().numbers(), [2.0]);
    assert_eq!(queued.answer().numbers(), [4.0]);
    assert!(door.endpoint.wait_idle(PATIENCE));
    assert_eq!(door.seen(), [1.0, 2.0]);
}

#[test]
fn a_model_that_closes_without_draining_tells_those_who_wait() {
    let door = Door::open();
    door.gate.close();
    let mut running = Wire::open(door.address());
    running.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut queued = Wire::open(door.address());
    queued.send(infer(&[2.0, 3.0]));
    door.wait_queued(2);
    door.endpoint.close(false);
    let refused = queued.answer();
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("'double' was closed"), "{}", refused.error());
    door.gate.open();
    assert_eq!(running.answer().numbers(), [2.0], "what runs is finished");
    assert!(door.endpoint.wait_idle(PATIENCE));
    assert_eq!(door.seen(), [1.0]);
}

#[test]
fn a_door_can_be_opened_where_one_was_closed_just_now() {
    let first = Door::open();
    let address = first.address();
    let mut wire = Wire::open(address);
    wire.ask(bare("GET", "/v2"));
    first.server.begin_close();
    assert!(wire.is_ended());
    until("connections were refused", || TcpStream::connect(address).is_err());
    let runtime = penstock::runtime::handle().unwrap();
    let other = Door::open();
    let served = std::sync::Arc::clone(&other.inside);
    let again = HttpServer::open(listen(address).unwrap(), served, true, &runtime).unwrap();
    assert_eq!(Wire::open(address).ask(infer(&[1.0])).numbers(), [2.0]);
    again.begin_close();
}

#[test]
fn an_address_that_is_taken_is_refused_by_name() {
    let door = Door::open();
    let error = listen(door.address()).expect_err("the address was free");
    assert_eq!(error.kind(), penstock::error::ErrorKind::Config);
    assert!(error.message().contains(&door.address().to_string()), "{error}");
}
