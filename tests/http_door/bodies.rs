//! Bodies as clients pack them.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use penstock::serve::HttpSettings;

use crate::harness::{Door, INFER, Setup, Wire, body, infer, post_with};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn packed(coding: &str, body: &[u8]) -> Vec<u8> {
    post_with(&format!("content-encoding: {coding}\r\n"), body)
}

#[test]
fn packed_bodies_are_answered_one_after_another() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let plain = body(&[1.5]).into_bytes();
    for (coding, body) in [
        ("gzip", gzip(&plain)),
        ("deflate", deflate(&plain)),
        ("x-gzip", gzip(&plain)),
        ("identity", plain.clone()),
        ("GZip", gzip(&plain)),
        ("gzip", [gzip(&plain[..10]), gzip(&plain[10..])].concat()),
    ] {
        assert_eq!(wire.ask(packed(coding, &body)).numbers(), [3.0], "{coding}");
    }
}

#[test]
fn a_packed_body_may_come_in_chunks() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let whole = gzip(body(&[4.0]).as_bytes());
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-encoding: gzip\r\n");
    wire.send(format!("{head}transfer-encoding: chunked\r\n\r\n"));
    for byte in whole {
        wire.send(b"1\r\n");
        wire.send([byte]);
        wire.send(b"\r\n");
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.answer().numbers(), [8.0]);
}

#[test]
fn a_body_that_unfolds_beyond_the_limit_is_refused_and_the_connection_kept() {
    let http = HttpSettings { max_body: 1 << 20, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let mut wire = Wire::open(door.address());
    let zeros = vec![0; 64 << 20];
    for (coding, bomb) in [("gzip", gzip(&zeros)), ("deflate", deflate(&zeros))] {
        assert!(bomb.len() < 1 << 20, "it would be refused as it is");
        let answer = wire.ask(packed(coding, &bomb));
        assert_eq!(answer.status, 413);
        assert!(answer.error().contains("max_body=1048576"), "{}", answer.error());
    }
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
    assert_eq!(door.refused("max_body"), 2);
}

#[test]
fn packings_that_are_not_known_are_refused_with_those_that_are() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for coding in ["br", "zstd", "gzip, gzip", "", "\u{e9}"] {
        let answer = wire.ask(packed(coding, b"whatever"));
        assert_eq!(answer.status, 415, "{coding:?}");
        assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate"));
        assert!(!answer.error().is_empty());
    }
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0], "the connection is still good");
}

/// What is refused before its body is looked at leaves the connection good, whenever the body comes.
#[test]
fn a_body_that_nobody_wants_is_read_past() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for (path, headers, status) in [
        ("/v2/models/triple/infer", "", 404),
        ("/nowhere", "", 404),
        ("/v2", "", 405),
        (INFER, "content-encoding: br\r\n", 415),
    ] {
        for length in [0, 1, 100_000] {
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: t\r\n{headers}content-length: {length}\r\n\r\n");
            wire.send(head);
            std::thread::sleep(Duration::from_millis(5));
            wire.send(vec![b' '; length]);
            let answer = wire.answer();
            assert_eq!((answer.status, answer.header("connection")), (status, None), "{path} {length}");
        }
    }
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0], "the connection is still good");
}

#[test]
fn a_body_that_was_asked_for_leaves_the_connection_good() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for (text, status) in [(body(&[1.0]), 200), ("no json".to_owned(), 400), (body(&[1.0]), 200)] {
        wire.send(&head);
        assert_eq!(wire.read(false).unwrap().status, 100);
        let answer = wire.ask(format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()));
        assert_eq!((answer.status, answer.header("connection")), (status, None));
    }
}

#[test]
fn a_body_that_nobody_wants_and_that_is_long_or_late_ends_the_connection() {
    let door = Door::open();
    for headers in ["content-length: 1000000\r\n", "content-length: 10\r\n", "transfer-encoding: chunked\r\n"]
    {
        for expectation in ["", "expect: 100-continue\r\n"] {
            let mut wire = Wire::open(door.address());
            wire.send(format!("POST /nowhere HTTP/1.1\r\nhost: t\r\n{expectation}{headers}\r\n"));
            let answer = wire.read(true).unwrap();
            answer.assert_last_words(404);
            assert!(wire.is_ended());
        }
    }
}

#[test]
fn what_cannot_be_unpacked_is_refused_and_the_connection_kept() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let whole = gzip(body(&[1.0]).as_bytes());
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0x55;
    let followed = [whole.as_slice(), b"and more"].concat();
    for (what, bytes) in [
        ("no gzip", b"plain".as_slice()),
        ("nothing", b""),
        ("cut off", &whole[..whole.len() - 4]),
        ("broken", &broken),
        ("followed by something else", &followed),
    ] {
        let answer = wire.ask(packed("gzip", bytes));
        assert_eq!(answer.status, 400, "{what}");
        assert!(!answer.error().is_empty());
    }
    assert_eq!(wire.ask(packed("gzip", &whole)).numbers(), [2.0], "the connection is still good");
    assert_eq!(door.seen(), [1.0]);
}

#[test]
fn chunks_that_are_none_are_refused_and_end_the_connection() {
    let door = Door::open();
    for chunks in ["zz\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "5\r\nabcdefgh\r\n"] {
        let mut wire = Wire::open(door.address());
        wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
        wire.answer().assert_last_words(400);
        assert!(wire.is_ended());
    }
    assert!(door.seen().is_empty());
}
