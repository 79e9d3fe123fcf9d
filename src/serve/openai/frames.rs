//! What text looks like on the wire while it comes: events, or lines of JSON.

use std::ops::ControlFlow;

use http::{HeaderMap, HeaderValue, header};

use crate::error::Error;
use crate::pipeline::{Finish, Piece};
use crate::serve::stream::Frames;
use crate::stream::{write_comment, write_event, write_line};
use crate::wire::oip;
use crate::wire::openai::{self, Choices, Heard, TextOutput, Writer};

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Bytes of a buffer that serves the next piece; there may be thousands of streams.
const KEPT_BYTES: usize = 1024;

/// How a stream of JSON is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Server-sent events.
    Events,
    /// A line for each.
    Lines,
}

impl Framing {
    /// What the head of a request asks for: lines where it names them, events otherwise.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let names_lines = |accept: &HeaderValue| {
            accept.as_bytes().split(|byte| *byte == b',').any(|range| {
                let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
                kind.trim_ascii().eq_ignore_ascii_case(LINES.as_bytes())
            })
        };
        if headers.get_all(header::ACCEPT).iter().any(names_lines) { Self::Lines } else { Self::Events }
    }

    pub(super) fn content_type(self) -> HeaderValue {
        match self {
            Self::Events => EVENTS,
            Self::Lines => LINES,
        }
    }

    pub(super) fn write(self, json: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Events => write_event(out, None, None, json),
            Self::Lines => write_line(out, json),
        }
    }

    /// Lines have nothing that their readers would skip.
    pub(super) fn comment(self, words: &str, out: &mut Vec<u8>) {
        if self == Self::Events {
            write_comment(out, words);
        }
    }
}

/// The events of OpenAI's API.
pub(super) struct TextFrames {
    writer: Writer,
    choices: Choices,
    include_usage: bool,
    text: Vec<u8>,
    json: Vec<u8>,
}

impl TextFrames {
    pub(super) fn new(writer: Writer, choices: Choices, include_usage: bool) -> Self {
        Self { writer, choices, include_usage, text: Vec::new(), json: Vec::new() }
    }

    /// Sends what there is to say of a choice, if anything, and why it ended, if it has.
    fn send(&mut self, choice: usize, end: Option<&str>, out: &mut Vec<u8>) {
        if !self.text.is_empty() {
            self.writer.text(choice, &self.text, &mut self.json);
            empty(&mut self.text);
            self.event(out);
        }
        if let Some(reason) = end {
            self.writer.finish(choice, reason, &mut self.json);
            self.event(out);
        }
    }

    fn event(&mut self, out: &mut Vec<u8>) {
        write_event(out, None, None, &self.json);
        empty(&mut self.json);
    }
}

impl Frames for TextFrames {
    fn content_type(&self) -> HeaderValue {
        EVENTS
    }

    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Vec<u8>) -> ControlFlow<()> {
        // A model of text says nothing else.
        let Piece::Text(text) = piece else { return ControlFlow::Continue(()) };
        match self.choices.piece(choice, text, &mut self.text) {
            Heard::More => {
                self.send(choice, None, out);
                ControlFlow::Continue(())
            }
            Heard::Ends(reason) => {
                self.send(choice, Some(reason), out);
                ControlFlow::Break(())
            }
        }
    }

    fn prompt(&mut self, choice: usize, tokens: u64) {
        self.choices.prompt(choice, Some(tokens));
    }

    fn end_choice(&mut self, choice: usize, end: &Finish, out: &mut Vec<u8>) {
        let reason = self.choices.end(choice, end.reason.as_deref(), end.prompt_tokens, &mut self.text);
        self.send(choice, Some(reason), out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.include_usage {
            self.writer.usage(self.choices.usage(), &mut self.json);
            self.event(out);
        }
        write_event(out, None, None, b"[DONE]");
    }

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        write_event(out, None, None, &openai::error_body(error));
    }

    fn comment(&mut self, words: &str, out: &mut Vec<u8>) {
        Framing::Events.comment(words, out);
    }
}

/// The parts of a text by the generate extension.
pub(super) struct TritonFrames {
    output: TextOutput,
    choices: Choices,
    framing: Framing,
    text: Vec<u8>,
    json: Vec<u8>,
}

impl TritonFrames {
    pub(super) fn new(output: TextOutput, choices: Choices, framing: Framing) -> Self {
        Self { output, choices, framing, text: Vec::new(), json: Vec::new() }
    }

    fn send(&mut self, out: &mut Vec<u8>) {
        if !self.text.is_empty() {
            self.output.write(&self.text, &mut self.json);
            self.framing.write(&self.json, out);
            empty(&mut self.text);
            empty(&mut self.json);
        }
    }
}

impl Frames for TritonFrames {
    fn content_type(&self) -> HeaderValue {
        self.framing.content_type()
    }

    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Vec<u8>) -> ControlFlow<()> {
        let Piece::Text(text) = piece else { return ControlFlow::Continue(()) };
        let heard = self.choices.piece(choice, text, &mut self.text);
        self.send(out);
        if heard == Heard::More { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn end_choice(&mut self, choice: usize, end: &Finish, out: &mut Vec<u8>) {
        self.choices.end(choice, end.reason.as_deref(), end.prompt_tokens, &mut self.text);
        self.send(out);
    }

    fn close(&mut self, _out: &mut Vec<u8>) {}

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        self.framing.write(&oip::error_body(error.message()), out);
    }

    fn comment(&mut self, words: &str, out: &mut Vec<u8>) {
        self.framing.comment(words, out);
    }
}

/// Empties a buffer, and gives back what it grew to for a long piece.
fn empty(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_BYTES {
        *buffer = Vec::new();
    } else {
        buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::openai::{Form, Stops};

    fn frames(include_usage: bool, max_tokens: u64, stop: &str) -> TextFrames {
        let writer = Writer::new(Form::Completion, ("cmpl-1", 7), "m", 1, include_usage);
        TextFrames::new(writer, Choices::new(1, 1, max_tokens, &Stops::new([stop])), include_usage)
    }

    fn said(frames: &mut dyn Frames, text: &'static str) -> (String, bool) {
        let mut out = Vec::new();
        let flow = frames.piece(0, &Piece::Text(text.into()), &mut out);
        (String::from_utf8(out).unwrap(), flow.is_break())
    }

    #[test]
    fn what_is_held_back_is_no_event() {
        let mut frames = frames(false, 9, "END");
        assert_eq!(said(&mut frames, "E"), (String::new(), false));
        let (event, ended) = said(&mut frames, "x");
        assert!(event.contains("\"text\":\"Ex\"") && event.ends_with("}\n\n") && !ended);
        let (events, ended) = said(&mut frames, "aEND");
        assert_eq!(events.matches("data: ").count(), 2, "the text before, and the end");
        assert!(events.contains("\"finish_reason\":\"stop\"") && ended);
    }

    #[test]
    fn usage_is_told_of_a_choice_that_was_stopped() {
        let mut frames = frames(true, 1, "");
        let (events, ended) = said(&mut frames, "x");
        assert!(events.contains("\"finish_reason\":\"length\"") && ended);
        frames.prompt(0, 5);
        let mut out = Vec::new();
        frames.close(&mut out);
        let events = String::from_utf8(out).unwrap();
        assert!(
            events.contains("\"prompt_tokens\":5,\"completion_tokens\":1,\"total_tokens\":6"),
            "{events}"
        );
        assert!(events.ends_with("data: [DONE]\n\n"));
    }

    #[test]
    fn lines_are_sent_to_who_names_them() {
        let framing = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Framing::of(&headers)
        };
        assert_eq!(framing("text/html, Application/X-NDJSON;q=0.5"), Framing::Lines);
        assert_eq!(framing("text/event-stream"), Framing::Events);
        assert_eq!(framing("*/*"), Framing::Events);
        assert_eq!(Framing::of(&HeaderMap::new()), Framing::Events);
    }
}
