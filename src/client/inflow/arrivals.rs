//! What has come of a body and was not taken, in the form that is wanted, and how it ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::request::Due;
use super::ahead::{Ahead, StreamMemory};
use super::figures::{Counting, StreamFigures};
use super::pace::Pace;
use super::tape::Tape;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{Event, LineDecoder, SseDecoder};

/// What is read at most of a stream whose caller has left at `[DONE]`, so that its connection can serve on.
const DRAINED_BYTES: u64 = 64 * 1024;
/// For how long it is read.
pub const DRAINED_FOR: Duration = Duration::from_millis(500);

/// What one event or line counts beside its bytes.
const ITEM: usize = 64;
/// Bytes of events or lines that are taken at a time.
const TAKEN: usize = 64 * 1024;
/// What stays of a body of which a failure shows nothing: enough to see `[DONE]`.
const LEAST_KEPT: usize = 64;

/// What a body is taken as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Bytes, as they come.
    Chunks,
    /// Messages of gRPC, each as it is.
    Messages,
    /// Lines, without their ends.
    Lines,
    /// Server-sent events.
    Events,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Chunks => "chunks",
            Self::Messages => "messages",
            Self::Lines => "lines",
            Self::Events => "events",
        }
    }
}

enum Queue {
    /// They stand on the tape.
    Chunks,
    Messages(VecDeque<Vec<u8>>),
    Lines(LineDecoder, VecDeque<Vec<u8>>),
    Events(Box<SseDecoder>, VecDeque<Event>),
}

/// What was taken: nothing, where nothing has come yet; the end; or a failure, which comes after all that had arrived.
pub type Taken<T> = Option<Result<Option<T>>>;

/// What has come and was not taken.
pub struct Arrivals {
    queue: Queue,
    tape: Tape,
    ahead: Ahead,
    /// None for messages of gRPC, which are waited for elsewhere.
    pace: Option<Pace>,
    counting: Counting,
    end: Option<Result<()>>,
    endpoint: Arc<str>,
    paused: Option<Instant>,
    can_go_on: bool,
    /// How many bytes had come when the caller left.
    left_at: Option<u64>,
}

impl Arrivals {
    /// Of a body. `started` is when it was asked for.
    pub(in crate::client) fn of_body(
        pace: Pace,
        memory: &Arc<StreamMemory>,
        started: Instant,
        endpoint: Arc<str>,
    ) -> Self {
        Self::new(Queue::Chunks, Some(pace), memory, started, endpoint)
    }

    /// Of messages, which are neither kept nor waited for here.
    pub fn of_messages(memory: &Arc<StreamMemory>, endpoint: Arc<str>) -> Self {
        Self::new(Queue::Messages(VecDeque::new()), None, memory, Instant::now(), endpoint)
    }

    fn new(
        queue: Queue,
        pace: Option<Pace>,
        memory: &Arc<StreamMemory>,
        started: Instant,
        endpoint: Arc<str>,
    ) -> Self {
        Self {
            queue,
            tape: Tape::default(),
            ahead: Ahead::new(memory),
            pace,
            counting: Counting::new(started),
            end: None,
            endpoint,
            paused: None,
            can_go_on: false,
            left_at: None,
        }
    }

    /// What it is taken as.
    pub fn form(&self) -> Form {
        match self.queue {
            Queue::Chunks => Form::Chunks,
            Queue::Messages(_) => Form::Messages,
            Queue::Lines(..) => Form::Lines,
            Queue::Events(..) => Form::Events,
        }
    }

    /// Takes it as something else than chunks from here on; an event or a line has `most` bytes at most.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is taken as yet something else already.
    pub fn decode(&mut self, form: Form, most: usize) -> Result<()> {
        let before = self.form();
        if before == form {
            return Ok(());
        }
        self.queue = match (before, form) {
            (Form::Chunks, Form::Lines) => Queue::Lines(LineDecoder::new(most), VecDeque::new()),
            (Form::Chunks, Form::Events) => Queue::Events(Box::new(SseDecoder::new(most)), VecDeque::new()),
            _ => {
                let (before, form) = (before.name(), form.name());
                let message = format!("the stream is read as {before}: it cannot be read as {form}, too");
                return Err(Error::new(ErrorKind::Config, message));
            }
        };
        let was_taken = self.tape.end() > self.tape.unread() as u64;
        let (first, second) = self.tape.take(usize::MAX);
        let rest = [first, second].concat();
        self.ahead.give_back(rest.len());
        let came = self.counting.last();
        if !was_taken {
            self.begin_again();
        }
        let fed = self.feed(&rest, came);
        if let Err(error) = fed {
            self.end = Some(Err(error));
        } else if matches!(self.end, Some(Ok(()))) {
            self.finish_lines();
        }
        Ok(())
    }

    /// Bytes that had come may not be what counts.
    fn begin_again(&mut self) {
        self.counting.recount();
        if let Some(pace) = &mut self.pace {
            pace.begin_again();
        }
    }

    /// Takes in what has come; true where there is something new to take.
    ///
    /// # Errors
    /// [`ErrorKind::Stream`] for an event or a line that is too long. No more is to be read then.
    pub fn arrived(&mut self, portion: &[u8]) -> Result<bool> {
        let now = Instant::now();
        if self.left_at.is_some() {
            self.tape.pass(portion, LEAST_KEPT);
            return Ok(false);
        }
        let keep = self.keep();
        if matches!(self.queue, Queue::Chunks) {
            self.tape.push(portion, keep);
            self.ahead.add(portion.len());
            self.came(1, now);
            return Ok(true);
        }
        self.tape.pass(portion, keep);
        self.feed(portion, now)
    }

    /// Takes in a message.
    pub fn message(&mut self, message: Vec<u8>) {
        if let Queue::Messages(messages) = &mut self.queue {
            self.ahead.add(message.len() + ITEM);
            messages.push_back(message);
        }
    }

    fn feed(&mut self, portion: &[u8], now: Instant) -> Result<bool> {
        let (came, bytes, fed) = match &mut self.queue {
            Queue::Lines(decoder, lines) => {
                let before = lines.len();
                let fed = decoder.feed(portion, lines);
                (lines.len() - before, lines.range(before..).map(Vec::len).sum::<usize>(), fed)
            }
            Queue::Events(decoder, events) => {
                let before = events.len();
                let fed = decoder.feed(portion, events);
                (events.len() - before, events.range(before..).map(|event| event.data.len()).sum(), fed)
            }
            Queue::Chunks | Queue::Messages(_) => return Ok(false),
        };
        if came > 0 {
            self.ahead.add(bytes + came * ITEM);
            self.came(came, now);
        } else if let Some(pace) = self.pace.as_mut().filter(|pace| pace.is_by_bytes()) {
            pace.came(now);
        }
        fed.map(|()| came > 0)
    }

    fn came(&mut self, count: usize, now: Instant) {
        self.counting.came(count as u64, now);
        if let Some(pace) = &mut self.pace {
            pace.came(now);
        }
    }

    /// How many bytes that were taken stay for a failure to show.
    fn keep(&self) -> usize {
        match &self.pace {
            Some(pace) if !pace.is_by_bytes() => self.ahead.kept(),
            _ => LEAST_KEPT,
        }
    }

    /// Says how it ends; what was said first stays. A connection that broke is a stream that was interrupted.
    pub fn end(&mut self, end: Result<()>) {
        if self.end.is_some() {
            return;
        }
        let end = end.map_err(|error| match error.kind() {
            ErrorKind::ReadFailed | ErrorKind::WriteFailed | ErrorKind::ProtocolError
                if self.pace.is_some() =>
            {
                let (endpoint, bytes) = (&self.endpoint, self.tape.end());
                let message = format!("the answer of {endpoint} broke off after {bytes} bytes: {error}");
                Error::with_source(ErrorKind::StreamInterrupted, message, error)
            }
            _ => error,
        });
        let is_whole = end.is_ok();
        self.end = Some(end);
        if is_whole {
            self.finish_lines();
        }
    }

    /// The last line may have no end.
    fn finish_lines(&mut self) {
        if let Queue::Lines(decoder, lines) = &mut self.queue {
            let before = lines.len();
            decoder.end(lines);
            let bytes: usize = lines.range(before..).map(|line| line.len() + ITEM).sum();
            let came = lines.len() - before;
            self.ahead.add(bytes);
            if came > 0 {
                self.counting.came(came as u64, Instant::now());
            }
        }
    }

    /// Whether it is over, however it ended.
    pub fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether nothing that came is left to be taken.
    fn is_empty(&self) -> bool {
        match &self.queue {
            Queue::Chunks => self.tape.unread() == 0,
            Queue::Messages(messages) => messages.is_empty(),
            Queue::Lines(_, lines) => lines.is_empty(),
            Queue::Events(_, events) => events.is_empty(),
        }
    }

    /// Whether there is anything to take, the end included.
    pub fn is_ready(&self) -> bool {
        !self.is_empty() || self.has_ended()
    }

    /// Takes the next bytes, at most so many, as `make` makes something of them: they are in two places.
    pub fn take_chunk<T>(&mut self, most: usize, make: impl FnOnce(&[u8], &[u8]) -> T) -> Taken<T> {
        if self.is_empty() {
            return self.ended();
        }
        if let Queue::Messages(messages) = &mut self.queue {
            let message = messages.pop_front().unwrap_or_default();
            let whole = make(&message, &[]);
            self.took(message.len() + ITEM);
            return Some(Ok(Some(whole)));
        }
        let (first, second) = self.tape.take(most);
        let taken = first.len() + second.len();
        let bytes = make(first, second);
        self.took(taken);
        Some(Ok(Some(bytes)))
    }

    /// Takes the lines that have come, all or the first of very many, and adds them to `into`.
    pub fn take_lines(&mut self, into: &mut Vec<Vec<u8>>) -> Taken<()> {
        if self.is_empty() {
            return self.ended();
        }
        let Queue::Lines(_, lines) = &mut self.queue else { return Some(Err(self.in_another_form())) };
        let bytes = take_some(lines, into, Vec::len);
        self.took(bytes);
        Some(Ok(Some(())))
    }

    /// Takes the events that have come, all or the first of very many, and adds them to `into`.
    pub fn take_events(&mut self, into: &mut Vec<Event>) -> Taken<()> {
        if self.is_empty() {
            return self.ended();
        }
        let Queue::Events(_, events) = &mut self.queue else { return Some(Err(self.in_another_form())) };
        let bytes = take_some(events, into, |event| event.data.len());
        self.took(bytes);
        Some(Ok(Some(())))
    }

    fn in_another_form(&self) -> Error {
        Error::new(ErrorKind::Internal, format!("a stream of {} is taken as another", self.form().name()))
    }

    fn took(&mut self, bytes: usize) {
        self.can_go_on |= self.ahead.give_back(bytes);
        if self.is_empty()
            && let Some(pace) = &mut self.pace
        {
            pace.emptied(Instant::now());
        }
    }

    fn ended<T>(&self) -> Taken<T> {
        self.end.as_ref().map(|end| end.clone().map(|()| None))
    }

    /// Whether reading can go on that had to stop; asked once.
    pub fn can_go_on(&mut self) -> bool {
        std::mem::take(&mut self.can_go_on)
    }

    /// Whether no more is to be read just now; what that lasts is counted until it is not so.
    pub fn is_full(&mut self) -> bool {
        let is_full = self.ahead.is_full();
        match self.paused {
            None if is_full => {
                self.paused = Some(Instant::now());
                self.counting.stalled();
                self.ahead.pause(true);
            }
            Some(since) if !is_full => {
                self.paused = None;
                self.counting.went_on(since.elapsed());
                self.ahead.pause(false);
            }
            _ => {}
        }
        is_full
    }

    /// What its streams hold together.
    pub fn memory(&self) -> Arc<StreamMemory> {
        Arc::clone(self.ahead.memory())
    }

    /// What is due next, unless it has come by then.
    pub(in crate::client) fn due(&self) -> Option<Due> {
        self.pace.as_ref().and_then(|pace| pace.due(self.is_empty()))
    }

    /// When all of it must have come, and what it means that it has not.
    pub fn deadline(&self) -> Option<(Instant, Error)> {
        let due = self.pace.as_ref()?.total()?;
        Some((due.at, due.missed(&self.endpoint)))
    }

    /// Lets go of what has come, for a caller who leaves. True where the rest is worth being read for the sake of the
    /// connection: the last that came was `[DONE]`.
    pub fn leave(&mut self) -> bool {
        if self.left_at.is_some() || self.has_ended() {
            return false;
        }
        self.left_at = Some(self.tape.end());
        self.tape.skip();
        match &mut self.queue {
            Queue::Chunks => {}
            Queue::Messages(messages) => messages.clear(),
            Queue::Lines(_, lines) => lines.clear(),
            Queue::Events(_, events) => events.clear(),
        }
        self.ahead.give_back(usize::MAX);
        self.tape.is_done()
    }

    /// Whether the caller has left.
    pub fn has_left(&self) -> bool {
        self.left_at.is_some()
    }

    /// Whether more has come since the caller left than is read for him.
    pub fn is_drained_enough(&self) -> bool {
        self.left_at.is_some_and(|at| self.tape.end() > at + DRAINED_BYTES)
    }

    /// The last bytes of the body that have come, without their content coding, taken or not; and which of the body's
    /// bytes is the first of them.
    pub fn partial(&self) -> (Vec<u8>, u64) {
        let (first, second) = self.tape.kept();
        ([first, second].concat(), self.tape.start())
    }

    /// What it has come to.
    pub fn figures(&self) -> StreamFigures {
        let comments = match &self.queue {
            Queue::Events(decoder, _) => decoder.comments(),
            _ => 0,
        };
        self.counting.figures(self.tape.end(), comments)
    }

    /// The id of the last event, and for how long the server asks to be left alone before the next connection.
    pub fn resumption(&self) -> (Option<Arc<str>>, Option<Duration>) {
        match &self.queue {
            Queue::Events(decoder, _) => (Some(Arc::clone(decoder.last_event_id())), decoder.retry()),
            _ => (None, None),
        }
    }
}

/// Moves all, or the first of very many, and says what they counted.
fn take_some<T>(queue: &mut VecDeque<T>, into: &mut Vec<T>, length: impl Fn(&T) -> usize) -> usize {
    let mut bytes = 0;
    while bytes < TAKEN
        && let Some(item) = queue.pop_front()
    {
        bytes += length(&item) + ITEM;
        into.push(item);
    }
    bytes
}
