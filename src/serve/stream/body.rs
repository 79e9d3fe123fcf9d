//! The body of an answer that comes in pieces.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::Streams;
use super::flow::Flow;
use super::keeper::Limits;
use super::packing::Packing;
use crate::error::{Error, ErrorKind};
use crate::metrics::{InFlight, StreamCount};
use crate::pipeline::Boarding;
use crate::serve::access::{AccessLog, AccessRecord};
use crate::serve::connection::OpenStream;
use crate::serve::traced::Spans;
use crate::serve::watch::{Phase, Watch};
use crate::stream::ChunkSize;

/// A body made of what a model says while it works. Dropping it stops the generation.
pub struct StreamBody {
    open: Arc<Open>,
    key: usize,
    ended: bool,
    /// Its connection, where that carries one request at a time.
    watch: Option<Arc<Watch>>,
    /// Its request, where its connection carries many.
    request: Option<OpenStream>,
    logged: Option<Logged>,
    account: Account,
}

/// What is counted of an answer.
pub(super) struct Account {
    streams: Arc<Streams>,
    began: Instant,
    count: StreamCount,
    _in_flight: InFlight,
}

/// A record that is written when the answer has ended.
struct Logged {
    log: Arc<dyn AccessLog>,
    record: AccessRecord,
    began: Instant,
    boarding: Option<Boarding>,
}

/// An answer under way, as whoever looks after it sees it.
pub(super) struct Open {
    state: Mutex<State>,
}

struct State {
    flow: Flow,
    packing: Option<Packing>,
    /// What is left of a chunk that was larger than a chunk may be.
    rest: Bytes,
    size: ChunkSize,
    began: Instant,
    /// Why it is to end.
    ending: Option<Error>,
    /// A comment is to be sent.
    due: bool,
    /// It waits for the model, and not for its reader.
    waits: bool,
    waker: Option<Waker>,
    /// The tick in which something left.
    since: u64,
    /// When a piece left, where one has.
    left: Option<Instant>,
    bytes: u64,
}

impl Account {
    pub(super) fn open(streams: &Arc<Streams>, in_flight: InFlight) -> Self {
        let count = streams.metrics.begin();
        Self { streams: Arc::clone(streams), began: Instant::now(), count, _in_flight: in_flight }
    }

    /// It failed before it began.
    pub(super) fn failed(&mut self) {
        self.count.failed();
    }
}

impl StreamBody {
    pub(super) fn open(flow: Flow, packing: Option<Packing>, account: Account) -> Self {
        let keeper = &account.streams.keeper;
        let state = State {
            flow,
            packing,
            rest: Bytes::new(),
            size: ChunkSize::default(),
            ending: None,
            due: false,
            waits: false,
            waker: None,
            since: keeper.now(),
            left: None,
            began: account.began,
            bytes: 0,
        };
        let open = Arc::new(Open { state: Mutex::new(state) });
        let key = keeper.enter(Arc::clone(&open));
        Self { open, key, ended: false, watch: None, request: None, logged: None, account }
    }

    /// Its connection, which carries one request at a time, is told of the end.
    pub(in crate::serve) fn watched_by(&mut self, watch: &Arc<Watch>) {
        watch.enter(Phase::Streaming);
        self.watch = Some(Arc::clone(watch));
    }

    /// Its connection has a request open for as long.
    pub(in crate::serve) fn hold(&mut self, request: OpenStream) {
        self.request = Some(request);
    }

    /// Writes `record` when the answer has ended.
    pub(in crate::serve) fn log(
        &mut self,
        log: &Arc<dyn AccessLog>,
        record: AccessRecord,
        (began, boarding): (Instant, Option<Boarding>),
    ) {
        self.logged = Some(Logged { log: Arc::clone(log), record, began, boarding });
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.open.state.lock();
        let reader_waits = self.watch.as_ref().is_some_and(|watch| watch.is_stalled());
        let polled = state.poll_chunk(context, &self.account.streams, reader_waits, self.watch.as_deref());
        if state.is_ended() {
            drop(state);
            self.end();
        }
        polled
    }

    /// Nothing comes after what is out.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.account.count.ended();
        if let Some(watch) = &self.watch {
            watch.enter(Phase::Sending);
        }
    }
}

impl State {
    fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
        streams: &Streams,
        reader_waits: bool,
        watch: Option<&Watch>,
    ) -> Poll<Option<Bytes>> {
        self.waits = false;
        if reader_waits {
            // The connection asks again when its reader has taken what is out.
            streams.metrics.reader_waits();
            return Poll::Pending;
        }
        if !self.rest.is_empty() {
            return Poll::Ready(Some(self.next_of_rest(streams)));
        }
        self.fill(context, streams);
        if self.flow.is_quiet() && (std::mem::take(&mut self.due) || watch.is_some_and(Watch::take_doubt)) {
            self.flow.comment();
            self.since = streams.keeper.now();
            if !self.flow.out.is_empty() {
                streams.metrics.kept_alive();
            }
        }
        if self.flow.is_quiet() {
            self.wait(context);
            return Poll::Pending;
        }
        Poll::Ready(self.chunk(streams))
    }

    fn fill(&mut self, context: &mut Context<'_>, streams: &Streams) {
        if self.flow.is_over() {
            return;
        }
        let filled = match self.ending.take() {
            Some(error) => Err(error),
            None => self.flow.fill(context, self.size.cap()),
        };
        if let Err(error) = filled {
            self.flow.fail(&error);
            streams.metrics.failed();
        }
    }

    fn wait(&mut self, context: &Context<'_>) {
        self.waits = true;
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    /// All frames that are there, or as many of their bytes as may go at a time.
    fn chunk(&mut self, streams: &Streams) -> Option<Bytes> {
        let bytes = match &mut self.packing {
            None => taken(&mut self.flow.out),
            Some(packing) => {
                let (plain, last) = (&self.flow.out, self.flow.is_over());
                let packed = packing.pack(plain, last);
                streams.metrics.packed(plain.len(), packed.len());
                self.flow.out.clear();
                packed
            }
        };
        if bytes.is_empty() {
            return None;
        }
        self.size.took(bytes.len());
        self.count(streams);
        self.rest = bytes;
        Some(self.next_of_rest(streams))
    }

    fn next_of_rest(&mut self, streams: &Streams) -> Bytes {
        let most = self.size.cap().min(self.rest.len());
        let chunk = self.rest.split_to(most);
        self.since = streams.keeper.now();
        self.bytes += chunk.len() as u64;
        streams.metrics.chunk(chunk.len());
        chunk
    }

    /// Counts the pieces that leave now.
    fn count(&mut self, streams: &Streams) {
        let pieces = std::mem::take(&mut self.flow.pieces);
        if pieces == 0 {
            return;
        }
        streams.metrics.pieces(pieces);
        let now = Instant::now();
        match self.left.replace(now) {
            None => streams.metrics.first_piece(now - self.began),
            Some(left) => streams.metrics.piece_gap(now - left),
        }
    }

    /// True where all that there is has left.
    fn is_ended(&self) -> bool {
        self.flow.is_over() && self.flow.out.is_empty() && self.rest.is_empty()
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// Up to here bytes are copied, so that their memory serves the next chunk.
const SMALL: usize = 4 << 10;

fn taken(out: &mut Vec<u8>) -> Bytes {
    if out.len() > SMALL {
        return std::mem::take(out).into();
    }
    let bytes = Bytes::copy_from_slice(out);
    out.clear();
    bytes
}

impl Open {
    /// Ends it, with `error` as the last that is said.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.state.lock();
        state.ending.get_or_insert(error);
        state.wake();
    }

    /// Looks how long it has waited, and for whom.
    pub(super) fn look(&self, now: u64, limits: Limits) {
        let mut state = self.state.lock();
        let waited = now.saturating_sub(state.since);
        if state.waits && (waited >= limits.quiet || state.flow.has_news()) {
            state.due = true;
            state.wake();
        } else if !state.waits && waited > limits.stall && !state.flow.is_over() {
            let message = format!("the reader took nothing for body_timeout={:?}", limits.stall_time);
            // It is said where the reader comes back.
            state.ending.get_or_insert(Error::new(ErrorKind::Stream, message));
            state.flow.abandon();
        }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.account.streams.keeper.leave(self.key);
        let bytes = {
            let mut state = self.open.state.lock();
            state.flow.stop();
            state.bytes
        };
        if let Some(Logged { log, mut record, began, boarding }) = self.logged.take() {
            record.spans = boarding.as_ref().and_then(Spans::boarded).map(Box::new);
            (record.at, record.took, record.response_bytes) = (Instant::now(), began.elapsed(), bytes);
            log.access(record);
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.get_mut();
        if body.ended {
            return Poll::Ready(None);
        }
        // A panic is this answer's failure, and not its connection's.
        let polled = catch_unwind(AssertUnwindSafe(|| body.poll_chunk(context)));
        let chunk = polled.unwrap_or_else(|_| Poll::Ready(body.last_words()));
        chunk.map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl StreamBody {
    /// What is said after a panic.
    fn last_words(&mut self) -> Option<Bytes> {
        let error = Error::new(ErrorKind::Internal, "penstock panicked: please report it");
        let said = catch_unwind(AssertUnwindSafe(|| {
            let mut state = self.open.state.lock();
            (state.rest, state.flow.out) = (Bytes::new(), Vec::new());
            state.flow.fail(&error);
            self.account.streams.metrics.failed();
            state.chunk(&self.account.streams)
        }));
        self.end();
        said.ok().flatten()
    }
}
