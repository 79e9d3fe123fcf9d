//! Server-sent events, read by the rules of WHATWG HTML, sections 9.2.5 and 9.2.6.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::lines::Splitter;
use crate::error::{Error, ErrorKind, Result};

const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];
const UNNAMED: &str = "message";

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name; `message` where the stream gives none. Events of one name share the text.
    pub event: Arc<str>,
    /// Its lines of data, joined with LF. What is no UTF-8 became U+FFFD.
    pub data: String,
    /// The last id that the stream gave, by this event or by one before it; empty where there was none.
    pub id: Arc<str>,
}

/// Reads events from bytes that come in any portions; an event comes as soon as the line break of its empty line is there.
///
/// It keeps to the rules where clients often do not: one byte order mark is skipped, LF, CR and CRLF end a line and nothing
/// else does, an event without data is no event, an id with a NUL is ignored, `retry` takes ASCII digits only, and what
/// the stream breaks off in the middle of is no event.
///
/// ```
/// use std::collections::VecDeque;
/// use penstock::stream::{MAX_EVENT, SseDecoder};
///
/// let (mut decoder, mut events) = (SseDecoder::new(MAX_EVENT), VecDeque::new());
/// decoder.feed(b": ping\n\nid: 7\ndata: hello\nda", &mut events).unwrap();
/// decoder.feed(b"ta: world\n\n", &mut events).unwrap();
/// assert_eq!(events[0].data, "hello\nworld");
/// assert_eq!((&*events[0].event, &*events[0].id), ("message", "7"));
/// ```
pub struct SseDecoder {
    splitter: Splitter,
    draft: Draft,
    /// Bytes of a byte order mark that have come; all of them where none can come any more.
    bom: usize,
    max_event: usize,
    failed: bool,
}

/// The event that is being read, and what lasts from one to the next.
struct Draft {
    data: Vec<u8>,
    /// A line of data has come, be it an empty one.
    has_data: bool,
    /// The event's name, where it gives one.
    named: bool,
    name: Arc<str>,
    unnamed: Arc<str>,
    /// The id that the next empty line makes the last one.
    next_id: Option<Arc<str>>,
    last_id: Arc<str>,
    retry: Option<Duration>,
    comments: u64,
}

impl SseDecoder {
    /// For events of at most `max_event` bytes: what an event holds in data, together with the line that is being read.
    pub fn new(max_event: usize) -> Self {
        let unnamed: Arc<str> = UNNAMED.into();
        let draft = Draft {
            data: Vec::new(),
            has_data: false,
            named: false,
            name: Arc::clone(&unnamed),
            unnamed,
            next_id: None,
            last_id: Arc::default(),
            retry: None,
            comments: 0,
        };
        Self { splitter: Splitter::default(), draft, bom: 0, max_event, failed: false }
    }

    /// Takes a portion and adds the events that it ends to `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Stream`] where an event is larger than `max_event`, then and at every later call; the events before it
    /// are in `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut VecDeque<Event>) -> Result<()> {
        let limit = self.max_event;
        if self.failed {
            return Err(too_large(limit));
        }
        if self.read(bytes, out).is_err() || self.draft.data.len() + self.splitter.held() > limit {
            self.failed = true;
            self.splitter.take();
            self.draft.data = Vec::new();
            return Err(too_large(limit));
        }
        Ok(())
    }

    /// The id that a client sends as `Last-Event-ID` when it connects again; empty where there is none.
    pub fn last_event_id(&self) -> &Arc<str> {
        &self.draft.last_id
    }

    /// How long a client waits before it connects again, where the stream said so.
    pub fn retry(&self) -> Option<Duration> {
        self.draft.retry
    }

    /// How many comments have come: lines that keep a connection alive, and are no events.
    pub fn comments(&self) -> u64 {
        self.draft.comments
    }

    fn read(&mut self, bytes: &[u8], out: &mut VecDeque<Event>) -> Result<()> {
        let bytes = self.after_bom(bytes)?;
        let Self { splitter, draft, max_event, .. } = self;
        splitter.feed(bytes, |line| draft.line(line, *max_event, out))
    }

    /// Skips the byte order mark that the stream may begin with, however it is cut.
    fn after_bom<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let mut rest = bytes;
        while let (Some(expected), [first, tail @ ..]) = (BOM.get(self.bom), rest) {
            if first != expected {
                // It was none: what looked like its beginning begins the first line.
                let begun = BOM.get(..self.bom).unwrap_or_default();
                self.bom = BOM.len();
                self.splitter.feed(begun, |_| Ok(()))?;
                break;
            }
            self.bom += 1;
            rest = tail;
        }
        Ok(rest)
    }
}

impl Draft {
    fn line(&mut self, line: &[u8], max_event: usize, out: &mut VecDeque<Event>) -> Result<()> {
        if line.is_empty() {
            self.dispatch(out);
            return Ok(());
        }
        if self.data.len() + line.len() > max_event {
            return Err(too_large(max_event));
        }
        match line.strip_prefix(b"data:") {
            Some(value) => self.add_data(without_space(value)),
            None => self.other_field(line),
        }
        Ok(())
    }

    fn other_field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(colon) => {
                let (name, value) = line.split_at_checked(colon).unwrap_or_default();
                (name, without_space(value.get(1..).unwrap_or_default()))
            }
            None => (line, &[][..]),
        };
        match name {
            b"" => self.comments += 1,
            b"data" => self.add_data(value),
            b"event" => self.set_name(value),
            b"id" if !value.contains(&0) => self.set_id(value),
            b"retry" => self.retry = milliseconds(value).or(self.retry),
            _ => {}
        }
    }

    fn add_data(&mut self, value: &[u8]) {
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        self.has_data = true;
    }

    fn set_name(&mut self, value: &[u8]) {
        self.named = !value.is_empty();
        if self.named && self.name.as_bytes() != value {
            self.name = String::from_utf8_lossy(value).into();
        }
    }

    fn set_id(&mut self, value: &[u8]) {
        let same = self.last_id.as_bytes() == value;
        self.next_id =
            Some(if same { Arc::clone(&self.last_id) } else { String::from_utf8_lossy(value).into() });
    }

    /// An empty line: the id becomes the last one in any case, and what has data is an event.
    fn dispatch(&mut self, out: &mut VecDeque<Event>) {
        if let Some(id) = self.next_id.take() {
            self.last_id = id;
        }
        if self.has_data {
            let event = Arc::clone(if self.named { &self.name } else { &self.unnamed });
            let data = text(std::mem::take(&mut self.data));
            out.push_back(Event { event, data, id: Arc::clone(&self.last_id) });
        }
        self.has_data = false;
        self.named = false;
    }
}

/// The text of bytes; a copy is made only of what is no UTF-8.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A value without the one space that may stand after the colon.
fn without_space(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

/// A number of milliseconds in ASCII digits; one that is too large for a clock is the largest there is.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(Duration::from_millis(value.iter().fold(0, add)))
}

fn too_large(limit: usize) -> Error {
    Error::new(ErrorKind::Stream, format!("an event of the stream is larger than max_event={limit} bytes"))
}
