use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::reference::{Meaning, interpret};
use crate::error::ErrorKind;
use crate::stream::{Event, MAX_EVENT, SseDecoder};

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/sse");
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}

/// Feeds the portions, and gives what came of all.
fn decode<'a>(portions: impl IntoIterator<Item = &'a [u8]>) -> Meaning {
    let (mut decoder, mut events) = (SseDecoder::new(MAX_EVENT), VecDeque::new());
    for portion in portions {
        decoder.feed(portion, &mut events).unwrap();
    }
    Meaning {
        events: events.into(),
        last_event_id: decoder.last_event_id().as_ref().to_owned(),
        retry: decoder.retry().map(|delay| u64::try_from(delay.as_millis()).unwrap()),
    }
}

fn decoded(stream: &str) -> Vec<Event> {
    decode([stream.as_bytes()]).events
}

fn data(stream: &str) -> Vec<String> {
    decoded(stream).into_iter().map(|event| event.data).collect()
}

/// The stream with every line break of LF replaced.
fn with_breaks(stream: &[u8], line_break: &[u8]) -> Vec<u8> {
    stream.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(line_break)
}

/// The stream as it may come: each kind of line break, with and without a byte order mark.
fn variants(stream: &[u8]) -> Vec<Vec<u8>> {
    let breaks: [&[u8]; 3] = [b"\n", b"\r", b"\r\n"];
    let marks: [&[u8]; 3] = [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf"];
    let with = |mark: &[u8], line_break| [mark, &with_breaks(stream, line_break)].concat();
    marks.iter().flat_map(|mark| breaks.iter().map(move |line_break| with(mark, line_break))).collect()
}

#[test]
fn the_corpus_means_what_the_rules_say_however_it_is_cut() {
    let corpus = corpus();
    assert!(corpus.len() > 20, "only {} files", corpus.len());
    for (name, stream) in &corpus {
        for stream in variants(stream) {
            let expected = interpret(&stream);
            assert_eq!(decode([&stream[..]]), expected, "{name} whole");
            assert_eq!(decode(stream.chunks(1)), expected, "{name} byte by byte");
            for at in 0..=stream.len() {
                let (head, tail) = stream.split_at(at);
                assert_eq!(decode([head, tail]), expected, "{name} cut at {at}");
                assert_eq!(decode([head, &[], tail]), expected, "{name} cut at {at}, nothing between");
            }
        }
    }
}

/// Each byte of an event is what completes it, or is not: nothing waits for a byte that may not come.
#[test]
fn an_event_comes_with_the_last_byte_of_its_empty_line() {
    for line_break in ["\n", "\r", "\r\n"] {
        let stream = "id: 1\ndata: a\ndata: b\n\n".replace('\n', line_break);
        // Of CRLF the CR ends the line.
        let complete = stream.len() - usize::from(line_break == "\r\n");
        let (mut decoder, mut events) = (SseDecoder::new(MAX_EVENT), VecDeque::new());
        for (at, byte) in stream.bytes().enumerate() {
            decoder.feed(&[byte], &mut events).unwrap();
            assert_eq!(events.len(), usize::from(at + 1 >= complete), "{line_break:?} at {at}");
        }
    }
}

#[test]
fn the_examples_of_the_standard_read_as_it_says() {
    assert_eq!(data("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
    let four = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    let four = decoded(four);
    assert_eq!(
        four.iter().map(|event| &*event.data).collect::<Vec<_>>(),
        ["first event", "second event", " third event"]
    );
    assert_eq!(four.iter().map(|event| &*event.id).collect::<Vec<_>>(), ["1", "", ""]);
    assert_eq!(data("data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
    assert_eq!(data("data:test\n\ndata: test\n\n"), ["test", "test"]);
}

#[test]
fn what_clients_get_wrong_is_right() {
    assert_eq!(data("\u{feff}data: a\n\n"), ["a"]);
    assert_eq!(data("data: a\u{2028}b\u{85}c\u{b}d\n\n"), ["a\u{2028}b\u{85}c\u{b}d"]);
    assert!(decoded("event: x\n\nid: 5\n\nretry: 10\n\n: ping\n\n").is_empty());
    let named = decoded("event: x\n\ndata: a\n\nevent: y\nevent\ndata: b\n\nevent: z\ndata: c\n\n");
    assert_eq!(named.iter().map(|event| &*event.event).collect::<Vec<_>>(), ["message", "message", "z"]);
    let ids = decoded("id: 1\n\nid: a\0b\ndata: a\n\nid: 2\ndata: b\n\n: ping\n\ndata: c\n\n");
    assert_eq!(ids.iter().map(|event| &*event.id).collect::<Vec<_>>(), ["1", "2", "2"]);
    for (retry, delay) in [
        ("3000", Some(3000)),
        ("-5", None),
        ("1_0", None),
        ("1.5", None),
        ("", None),
        ("\u{663}", None),
        ("+1", None),
    ] {
        assert_eq!(decode([format!("retry: {retry}\n\n").as_bytes()]).retry, delay, "{retry}");
    }
    assert_eq!(decode([&b"retry: 99999999999999999999999\n"[..]]).retry, Some(u64::MAX));
    assert_eq!(decode([&b"data: \xff\xc3\n\n"[..]]).events[0].data, "\u{fffd}\u{fffd}");
}

#[test]
fn an_unfinished_event_leaves_nothing_but_its_id_out() {
    let left = decode([&b"id: 1\ndata: a\n\nid: 2\ndata: b\n"[..]]);
    assert_eq!((left.events.len(), left.last_event_id.as_str()), (1, "1"));
}

#[test]
fn comments_are_counted_and_events_of_a_name_share_it() {
    let (mut decoder, mut events) = (SseDecoder::new(MAX_EVENT), VecDeque::new());
    decoder.feed(b": a\n:\n\nevent: x\ndata: 1\n\nevent: x\ndata: 2\n\ndata: :\n\n", &mut events).unwrap();
    assert_eq!(decoder.comments(), 2);
    assert!(std::sync::Arc::ptr_eq(&events[0].event, &events[1].event));
    assert_eq!(&*events[2].event, "message");
    assert_eq!(decoder.retry(), None::<Duration>);
}

#[test]
fn an_event_beyond_the_limit_is_an_error_that_names_it_however_it_comes() {
    let fits = format!("data: {}\n\n", "x".repeat(94));
    let (mut decoder, mut events) = (SseDecoder::new(100), VecDeque::new());
    decoder.feed(fits.as_bytes(), &mut events).unwrap();
    assert_eq!(events.len(), 1);
    let large = [
        "data: xxxxxxxxx\n".repeat(11),
        format!("data: {}", "x".repeat(200)),
        format!(":{}", "x".repeat(200)),
    ];
    for large in large {
        let stream = format!("data: first\n\n{large}\n\ndata: last\n\n");
        for portion in [1, 7, 1000] {
            let (mut decoder, mut events) = (SseDecoder::new(100), VecDeque::new());
            let error =
                stream.as_bytes().chunks(portion).find_map(|some| decoder.feed(some, &mut events).err());
            let error = error.unwrap();
            assert_eq!(error.kind(), ErrorKind::Stream);
            assert!(error.message().contains("max_event=100 bytes"), "{error}");
            assert_eq!(events.len(), 1, "by {portion}");
            assert!(decoder.feed(b"\n\ndata: more\n\n", &mut events).is_err());
            assert_eq!(events.len(), 1);
        }
    }
}

proptest! {
    /// Whatever the bytes and however they are cut, they mean what the rules say.
    #[test]
    fn any_bytes_mean_what_the_rules_say(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(vec![
                    &b"data"[..], b"data:", b"data: ", b"event: ", b"id: ", b"id", b"retry: 1", b":", b" ", b"\n", b"\n\n",
                    b"\r", b"\r\n", b"\r\n\r\n", b"\0", b"\xef\xbb\xbf", b"\xc3", b"\xa9", b"\xe2\x80\xa8", b"x", b"[DONE]",
                ]).prop_map(<[u8]>::to_vec),
                proptest::collection::vec(any::<u8>(), 0..4),
            ],
            0..40,
        ),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let stream = pieces.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let portions = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
        prop_assert_eq!(decode(portions), interpret(&stream));
    }
}
