//! Clients that go away from an answer in pieces, and clients that take none of it: what they asked for costs no more steps.

use std::time::Duration;

use penstock::serve::HttpSettings;

use crate::harness::{Client, GENERATE, PROMPT, Talking, ask, post_to, said, until};

const SHORT: Duration = Duration::from_millis(160);

#[test]
fn a_request_whose_client_left_the_queue_never_reaches_the_model() {
    let talking = Talking::open();
    let stays = talking.asked();
    until("it was queued", || talking.endpoint.stats().queued == 1);
    let leaves = talking.asked();
    until("it was queued", || talking.endpoint.stats().queued == 2);
    drop(leaves);
    until("the server saw it leave", || talking.inside.connections() == 1);
    let client = Client::open(talking.address());
    let asked = client.send_early(post_to(GENERATE, PROMPT));
    until("it was queued", || talking.inside.in_flight() == 2);
    asked.reset();
    until("the server saw it leave", || talking.inside.in_flight() == 1);
    let talk = talking.take_all();
    assert_eq!((talk.count(), talk.left()), (1, 0));
    assert_eq!(talking.counted("cancelled_total"), 2);
    drop(stays);
}

#[test]
fn a_client_that_leaves_before_the_first_piece_stops_its_generation() {
    let talking = Talking::open();
    let leaves = talking.asked();
    let talk = talking.take(1);
    drop(leaves);
    until("the generation was stopped", || talk.left() == 1);
    let client = Client::open(talking.address());
    let asked = client.send_early(post_to(GENERATE, PROMPT));
    let other = talking.take(1);
    asked.reset();
    until("the generation was stopped", || other.left() == 1);
    assert_eq!(talking.counted("cancelled_total"), 2);
    assert_eq!(talking.inside.in_flight(), 0);
}

#[test]
fn a_client_that_leaves_in_the_middle_stops_its_generation() {
    let talking = Talking::open();
    let (mut stays, mut leaves) = (talking.asked(), talking.asked());
    let talk = talking.take(2);
    talk.say("a");
    for wire in [&mut stays, &mut leaves] {
        wire.read(false).unwrap();
        wire.chunk().unwrap();
    }
    drop(leaves);
    // Without another step: what finds it out is a comment.
    until("the generation was stopped", || talk.left() == 1);
    let client = Client::open(talking.address());
    let asked = client.send_early(post_to(GENERATE, PROMPT));
    let other = talking.take(1);
    other.say("a");
    let mut stream = asked.begun();
    stream.piece().unwrap();
    drop(stream);
    until("the generation was stopped", || other.left() == 1);
    assert_eq!(talking.counted("cancelled_total"), 2);
    talk.say("b");
    talk.finish();
    assert_eq!(said(&stays.chunks()), ["b"]);
    assert_eq!(talking.counted("cancelled_total"), 2, "whoever stayed was not cancelled");
}

#[test]
fn a_client_that_leaves_with_bytes_unread_stops_its_generation() {
    let talking = Talking::open();
    let leaves = talking.asked();
    let talk = talking.take(1);
    talk.say("a");
    until("it left", || talking.counted("chunks_total") == 1);
    drop(leaves);
    until("the generation was stopped", || talk.left() == 1);
}

#[test]
fn a_client_that_only_sends_no_more_gets_the_rest() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    talk.say("a");
    wire.read(false).unwrap();
    wire.chunk().unwrap();
    wire.half_close();
    let comment = wire.chunk().unwrap();
    assert!(comment.starts_with(b":"), "{comment:?}");
    for step in 0..20 {
        talk.say(&step.to_string());
        assert_eq!(said(&wire.chunk().unwrap()), [step.to_string()]);
    }
    assert_eq!(talk.left(), 0);
    talk.finish();
    assert!(wire.chunks().is_empty());
    assert!(wire.is_ended());
}

#[test]
fn a_reader_that_takes_nothing_pauses_its_request_and_is_dropped_in_the_end() {
    let talking = Talking::with(HttpSettings { body_timeout: SHORT * 4, ..HttpSettings::default() });
    let wire = talking.asked();
    let talk = talking.take(1);
    let piece = "x".repeat(64 << 10);
    // What the kernel and the window of the stream hold, and no more.
    until("there was no room", || {
        talk.say(&piece);
        talk.without_room() == 1
    });
    assert!(talking.counted("held_bytes") <= 2_000_000);
    until("it was dropped", || talk.left() == 1);
    until("its connection was closed", || talking.inside.connections() == 0);
    assert_eq!(talking.counted("cancelled_total"), 1);
    assert_eq!(talking.counted("held_bytes"), 0);
    drop(wire);
}

#[test]
fn a_reader_that_was_slow_gets_all_of_it() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    let piece = "x".repeat(64 << 10);
    let mut count = 0;
    until("there was no room", || {
        talk.say(&piece);
        count += 1;
        talk.without_room() == 1
    });
    assert!(talking.counted("reader_waits_total") > 0);
    wire.read(false).unwrap();
    talk.finish();
    let got = said(&wire.chunks());
    assert_eq!(got.len(), count);
    assert!(got.iter().all(|text| *text == piece));
}

#[test]
fn a_stream_of_http2_that_is_not_read_holds_up_itself_alone_and_ends_in_time() {
    let talking = Talking::with(HttpSettings { body_timeout: SHORT * 4, ..HttpSettings::default() });
    let client = Client::open(talking.address());
    let asked = client.send_early(post_to(GENERATE, PROMPT));
    let talk = talking.take(1);
    let piece = "x".repeat(64 << 10);
    talk.say(&piece);
    let mut stream = asked.begun();
    until("there was no room", || {
        talk.say(&piece);
        talk.without_room() == 1
    });
    let asked = client.send_early(post_to(GENERATE, PROMPT));
    let other = talking.take(1);
    other.say("a");
    let mut read = asked.begun();
    assert_eq!(said(&read.piece().unwrap()), ["a"]);
    until("the other was given up", || talk.left() == 1);
    other.finish();
    assert!(read.rest().is_empty());
    let words = said(&stream.rest()).pop().unwrap();
    assert!(words.contains("body_timeout=640ms"), "{words}");
    assert_eq!(talking.counted("failed_total"), 1);
    assert_eq!(client.get("/v2/health/live").answer().status, 200);
}

#[test]
fn twenty_clients_that_leave_at_once_take_nobody_along() {
    let talking = Talking::open();
    let mut wires: Vec<_> = (0..40).map(|_| talking.asked()).collect();
    let talk = talking.take(40);
    talk.say("a");
    for wire in &mut wires {
        wire.read(false).unwrap();
        wire.chunk().unwrap();
    }
    let mut stay = wires.split_off(20);
    drop(wires);
    until("twenty were stopped", || talk.left() == 20);
    talk.say("b");
    for wire in &mut stay {
        assert_eq!(said(&wire.chunk().unwrap()), ["b"]);
        wire.try_send(ask(""));
    }
    talk.finish();
    assert!(stay.iter_mut().all(|wire| wire.chunks().is_empty()));
    talking.take(20).finish();
}
