use std::collections::VecDeque;

use proptest::prelude::*;

use crate::stream::{Event, MAX_EVENT, SseDecoder, write_comment, write_event, write_line};

fn read(stream: &[u8]) -> (Vec<Event>, u64) {
    let (mut decoder, mut events) = (SseDecoder::new(MAX_EVENT), VecDeque::new());
    decoder.feed(stream, &mut events).unwrap();
    (events.into(), decoder.comments())
}

#[test]
fn an_event_is_written_as_the_rules_have_it() {
    let mut out = Vec::new();
    write_event(&mut out, None, None, b"[DONE]");
    assert_eq!(out, b"data: [DONE]\n\n");
    out.clear();
    write_event(&mut out, Some("error"), Some("3"), b"a\nb\r\nc\rd\n");
    assert_eq!(out, b"event: error\nid: 3\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n");
    out.clear();
    write_event(&mut out, None, None, b"");
    assert_eq!(out, b"data: \n\n");
}

#[test]
fn a_name_or_an_id_cannot_break_out_of_its_line() {
    let mut out = Vec::new();
    write_event(&mut out, Some("a\r\nid: 9"), Some("1\0\n2\n\ndata: x"), b"y");
    let (events, _) = read(&out);
    assert_eq!(events.len(), 1);
    assert_eq!((&*events[0].event, &*events[0].id, &*events[0].data), ("aid: 9", "12data: x", "y"));
}

#[test]
fn a_comment_is_no_event_whatever_is_in_it() {
    let mut out = Vec::new();
    write_comment(&mut out, "ping");
    assert_eq!(out, b": ping\n\n");
    write_comment(&mut out, "a\ndata: x\r\rb");
    assert_eq!(read(&out), (Vec::new(), 5));
}

#[test]
fn a_line_of_json_is_one_line() {
    let mut out = Vec::new();
    write_line(&mut out, b"{\"a\":1}");
    write_line(&mut out, b"{\r\n \"a\": [1,\n2]}");
    assert_eq!(out, b"{\"a\":1}\n{   \"a\": [1, 2]}\n");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        event in proptest::option::of("[^\r\n]{0,8}"),
        id in proptest::option::of("[^\r\n\0]{0,8}"),
        data in "([a-z :\u{feff}\u{e9}]|\r|\n|\r\n){0,20}",
    ) {
        let mut out = Vec::new();
        write_comment(&mut out, "before");
        write_event(&mut out, event.as_deref(), id.as_deref(), data.as_bytes());
        let (events, comments) = read(&out);
        prop_assert_eq!((events.len(), comments), (1, 1));
        let name = event.filter(|name| !name.is_empty()).unwrap_or_else(|| "message".into());
        prop_assert_eq!(&*events[0].event, name.as_str());
        prop_assert_eq!(&*events[0].id, id.as_deref().unwrap_or_default());
        prop_assert_eq!(&events[0].data, &data.replace("\r\n", "\n").replace('\r', "\n"));
    }
}
