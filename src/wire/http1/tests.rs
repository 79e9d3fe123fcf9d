//! The reader of HTTP/1.1 responses, fed by hand.

use proptest::prelude::*;

use super::{Decoder, Head};
use crate::error::ErrorKind;

/// What an answer was, read in portions as they come.
#[derive(Debug, PartialEq)]
struct Read {
    head: Head,
    body: Vec<u8>,
    surplus: usize,
}

/// Feeds `input` in portions that end at `cuts`, as a socket would, and closes it at the end.
fn read(input: &[u8], cuts: &[usize], to_head_request: bool) -> Result<Read, ErrorKind> {
    let mut decoder = Decoder::new(to_head_request);
    let (mut buffer, mut body) = (Vec::new(), Vec::new());
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).chain([input.len()]).collect();
    ends.sort_unstable();
    let mut start = 0;
    for end in ends {
        buffer.extend_from_slice(&input[start..end]);
        start = end;
        let used = decoder.advance(&buffer, Some(&mut body)).map_err(|error| error.kind())?;
        buffer.drain(..used);
    }
    decoder.end().map_err(|error| error.kind())?;
    assert_eq!(decoder.body_length(), body.len() as u64);
    Ok(Read { head: decoder.head().unwrap(), body, surplus: buffer.len() })
}

fn whole(input: &str) -> Result<Read, ErrorKind> {
    read(input.as_bytes(), &[], false)
}

fn broken(input: &str) {
    assert_eq!(whole(input), Err(ErrorKind::ProtocolError), "{input}");
}

#[test]
fn every_framing_is_read() {
    let sized = whole("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_eq!((sized.head.status.as_u16(), sized.head.keeps, &sized.body[..]), (200, true, &b"hello"[..]));
    let chunked = whole(
        "HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\nA\r\n, 10 bytes\r\n0\r\nT: 1\r\n\r\n",
    )
    .unwrap();
    assert_eq!((chunked.head.status.as_u16(), &chunked.body[..]), (503, &b"hello, 10 bytes"[..]));
    assert!(chunked.head.keeps);
    let until_closed = whole("HTTP/1.1 200 OK\r\n\r\nall of it").unwrap();
    assert_eq!((until_closed.head.keeps, &until_closed.body[..]), (false, &b"all of it"[..]));
    let interim =
        whole("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n");
    assert_eq!(interim.unwrap().head.status.as_u16(), 204);
}

#[test]
fn some_answers_have_no_body_whatever_their_head_says() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(read(answer.as_bytes(), &[], true).unwrap().body, b"");
    for status in ["204 None", "304 Same"] {
        let read = whole(&format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n")).unwrap();
        assert!(read.body.is_empty() && read.head.keeps, "{status}");
    }
}

#[test]
fn a_connection_is_kept_where_the_answer_allows_it() {
    let keeps = |head: &str| whole(&format!("{head}\r\nContent-Length: 0\r\n\r\n")).unwrap().head.keeps;
    assert!(keeps("HTTP/1.1 200 OK"));
    assert!(!keeps("HTTP/1.0 200 OK"));
    assert!(keeps("HTTP/1.0 200 OK\r\nConnection: Keep-Alive"));
    assert!(!keeps("HTTP/1.1 200 OK\r\nConnection: foo, CLOSE"));
    assert!(!keeps("HTTP/1.1 200 OK\r\nConnection: close, keep-alive"));
}

#[test]
fn bytes_after_an_answer_are_left_over() {
    let read = whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi there").unwrap();
    assert_eq!((read.body, read.surplus), (b"hi".to_vec(), 6));
}

#[test]
fn what_is_no_answer_is_refused() {
    broken("SSH-2.0-surprise\r\n\r\n");
    broken("HTTP/2.0 200 OK\r\n\r\n");
    broken("HTTP/1.1 2000 OK\r\n\r\n");
    broken("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n");
    broken("HTTP/1.1 200 OK\r\nno colon\r\n\r\n");
    for length in ["-1", "+5", "5, 5", "0x5", "", "5 5", "99999999999999999999"] {
        broken(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhello"));
    }
    broken("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello");
    broken("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    broken("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    broken("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    broken(&format!("HTTP/1.1 200 OK\r\nLong: {}", "x".repeat(70_000)));
    for chunks in ["x\r\n", "5\r\nhello!\r\n", "fffffffffffffffff\r\n", "5\r\nhello\r\n0\r\nno colon\r\n\r\n"]
    {
        broken(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_whole() {
    for input in
        ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "HTTP/1.1 100 Go\r\n\r\n"]
    {
        assert_eq!(whole(input), Err(ErrorKind::ReadFailed), "{input}");
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    assert_eq!(whole(chunked), Err(ErrorKind::ReadFailed));
}

/// An answer, its body, and how many bytes follow it.
fn answers() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, usize)> {
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6);
    (0..3_usize, 0..3_usize, chunks, any::<bool>(), 0..4_usize).prop_map(
        |(framing, interim, chunks, trailer, surplus)| {
            let mut bytes = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(interim);
            let body = chunks.concat();
            bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nServer: some\r\n");
            match framing {
                0 => bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes()),
                1 => bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n"),
                _ => bytes.extend_from_slice(b"\r\n"),
            }
            if framing == 1 {
                for chunk in &chunks {
                    bytes.extend_from_slice(format!("{:x};e\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(if trailer { b"0\r\nA: b\r\n\r\n" } else { b"0\r\n\r\n" });
            } else {
                bytes.extend_from_slice(&body);
            }
            let surplus = if framing == 2 { 0 } else { surplus };
            bytes.extend(std::iter::repeat_n(b'H', surplus));
            (bytes, body, surplus)
        },
    )
}

proptest! {
    #[test]
    fn an_answer_is_the_same_in_whatever_portions_it_comes(
        (bytes, body, surplus) in answers(),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let read = read(&bytes, &cuts, false).unwrap();
        prop_assert_eq!((read.head.status.as_u16(), read.body, read.surplus), (200, body, surplus));
    }

    #[test]
    fn a_byte_at_a_time_is_enough((bytes, body, _) in answers()) {
        let cuts: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(read(&bytes, &cuts, false).unwrap().body, body);
    }

    #[test]
    fn damaged_answers_never_give_more_than_was_sent(
        (mut bytes, _, _) in answers(),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let portions = read(&bytes, &cuts, false);
        let at_once = read(&bytes, &[], false);
        prop_assert_eq!(&portions, &at_once, "portions change what is read");
        if let Ok(read) = portions {
            prop_assert!(read.body.len() + read.surplus < bytes.len());
        }
    }
}
