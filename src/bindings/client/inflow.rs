//! What is read as it comes, a body or the messages of a stream: a task reads ahead, and stops where nobody takes it.

use std::sync::{Arc, OnceLock};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::courier::{Address, Courier};
use crate::bindings::bridge::bell::Bell;
use crate::bindings::bridge::lifecycle::generation;
use crate::bindings::bridge::lock;
use crate::bindings::bridge::port::Port;
use crate::bindings::errors::to_python;
use crate::bindings::waiter::SIGNAL_CHECK;
use crate::client::{
    Arrivals, Body, DRAINED_FOR, DuplexReceiver, Form, GrpcEnd, StreamFigures, StreamTicket, Taken,
};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::flow::{Held, Monitor};
use crate::metrics::LockCounts;
use crate::stream::Event;

/// What has come and was not taken, and who reads it.
pub(crate) struct Inflow {
    state: Monitor<State>,
    /// Told when there is room again.
    room: Notify,
    reader: OnceLock<AbortHandle>,
    courier: Arc<Courier>,
    /// How a stream of gRPC ended.
    status: OnceLock<GrpcEnd>,
    /// A forked child has this object, and no task that reads.
    born: u64,
}

struct State {
    arrivals: Arrivals,
    bell: Bell,
}

/// Where it comes from.
enum Source {
    /// A body.
    Body(Box<Body>),
    /// A stream of gRPC, of which each message is handed on as it is.
    Messages(Box<DuplexReceiver>),
}

impl Inflow {
    /// Begins to read a body; see [`Body::arrivals`] for what `by_bytes` says.
    pub(super) fn of_body(
        body: Body,
        by_bytes: bool,
        ticket: StreamTicket,
        courier: &Arc<Courier>,
    ) -> CoreResult<Arc<Self>> {
        let over = || Error::new(ErrorKind::Internal, "a body was over before it was read");
        let arrivals = body.arrivals(&courier.memory, by_bytes).ok_or_else(over)?;
        Ok(Self::start(arrivals, Source::Body(Box::new(body)), Some(ticket), courier))
    }

    /// Begins to read messages.
    pub(super) fn of_messages(
        receiver: DuplexReceiver,
        endpoint: Arc<str>,
        courier: &Arc<Courier>,
    ) -> Arc<Self> {
        let arrivals = Arrivals::of_messages(&courier.memory, endpoint);
        Self::start(arrivals, Source::Messages(Box::new(receiver)), None, courier)
    }

    fn start(
        arrivals: Arrivals,
        source: Source,
        ticket: Option<StreamTicket>,
        courier: &Arc<Courier>,
    ) -> Arc<Self> {
        let inflow = Arc::new(Self {
            state: Monitor::new(State { arrivals, bell: Bell::default() }),
            room: Notify::new(),
            reader: OnceLock::new(),
            courier: Arc::clone(courier),
            status: OnceLock::new(),
            born: generation(),
        });
        let reading = Reading { inflow: Arc::clone(&inflow), ticket };
        let task = courier.spawn(read(source, reading)).abort_handle();
        courier.remember(inflow.address(), task.clone());
        // Nobody else sets it.
        let _ = inflow.reader.set(task);
        inflow
    }

    /// The number that the task which reads goes by.
    fn address(&self) -> Address {
        (std::ptr::from_ref(self) as usize, 0)
    }

    /// Takes in a portion of a body; false where no more is to be read.
    fn arrived(&self, portion: &[u8]) -> bool {
        if portion.is_empty() {
            return true;
        }
        let mut state = self.state.lock();
        match state.arrivals.arrived(portion) {
            Ok(true) => self.tell(&mut state),
            Ok(false) => return !state.arrivals.is_drained_enough(),
            Err(error) => {
                state.arrivals.end(Err(error));
                self.tell(&mut state);
                return false;
            }
        }
        true
    }

    fn message(&self, message: Vec<u8>) {
        let mut state = self.state.lock();
        state.arrivals.message(message);
        self.tell(&mut state);
    }

    /// Whatever comes first is the end.
    fn ended(&self, end: CoreResult<()>) {
        let mut state = self.state.lock();
        state.arrivals.end(end);
        self.tell(&mut state);
    }

    /// Tells whoever waits that there is something to take.
    fn tell(&self, state: &mut State) {
        state.bell.ring(&self.courier.ringer);
        self.state.wake_all();
    }

    /// Waits until more may be read.
    ///
    /// # Errors
    /// Where all of it should have come meanwhile.
    async fn has_room(&self) -> CoreResult<()> {
        if !self.state.lock().arrivals.is_full() {
            return Ok(());
        }
        let (memory, deadline) = {
            let state = self.state.lock();
            (state.arrivals.memory(), state.arrivals.deadline())
        };
        loop {
            let freed = memory.freed();
            let mut freed = std::pin::pin!(freed);
            // What is given back from here on is heard of.
            freed.as_mut().enable();
            if !self.state.lock().arrivals.is_full() {
                return Ok(());
            }
            let end = deadline.as_ref().map(|(at, _)| *at);
            tokio::select! {
                () = self.room.notified() => {}
                () = freed => {}
                () = passed(end) => return deadline.map_or(Ok(()), |(_, missed)| Err(missed)),
            }
        }
    }

    fn locked(&self) -> Held<'_, State> {
        self.state.lock()
    }

    /// Lets reading go on, where it waits for what was taken.
    fn took<T>(&self, mut state: Held<'_, State>, taken: T) -> T {
        let goes_on = state.arrivals.can_go_on();
        drop(state);
        if goes_on {
            self.room.notify_one();
        }
        taken
    }

    /// The next bytes of a body, at most so many, or the next message.
    pub(super) fn take_bytes<'py>(&self, py: Python<'py>, most: usize) -> Taken<Bound<'py, PyBytes>> {
        let mut state = self.locked();
        let taken = state.arrivals.take_chunk(most, |first, second| {
            PyBytes::new_with(py, first.len() + second.len(), |bytes| {
                let (front, back) = bytes.split_at_mut(first.len());
                front.copy_from_slice(first);
                back.copy_from_slice(second);
                Ok(())
            })
        });
        let taken = self.took(state, taken)?;
        let no_memory = |error: PyErr| Error::new(ErrorKind::Internal, error.to_string());
        Some(taken.and_then(|bytes| bytes.transpose().map_err(no_memory)))
    }

    /// The next message.
    pub(super) fn take_message(&self) -> Taken<Vec<u8>> {
        let mut state = self.locked();
        let taken = state.arrivals.take_chunk(usize::MAX, |message, _| message.to_vec());
        self.took(state, taken)
    }

    /// The events that have come.
    pub(super) fn take_events(&self, into: &mut Vec<Event>) -> Taken<()> {
        let mut state = self.locked();
        let taken = state.arrivals.take_events(into);
        self.took(state, taken)
    }

    /// The lines that have come.
    pub(super) fn take_lines(&self, into: &mut Vec<Vec<u8>>) -> Taken<()> {
        let mut state = self.locked();
        let taken = state.arrivals.take_lines(into);
        self.took(state, taken)
    }

    pub(super) fn form(&self) -> Form {
        self.locked().arrivals.form()
    }

    /// Takes it in another form from here on.
    pub(super) fn decode(&self, form: Form, most: usize) -> CoreResult<()> {
        let mut state = self.locked();
        let decoded = state.arrivals.decode(form, most);
        if state.arrivals.is_ready() {
            self.tell(&mut state);
        }
        drop(state);
        // It may hold less now.
        self.room.notify_one();
        decoded
    }

    pub(super) fn figures(&self) -> StreamFigures {
        self.locked().arrivals.figures()
    }

    /// The id of the last event, and how long the server asks to wait before the next connection.
    pub(super) fn resumption(&self) -> (Option<Arc<str>>, Option<std::time::Duration>) {
        self.locked().arrivals.resumption()
    }

    /// How a stream of gRPC ended, once it has.
    pub(super) fn status(&self) -> Option<&GrpcEnd> {
        self.status.get()
    }

    /// The exception for a failure, with what had arrived where it is of those that tell.
    pub(super) fn failure(&self, py: Python<'_>, error: &Error) -> PyErr {
        let raised = to_python(py, error);
        if tells_what_came(error.kind()) {
            let (partial, start) = self.locked().arrivals.partial();
            let value = raised.value(py);
            let told = value
                .setattr("partial", PyBytes::new(py, &partial))
                .and_then(|()| value.setattr("partial_start", start));
            if let Err(error) = told {
                return error;
            }
        }
        raised
    }

    /// A future of the running loop that is done when there is something to take. One reader at a time.
    pub(super) fn wait<'py>(&self, py: Python<'py>, port: &Bound<'py, Port>) -> PyResult<Bound<'py, PyAny>> {
        let mut state = self.locked();
        let is_there = state.arrivals.is_ready();
        state.bell.hang(py, port, is_there)
    }

    /// Waits for something to take, with the lock given back.
    pub(super) fn wait_blocking(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            if self.locked().arrivals.is_ready() {
                return Ok(());
            }
            lock::without(py, &LockCounts::new(), || {
                let end = std::time::Instant::now() + SIGNAL_CHECK;
                let mut state = self.state.lock();
                while !state.arrivals.is_ready() && std::time::Instant::now() < end {
                    state = self.state.wait(state, Some(end));
                }
            });
            py.check_signals()?;
        }
    }

    /// Gives up the rest. Where `[DONE]` was the last that came, its end is read for the sake of the connection.
    pub(super) fn close(&self) {
        let Some(reader) = self.reader.get().filter(|_| self.born == generation()) else { return };
        let mut state = self.state.lock();
        if state.arrivals.has_left() {
            return;
        }
        let is_to_be_drained = state.arrivals.leave();
        let closed = Error::new(ErrorKind::StreamClosed, "the stream was closed");
        state.arrivals.end(Err(self.courier.given_up(closed)));
        self.tell(&mut state);
        drop(state);
        if !is_to_be_drained {
            return reader.abort();
        }
        self.room.notify_one();
        let reader = reader.clone();
        drop(self.courier.spawn(async move {
            sleep(DRAINED_FOR).await;
            reader.abort();
        }));
    }
}

/// The failures that tell what had come before them.
fn tells_what_came(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::StreamInterrupted
            | ErrorKind::DeadlineExceeded
            | ErrorKind::FirstChunkTimeout
            | ErrorKind::IdleTimeout
    )
}

async fn passed(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// The task that reads. Where it is ended before its time, whoever waits for something is told.
struct Reading {
    inflow: Arc<Inflow>,
    ticket: Option<StreamTicket>,
}

impl Reading {
    fn end(&mut self, end: CoreResult<()>) {
        if let Some(ticket) = &mut self.ticket {
            match &end {
                Ok(()) => ticket.ended(self.inflow.locked().arrivals.has_left()),
                Err(_) => ticket.failed(),
            }
        }
        self.inflow.ended(end);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let closed = Error::new(ErrorKind::StreamClosed, "the stream was closed");
        self.inflow.ended(Err(self.inflow.courier.given_up(closed)));
        self.inflow.courier.forget(self.inflow.address());
    }
}

/// Reads until the end, no further ahead than it may.
async fn read(source: Source, mut reading: Reading) {
    let end = match source {
        Source::Body(mut body) => read_body(&mut body, &reading.inflow).await,
        Source::Messages(mut receiver) => read_messages(&mut receiver, &reading.inflow).await,
    };
    // None: it was stopped.
    if let Some(end) = end {
        reading.end(end);
    }
}

async fn read_body(body: &mut Body, inflow: &Inflow) -> Option<CoreResult<()>> {
    let mut portion = Vec::new();
    loop {
        if let Err(missed) = inflow.has_room().await {
            return Some(Err(missed));
        }
        portion.clear();
        let read = body.read_for(|look| look(&inflow.locked().arrivals), &mut portion).await;
        // What came before a failure has come.
        let goes_on = inflow.arrived(&portion);
        match read {
            Ok(true) if goes_on => {}
            Ok(true) => return inflow.stopped(),
            Ok(false) => return Some(Ok(())),
            Err(error) => return Some(Err(error)),
        }
    }
}

async fn read_messages(receiver: &mut DuplexReceiver, inflow: &Inflow) -> Option<CoreResult<()>> {
    loop {
        if let Err(missed) = inflow.has_room().await {
            return Some(Err(missed));
        }
        match receiver.next().await {
            Ok(Some(message)) => inflow.message(Vec::from(message)),
            Ok(None) => {
                if let Some(end) = receiver.end() {
                    // Nobody else sets it.
                    let _ = inflow.status.set(end.clone());
                }
                return Some(Ok(()));
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

impl Inflow {
    /// How it ends that no more is read: by an event that is too long, or because a caller left long ago.
    fn stopped(&self) -> Option<CoreResult<()>> {
        let too_long = || Error::new(ErrorKind::Stream, "an event or a line of the stream is too long");
        (!self.locked().arrivals.has_left()).then(|| Err(too_long()))
    }
}
