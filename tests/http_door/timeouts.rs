//! Clients that take their time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock::error::Result;
use penstock::pipeline::AnswerRow;
use penstock::serve::HttpSettings;
use penstock::tensor::Spares;

use crate::harness::{Door, INFER, PATIENCE, Setup, Wire, bare, body, infer, output, until};

const SHORT: Duration = Duration::from_millis(160);
const LONG: Duration = Duration::from_mins(1);
const STEP: Duration = Duration::from_millis(20);

fn timed(header: Duration, body: Duration, idle: Duration) -> Door {
    let http = HttpSettings {
        header_timeout: header,
        body_timeout: body,
        idle_timeout: idle,
        ..HttpSettings::default()
    };
    Door::with(Setup { http, ..Setup::default() })
}

/// Sends a byte at a time until the server has an answer to that; a time-out that each byte extends would never come.
fn trickle(wire: &mut Wire, bytes: impl Iterator<Item = u8>) -> u16 {
    let end = Instant::now() + PATIENCE / 2;
    for byte in bytes {
        assert!(Instant::now() < end, "every byte won more time");
        wire.try_send([byte]);
        std::thread::sleep(STEP);
        if wire.has_come() {
            break;
        }
    }
    let answer = wire.answer();
    answer.assert_last_words(answer.status);
    assert!(wire.is_ended());
    answer.status
}

#[test]
fn a_head_that_takes_too_long_is_told_so_however_it_comes() {
    let door = timed(SHORT, LONG, LONG);
    let head = "GET /v2 HTTP/1.1\r\nhost: t\r\na: ";
    let mut slow = Wire::open(door.address());
    slow.send(head);
    let answer = slow.answer();
    answer.assert_last_words(408);
    assert!(answer.error().contains("header_timeout"), "{}", answer.error());
    assert!(slow.is_ended());
    let mut trickles = Wire::open(door.address());
    assert_eq!(trickle(&mut trickles, head.bytes().chain(std::iter::repeat(b'x'))), 408);
}

#[test]
fn a_second_head_has_the_same_time_as_the_first() {
    let door = timed(SHORT, LONG, LONG);
    let mut wire = Wire::open(door.address());
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
    // Between two requests another limit counts.
    std::thread::sleep(SHORT * 3);
    assert_eq!(wire.ask(infer(&[2.0])).numbers(), [4.0]);
    wire.send("GET /v2 HTTP/1.1\r\n");
    wire.answer().assert_last_words(408);
    assert!(wire.is_ended());
}

#[test]
fn who_never_says_a_word_is_left_without_one() {
    let door = timed(SHORT, LONG, LONG);
    let mut silent = Wire::open(door.address());
    let mut hesitates = Wire::open(door.address());
    hesitates.send("PR");
    assert!(silent.is_ended());
    assert!(hesitates.is_ended());
    until("no connection was left", || door.inside.connections() == 0);
}

#[test]
fn a_body_that_takes_too_long_is_told_so_however_it_comes() {
    let door = timed(LONG, SHORT, LONG);
    let heads = ["content-length: 1000\r\n", "transfer-encoding: chunked\r\n"];
    for head in heads {
        let mut slow = Wire::open(door.address());
        slow.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\n{head}\r\n"));
        let answer = slow.answer();
        answer.assert_last_words(408);
        assert!(answer.error().contains("body_timeout"), "{}", answer.error());
        assert!(slow.is_ended());
    }
    let mut trickles = Wire::open(door.address());
    trickles.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 1000000\r\n\r\n"));
    assert_eq!(trickle(&mut trickles, std::iter::repeat(b' ')), 408);
    assert_eq!(door.refused("body_timeout"), 3);
    assert_eq!(door.inside.in_flight(), 0);
    assert_eq!(Wire::open(door.address()).ask(infer(&[1.0])).numbers(), [2.0]);
}

#[test]
fn a_body_may_take_its_time_within_the_limit_whatever_the_others_are() {
    let door = timed(SHORT, LONG, SHORT);
    let mut wire = Wire::open(door.address());
    let whole = body(&[1.0]);
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", whole.len()));
    std::thread::sleep(SHORT * 4);
    assert_eq!(wire.ask(whole).numbers(), [2.0]);
}

#[test]
fn an_idle_connection_is_closed_and_one_whose_model_works_is_not() {
    let door = timed(LONG, LONG, SHORT);
    let mut works = Wire::open(door.address());
    let mut idle = Wire::open(door.address());
    assert_eq!(works.ask(infer(&[1.0])).numbers(), [2.0]);
    assert_eq!(idle.ask(bare("GET", "/v2")).status, 200);
    door.gate.close();
    works.send(infer(&[2.0]));
    door.wait_taken(2);
    assert!(idle.is_ended());
    std::thread::sleep(SHORT * 3);
    door.gate.open();
    assert_eq!(works.answer().numbers(), [4.0]);
    assert!(works.is_ended(), "now it is idle, too");
}

/// Answers many more numbers than the kernel keeps for a client.
fn floods(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    let length = if rows[0][0] < 0.0 { 4_000_000 } else { 1 };
    output(&vec![vec![1.0; length]; rows.len()], spares)
}

#[test]
fn a_client_that_takes_no_answer_is_dropped_and_the_others_are_served() {
    let http = HttpSettings { body_timeout: SHORT * 2, ..HttpSettings::default() };
    let door = Door::with(Setup { http, model: floods, ..Setup::default() });
    let mut takes_none = Wire::open(door.address());
    takes_none.send(infer(&[-1.0]));
    door.wait_taken(1);
    let mut reads = Wire::open(door.address());
    until("it was dropped", || {
        assert_eq!(reads.ask(infer(&[1.0])).numbers(), [1.0]);
        door.inside.connections() == 1
    });
    let mut reads_all = Wire::open(door.address());
    assert_eq!(reads_all.ask(infer(&[-1.0])).numbers().len(), 4_000_000);
    assert_eq!(reads_all.ask(infer(&[1.0])).numbers(), [1.0]);
}

/// Slower than a tick, faster than the limit, and longer than the limit in all.
#[test]
fn a_client_that_takes_an_answer_slowly_gets_all_of_it() {
    let http = HttpSettings { body_timeout: SHORT * 3, ..HttpSettings::default() };
    let door = Door::with(Setup { http, model: floods, ..Setup::default() });
    let mut slow = Wire::open(door.address());
    slow.send(infer(&[-1.0]));
    let begin = Instant::now();
    let mut read = 0;
    while let Some(piece) = (read < 16_000_000).then(|| slow.bytes(1_000_000)).flatten() {
        read += piece.len();
        std::thread::sleep(SHORT / 2);
    }
    assert_eq!(read, 16_000_000);
    assert!(begin.elapsed() > SHORT * 3, "it was not slow");
}
