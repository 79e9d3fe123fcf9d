//! Clients that send frames for as long as they are let: each is cut off, and nobody else notices.

use std::io::Write;
use std::net::TcpStream;

use crate::harness::{Door, PATIENCE, Wire, infer, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://t/`, by the static table of HPACK (RFC 7541, appendix A).
const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b't'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends until the server hangs up; fails where it never does.
fn flood(door: &Door, mut next: impl FnMut(u32) -> Vec<u8>) {
    let mut wire = TcpStream::connect(door.address()).unwrap();
    wire.set_write_timeout(Some(PATIENCE)).unwrap();
    wire.write_all(PREFACE).unwrap();
    let mut sent = 0;
    while wire.write_all(&next(sent)).is_ok() {
        sent += 1;
        assert!(sent < 200_000, "it was let go on for ever");
    }
    until("the connection was gone", || door.inside.connections() == 0);
    assert_eq!(Wire::open(door.address()).ask(infer(&[1.0])).numbers(), [2.0]);
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let door = Door::open();
    flood(&door, |sent| {
        if sent == 0 {
            return frame(HEADERS, 0, 1, GET);
        }
        // A field of its own in each, without a place in the table.
        let mut field = vec![0, 1, b'a', 0x7f, 0x80 | 0x51, 0x7e];
        field.resize(16 << 10, b'b');
        frame(CONTINUATION, 0, 1, &field)
    });
}

#[test]
fn a_head_of_many_empty_pieces_is_cut_off() {
    let door = Door::open();
    flood(&door, |sent| if sent == 0 { frame(HEADERS, 0, 1, GET) } else { frame(CONTINUATION, 0, 1, &[]) });
}

#[test]
fn streams_that_are_opened_and_taken_back_at_once_are_cut_off() {
    let door = Door::open();
    flood(&door, |sent| {
        let stream = sent * 2 + 1;
        let opened = frame(HEADERS, END_STREAM | END_HEADERS, stream, GET);
        [opened, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
    });
}
