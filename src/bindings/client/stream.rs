//! What is read as it comes, a body or the messages of a stream: the runtime reads a little ahead, and stops where nobody
//! takes it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::bell::Bell;
use super::courier::{Address, Courier};
use super::reply::{Answered, NativeResponse};
use crate::bindings::bridge::lock;
use crate::bindings::bridge::port::Port;
use crate::bindings::waiter::SIGNAL_CHECK;
use crate::client::{Body, DuplexReceiver, GrpcEnd, Response};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::flow::Monitor;
use crate::metrics::LockCounts;

/// Bytes that are read ahead of whoever reads the stream.
const AHEAD: usize = 256 * 1024;
/// Bytes of one chunk at most.
const CHUNK: usize = 64 * 1024;

/// What has come and was not taken.
pub(crate) struct Inflow {
    state: Monitor<State>,
    /// Told when there is room again.
    room: Notify,
    reader: OnceLock<AbortHandle>,
    courier: Arc<Courier>,
    /// How a stream of gRPC ended.
    status: OnceLock<GrpcEnd>,
}

/// Where it comes from.
pub(crate) enum Source {
    /// A body, which is handed on in chunks.
    Body(Body),
    /// A stream of gRPC, of which each message is handed on as it is.
    Messages(Box<DuplexReceiver>),
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
    end: Option<CoreResult<()>>,
    bell: Bell,
}

impl State {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.end.is_none()
    }

    /// The next portion, the end, or a failure; none where nothing has come yet.
    fn take(&mut self) -> Option<CoreResult<Option<Vec<u8>>>> {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.len();
            return Some(Ok(Some(chunk)));
        }
        self.end.as_ref().map(|end| end.clone().map(|()| None))
    }
}

impl Inflow {
    /// Begins to read.
    pub(crate) fn start(source: Source, courier: Arc<Courier>) -> Arc<Self> {
        let inflow = Arc::new(Self {
            state: Monitor::new(State::default()),
            room: Notify::new(),
            reader: OnceLock::new(),
            courier,
            status: OnceLock::new(),
        });
        let task = inflow.courier.spawn(read(source, Reading(Arc::clone(&inflow)))).abort_handle();
        inflow.courier.remember(inflow.address(), task.clone());
        let _ = inflow.reader.set(task);
        inflow
    }

    /// Adds a portion: a message, or what is handed on in chunks.
    fn arrived(&self, portion: Vec<u8>, is_message: bool) {
        let mut state = self.state.lock();
        state.bytes += portion.len();
        if portion.len() <= CHUNK || is_message {
            state.chunks.push_back(portion);
        } else {
            state.chunks.extend(portion.chunks(CHUNK).map(<[u8]>::to_vec));
        }
        self.tell(&mut state);
    }

    /// Whatever comes first is the end.
    fn ended(&self, end: CoreResult<()>) {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        self.tell(&mut state);
    }

    /// The number that the task which reads goes by.
    fn address(&self) -> Address {
        (std::ptr::from_ref(self) as usize, 0)
    }

    /// Tells whoever waits that there is something to take.
    fn tell(&self, state: &mut State) {
        state.bell.ring(&self.courier);
        self.state.wake_all();
    }

    fn is_full(&self) -> bool {
        self.state.lock().bytes >= AHEAD
    }

    /// What has come, its end, or a failure; none where nothing has come yet.
    pub(super) fn take(&self) -> Option<CoreResult<Option<Vec<u8>>>> {
        let taken = self.state.lock().take();
        if matches!(taken, Some(Ok(Some(_)))) {
            self.room.notify_one();
        }
        taken
    }

    /// How a stream of gRPC ended, once it has.
    pub(super) fn status(&self) -> Option<&GrpcEnd> {
        self.status.get()
    }

    /// A future of the running loop that is done when there is something to take. One reader at a time.
    pub(super) fn wait<'py>(&self, py: Python<'py>, port: &Bound<'py, Port>) -> PyResult<Bound<'py, PyAny>> {
        let mut state = self.state.lock();
        let is_there = !state.is_empty();
        state.bell.hang(py, port, is_there)
    }

    /// Waits for something to take, with the lock given back.
    pub(super) fn next_blocking(&self, py: Python<'_>) -> PyResult<CoreResult<Option<Vec<u8>>>> {
        loop {
            if let Some(next) = self.take() {
                return Ok(next);
            }
            lock::without(py, &LockCounts::new(), || {
                let end = std::time::Instant::now() + SIGNAL_CHECK;
                let mut state = self.state.lock();
                while state.is_empty() && std::time::Instant::now() < end {
                    state = self.state.wait(state, Some(end));
                }
            });
            py.check_signals()?;
        }
    }

    /// Gives up the rest.
    pub(super) fn close(&self) {
        if let Some(reader) = self.reader.get() {
            reader.abort();
        }
    }
}

/// The task that reads a body. Where it is ended before its time, whoever waits for a chunk is told.
struct Reading(Arc<Inflow>);

impl Drop for Reading {
    fn drop(&mut self) {
        let closed = Error::new(ErrorKind::StreamClosed, "the stream was closed");
        self.0.ended(Err(self.0.courier.given_up(closed)));
        self.0.courier.forget(self.0.address());
    }
}

/// Reads until the end, no further ahead than it may.
async fn read(mut source: Source, reading: Reading) {
    let inflow = &reading.0;
    loop {
        while inflow.is_full() {
            inflow.room.notified().await;
        }
        let next = match &mut source {
            Source::Body(body) => body.next().await,
            Source::Messages(receiver) => receiver.next().await.map(|message| message.map(Vec::from)),
        };
        match next {
            Ok(Some(portion)) => inflow.arrived(portion, matches!(source, Source::Messages(_))),
            Ok(None) => {
                if let Source::Messages(receiver) = &source
                    && let Some(end) = receiver.end()
                {
                    // Nobody else sets it.
                    let _ = inflow.status.set(end.clone());
                }
                return inflow.ended(Ok(()));
            }
            Err(error) => return inflow.ended(Err(error)),
        }
    }
}

/// An answer whose body still comes. Dropping it gives it up, and the upstream is told to stop.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeStream {
    #[pyo3(get)]
    response: Py<NativeResponse>,
    inflow: Arc<Inflow>,
    recent: Mutex<Option<Py<Port>>>,
}

impl NativeStream {
    pub(crate) fn new(py: Python<'_>, response: Response, inflow: Arc<Inflow>) -> PyResult<Bound<'_, Self>> {
        let response = NativeResponse::new(py, response)?.unbind();
        Bound::new(py, Self { response, inflow, recent: Mutex::new(None) })
    }
}

#[pymethods]
impl NativeStream {
    /// The next chunk, if it has come: bytes, `None` at the end, and `False` where nothing has come yet.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.inflow.take() {
            Some(next) => Answered::Portion(next).object(py),
            None => Ok(PyBool::new(py, false).to_owned().into_any()),
        }
    }

    /// A future of the running loop that is done when there is something to take. One reader at a time.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inflow.wait(py, &Port::current(py, &self.recent)?)
    }

    /// The next chunk, or `None` at the end. Blocks with the lock given back.
    fn next_blocking<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let next = Answered::Portion(self.inflow.next_blocking(py)?).object(py)?;
        Ok(next.cast_into::<PyBytes>().ok())
    }

    /// Gives up the rest: the connection is closed, or its stream reset.
    fn close(&self) {
        self.inflow.close();
    }
}

impl Drop for NativeStream {
    fn drop(&mut self) {
        self.inflow.close();
    }
}
