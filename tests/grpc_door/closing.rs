//! A server that closes answers what it accepted, and streams do not hold it up.

use std::time::Duration;

use crate::harness::{Client, Door, INFER, STREAM, one, until};

const UNAVAILABLE: u8 = 14;
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

#[test]
fn calls_that_were_accepted_are_answered() {
    let door = Door::open();
    let client = Client::open(door.address());
    door.gate.close();
    let running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    let queued = client.call(INFER, one(2.0));
    door.wait_queued(1);
    let count = door.inside.connection_count();
    door.server.begin_close();
    assert!(!count.wait_none(Duration::from_millis(20)), "two are still to be answered");
    door.gate.open();
    assert_eq!(running.end().numbers(), [2.0]);
    assert_eq!(queued.end().numbers(), [4.0]);
    client.wait_closed();
    until("no connection was left", || door.inside.connections() == 0);
}

#[test]
fn a_stream_is_answered_as_far_as_it_was_read_and_ends() {
    let door = Door::open();
    let client = Client::open(door.address());
    door.gate.close();
    let mut call = client.begin(STREAM, &[]);
    call.push(one(1.0));
    door.wait_taken(1);
    call.push(one(2.0));
    door.wait_queued(1);
    door.server.begin_close();
    door.gate.open();
    let ended = call.end();
    assert_eq!((ended.messages.len(), ended.code), (2, Some(UNAVAILABLE)));
    assert!(ended.message.contains("closing"), "{}", ended.message);
    client.wait_closed();
    until("no connection was left", || door.inside.connections() == 0);
}

#[test]
fn streams_on_which_nothing_happens_end_at_once() {
    let door = Door::open();
    let client = Client::open(door.address());
    let calls = [client.begin(STREAM, &[]), client.begin(REFLECTION, &[])];
    until("both were open", || door.inside.connections() == 1);
    assert_eq!(client.call(INFER, one(1.0)).end().numbers(), [2.0]);
    door.server.begin_close();
    for call in calls {
        assert_eq!(call.end().code, Some(UNAVAILABLE));
    }
    client.wait_closed();
    until("no connection was left", || door.inside.connections() == 0);
}

#[test]
fn a_connection_with_an_open_stream_is_not_idle() {
    let http = penstock::serve::HttpSettings {
        idle_timeout: Duration::from_millis(100),
        ..penstock::serve::HttpSettings::default()
    };
    let door = Door::with(crate::harness::Setup { http, ..crate::harness::Setup::default() });
    let client = Client::open(door.address());
    let mut call = client.begin(STREAM, &[]);
    call.push(one(1.0));
    assert!(call.next().is_some());
    std::thread::sleep(Duration::from_millis(400));
    call.push(one(2.0));
    assert!(call.next().is_some());
    call.finish();
    assert_eq!(call.end().code, Some(0));
    client.wait_closed();
}
