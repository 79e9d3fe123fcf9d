use std::collections::VecDeque;

use proptest::prelude::*;

use crate::error::ErrorKind;
use crate::stream::{LineDecoder, MAX_EVENT};

fn decode<'a>(portions: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut decoder, mut lines) = (LineDecoder::new(MAX_EVENT), VecDeque::new());
    for portion in portions {
        decoder.feed(portion, &mut lines).unwrap();
    }
    decoder.end(&mut lines);
    lines.into()
}

/// The lines of a whole body, byte by byte.
fn reference(body: &[u8]) -> Vec<Vec<u8>> {
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    for (at, byte) in body.iter().enumerate() {
        match byte {
            b'\n' if at > 0 && body[at - 1] == b'\r' => {}
            b'\n' | b'\r' => lines.push(std::mem::take(&mut line)),
            other => line.push(*other),
        }
    }
    lines.extend((!line.is_empty()).then_some(line));
    lines
}

#[test]
fn every_line_break_ends_a_line_at_every_cut() {
    for body in [
        &b"a\nb\r\nc\rd"[..],
        b"\r\n\r\n\n\n\r\r",
        b"{\"a\":1}\n{\"b\":2}\n",
        b"",
        b"x",
        "ä\u{2028}ö\n".as_bytes(),
    ] {
        for at in 0..=body.len() {
            let (head, tail) = body.split_at(at);
            assert_eq!(decode([head, tail]), reference(body), "{body:?} cut at {at}");
        }
        assert_eq!(decode(body.chunks(1)), reference(body));
    }
    assert_eq!(decode([&b"a\nb\r\nc\rd"[..]]), [b"a", b"b", b"c", b"d"]);
}

#[test]
fn a_line_is_not_held_back_for_what_may_follow_its_cr() {
    let (mut decoder, mut lines) = (LineDecoder::new(MAX_EVENT), VecDeque::new());
    decoder.feed(b"a\r", &mut lines).unwrap();
    assert_eq!(lines, [b"a"]);
    decoder.end(&mut lines);
    assert_eq!(lines.len(), 1);
}

#[test]
fn a_line_beyond_the_limit_is_an_error_that_names_it() {
    for portion in [1, 3, 100] {
        let (mut decoder, mut lines) = (LineDecoder::new(5), VecDeque::new());
        let fed: Vec<_> =
            b"12345\n123456\n1\n".chunks(portion).map(|some| decoder.feed(some, &mut lines)).collect();
        let error = fed.into_iter().find_map(Result::err).unwrap();
        assert_eq!((error.kind(), lines.len()), (ErrorKind::Stream, 1));
        assert!(error.message().contains("max_line=5 bytes"), "{error}");
        decoder.end(&mut lines);
        assert_eq!(lines.len(), 1);
    }
}

proptest! {
    #[test]
    fn lines_are_what_they_are_however_they_are_cut(
        body in proptest::collection::vec(proptest::sample::select(b"ab\r\n".to_vec()), 0..60),
        portion in 1..10_usize,
    ) {
        prop_assert_eq!(decode(body.chunks(portion)), reference(&body));
    }
}
