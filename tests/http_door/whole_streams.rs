//! Streaming switched off: answers that come in pieces are sent as a whole, or not at all.

use std::time::Duration;

use penstock::serve::HttpSettings;

use crate::harness::{Talking, bare, said, until};

const SHORT: Duration = Duration::from_millis(80);

fn talking() -> Talking {
    Talking::with(HttpSettings { streaming: false, keep_alive: SHORT, ..HttpSettings::default() })
}

#[test]
fn the_same_bytes_come_at_once_and_with_their_length() {
    let talking = talking();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    talk.say("a");
    talk.say("b");
    // Longer than `keep_alive`: no comment, no head.
    std::thread::sleep(SHORT * 2);
    talk.say("c");
    talk.finish();
    let answer = wire.read(true).unwrap();
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, None));
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(said(&answer.body), ["a", "b", "c"]);
    assert_eq!(wire.ask(bare("GET", "/v2/health/live")).status, 200);
}

#[test]
fn a_failure_is_a_status_whatever_was_said_before_it() {
    let talking = talking();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    talk.say("so far");
    talk.fail("and no further");
    let answer = wire.read(true).unwrap();
    assert_eq!(answer.status, 500);
    let body = String::from_utf8(answer.body).unwrap();
    assert!(body.contains("and no further") && !body.contains("so far"), "{body}");
}

#[test]
fn a_client_that_hangs_up_stops_the_model() {
    let talking = talking();
    let wire = talking.asked();
    let talk = talking.take(1);
    talk.say("a");
    drop(wire);
    until("the model hears of it", || talk.left() == 1);
}
