//! Events cut apart and left as they are: for whoever passes a stream on, and changes nothing in it.

use std::collections::VecDeque;

use bytes::Bytes;
use memchr::memchr2;

use crate::error::{Error, ErrorKind, Result};

/// A buffer that grew beyond this for one long event is given back after it.
const KEPT_BYTES: usize = 16 * 1024;

const DONE: &[u8] = b"[DONE]";
const BOM: &[u8] = &[0xef, 0xbb, 0xbf];

/// One event of a stream that is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// Its bytes, the empty line that ends it included.
    pub bytes: Bytes,
    /// It says that the stream of an answer in text is over: `data: [DONE]`.
    pub is_done: bool,
}

/// Cuts a stream into its events, byte by byte as they were sent, wherever the portions are cut. What is no event (comments
/// alone, empty lines) is left out.
///
/// An event comes with the line break that ends it, as [`SseDecoder`](super::SseDecoder) has it: where that is a CR, an LF
/// that follows is left out.
///
/// ```
/// use std::collections::VecDeque;
/// use penstock::stream::{EventCutter, MAX_EVENT};
///
/// let (mut cutter, mut events) = (EventCutter::new(MAX_EVENT), VecDeque::new());
/// cutter.feed(b": ping\n\ndata: {\"x\":1}\r\n\r\nda", &mut events).unwrap();
/// cutter.feed(b"ta: [DONE]\n\n", &mut events).unwrap();
/// assert_eq!(&events[0].bytes[..], b"data: {\"x\":1}\r\n\r\n");
/// assert!(events[1].is_done);
/// ```
#[allow(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct EventCutter {
    /// What has come of the next event.
    begun: Vec<u8>,
    /// Where its last line begins.
    line: usize,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// A line of data has come.
    has_data: bool,
    /// The one line of data says that the stream is over.
    is_done: bool,
    /// No line has ended yet: a byte order mark may stand before the first.
    is_first: bool,
    max_event: usize,
}

impl EventCutter {
    /// For events of at most `max_event` bytes.
    pub fn new(max_event: usize) -> Self {
        Self {
            begun: Vec::new(),
            line: 0,
            after_cr: false,
            has_data: false,
            is_done: false,
            is_first: true,
            max_event,
        }
    }

    /// Takes a portion and adds the events that it ends to `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Stream`] where an event is larger than `max_event`; those before it are in `out`.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut VecDeque<RawEvent>) -> Result<()> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr)
                && let Some(rest) = bytes.strip_prefix(b"\n")
            {
                // Between two events it says nothing.
                if !self.begun.is_empty() {
                    self.begun.push(b'\n');
                    self.line = self.begun.len();
                }
                bytes = rest;
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.begun.extend_from_slice(bytes);
                break;
            };
            let (line, rest) = bytes.split_at_checked(end + 1).unwrap_or((bytes, &[]));
            self.after_cr = line.last() == Some(&b'\r');
            self.begun.extend_from_slice(line);
            // Of CRLF both belong to the line, where both have come.
            bytes = match rest.strip_prefix(b"\n").filter(|_| self.after_cr) {
                Some(rest) => {
                    self.after_cr = false;
                    self.begun.push(b'\n');
                    rest
                }
                None => rest,
            };
            self.line_ended(out);
            if self.begun.len() > self.max_event {
                break;
            }
        }
        if self.begun.len() > self.max_event {
            let limit = self.max_event;
            self.forget();
            let message = format!("an event of the stream is larger than max_event={limit} bytes");
            return Err(Error::new(ErrorKind::Stream, message));
        }
        Ok(())
    }

    /// True where an event has begun and not ended: a stream that ends here broke off.
    pub fn is_within(&self) -> bool {
        self.has_data || self.begun.len() > self.line
    }

    fn line_ended(&mut self, out: &mut VecDeque<RawEvent>) {
        let mut line = self.begun.get(self.line..).unwrap_or_default();
        if std::mem::take(&mut self.is_first) {
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        if is_empty(line) {
            if self.has_data {
                out.push_back(RawEvent { bytes: Bytes::copy_from_slice(&self.begun), is_done: self.is_done });
            }
            self.forget();
            return;
        }
        let line = line.trim_ascii_end();
        if let Some(data) = line.strip_prefix(b"data").filter(|rest| matches!(rest, [] | [b':', ..])) {
            let data = data.strip_prefix(b":").unwrap_or(data).trim_ascii();
            self.is_done = !self.has_data && data == DONE;
            self.has_data = true;
        }
        self.line = self.begun.len();
    }

    fn forget(&mut self) {
        self.begun.clear();
        if self.begun.capacity() > KEPT_BYTES {
            self.begun = Vec::new();
        }
        (self.line, self.has_data, self.is_done) = (0, false, false);
    }
}

/// True for a line break alone.
fn is_empty(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r" | b"\r\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stream::{Event, MAX_EVENT, SseDecoder};

    fn cut(portions: &[&[u8]]) -> Vec<RawEvent> {
        let (mut cutter, mut out) = (EventCutter::new(MAX_EVENT), VecDeque::new());
        for portion in portions {
            cutter.feed(portion, &mut out).unwrap();
        }
        out.into()
    }

    fn read(bytes: &[u8]) -> Vec<Event> {
        let (mut decoder, mut out) = (SseDecoder::new(MAX_EVENT), VecDeque::new());
        decoder.feed(bytes, &mut out).unwrap();
        out.into()
    }

    #[test]
    fn events_stay_as_they_were_sent() {
        let text =
            b"event: a\nid: 7\ndata: x\ndata:y\n\n: ping\n\n\ndata: {}\r\n\r\nretry: 3\n\ndata:[DONE]\n\n";
        let events = cut(&[text]);
        let shown: Vec<_> = events.iter().map(|event| (&event.bytes[..], event.is_done)).collect();
        let expected: [(&[u8], bool); 3] = [
            (b"event: a\nid: 7\ndata: x\ndata:y\n\n", false),
            (b"data: {}\r\n\r\n", false),
            (b"data:[DONE]\n\n", true),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_is_done_is_one_line_of_data() {
        for (text, done) in [
            (&b"data: [DONE]\r\r"[..], true),
            ("\u{feff}data: [DONE]\n\n".as_bytes(), true),
            (b"data: [DONE] \n\n", true),
            (b"data: [DONE]\ndata: x\n\n", false),
            (b"data: x\ndata: [DONE]\n\n", false),
            (b"database: [DONE]\ndata: x\n\n", false),
        ] {
            assert_eq!(cut(&[text])[0].is_done, done, "{text:?}");
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_an_error_after_those_before_it() {
        let (mut cutter, mut out) = (EventCutter::new(16), VecDeque::new());
        let error = cutter.feed(b"data: 1\n\ndata: 0123456789abcdef", &mut out).unwrap_err();
        assert_eq!((error.kind(), out.len()), (ErrorKind::Stream, 1));
        let (mut cutter, mut out) = (EventCutter::new(16), VecDeque::new());
        assert!(cutter.feed(b"data: 1\ndata: 2\ndata: 3\n\n", &mut out).is_err());
    }

    #[test]
    fn an_end_within_an_event_is_known() {
        let within = |text: &[u8]| {
            let mut cutter = EventCutter::new(MAX_EVENT);
            cutter.feed(text, &mut VecDeque::new()).unwrap();
            cutter.is_within()
        };
        assert!(!within(b"data: 1\n\n") && !within(b"data: 1\r\n\r\n") && !within(b": ping\n"));
        assert!(within(b"data: 1\n") && within(b"data: 1\n\nda") && within(b"data: 1\n\ndata"));
    }

    proptest! {
        #[test]
        fn every_cut_gives_the_same_events_which_read_as_the_whole(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["data: a", "data:[DONE]", ": c", "id: 1", "event: e", "\n", "\r", "\r\n", "x"]), 0..24),
            cuts in prop::collection::vec(0_usize..200, 0..8),
        ) {
            let text = pieces.concat();
            let bytes = text.as_bytes();
            let mut places: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let portions: Vec<_> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let events = cut(&portions);
            let joined: Vec<u8> = events.iter().flat_map(|event| event.bytes.to_vec()).collect();
            let whole = read(bytes);
            let again = read(&joined);
            prop_assert_eq!(events.len(), whole.len());
            let data = |events: &[Event]| events.iter().map(|event| event.data.clone()).collect::<Vec<_>>();
            prop_assert_eq!(data(&again), data(&whole));
            // An event that a CR ends may be without the LF that a later portion begins with.
            let compare = |events: &[RawEvent]| {
                events.iter().map(|event| event.bytes.iter().copied().filter(|byte| *byte != b'\n' && *byte != b'\r').collect::<Vec<_>>()).collect::<Vec<_>>()
            };
            prop_assert_eq!(compare(&events), compare(&cut(&[bytes])));
        }
    }
}
