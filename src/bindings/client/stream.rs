//! A body that is read as it comes: the runtime reads a little ahead, and stops where nobody takes it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::courier::{Address, Courier};
use super::reply::{Answered, NativeResponse};
use crate::bindings::bridge::lock;
use crate::bindings::bridge::port::{Port, Shared, settle};
use crate::bindings::errors::raised;
use crate::bindings::waiter::SIGNAL_CHECK;
use crate::client::{Body, Response};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::flow::Monitor;
use crate::metrics::LockCounts;

/// Bytes that are read ahead of whoever reads the stream.
const AHEAD: usize = 256 * 1024;
/// Bytes of one chunk at most.
const CHUNK: usize = 64 * 1024;
/// What has come of a body and was not taken.
pub(crate) struct Inflow {
    state: Monitor<State>,
    /// Told when there is room again.
    room: Notify,
    reader: OnceLock<AbortHandle>,
    courier: Arc<Courier>,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
    end: Option<CoreResult<()>>,
    waiting: Option<(Arc<Shared>, usize)>,
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
    pub(crate) fn start(body: Body, courier: Arc<Courier>) -> Arc<Self> {
        let inflow = Arc::new(Self {
            state: Monitor::new(State::default()),
            room: Notify::new(),
            reader: OnceLock::new(),
            courier,
        });
        let task = inflow.courier.spawn(read(body, Reading(Arc::clone(&inflow)))).abort_handle();
        inflow.courier.remember(inflow.address(), task.clone());
        let _ = inflow.reader.set(task);
        inflow
    }

    /// Adds a portion, in chunks.
    fn arrived(&self, portion: Vec<u8>) {
        let mut state = self.state.lock();
        state.bytes += portion.len();
        if portion.len() <= CHUNK {
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
        if let Some((port, slot)) = state.waiting.take() {
            self.courier.reply(port, slot, Answered::Ready);
        }
        self.state.wake_all();
    }

    fn is_full(&self) -> bool {
        self.state.lock().bytes >= AHEAD
    }

    fn take(&self) -> Option<CoreResult<Option<Vec<u8>>>> {
        let taken = self.state.lock().take();
        if matches!(taken, Some(Ok(Some(_)))) {
            self.room.notify_one();
        }
        taken
    }

    fn close(&self) {
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

/// Reads a body until its end, no further ahead than it may.
async fn read(mut body: Body, reading: Reading) {
    let inflow = &reading.0;
    loop {
        while inflow.is_full() {
            inflow.room.notified().await;
        }
        match body.next().await {
            Ok(Some(portion)) => inflow.arrived(portion),
            Ok(None) => return inflow.ended(Ok(())),
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
        let port = Port::current(py, &self.recent)?;
        let (future, slot) = port.get().new_future(py)?;
        let shared = &port.get().shared;
        let mut state = self.inflow.state.lock();
        if let Some((other, slot_of_other)) = state.waiting.take() {
            if !other.is_done(py, slot_of_other) {
                state.waiting = Some((other, slot_of_other));
                drop(state);
                shared.forget(slot);
                return Err(raised(py, ErrorKind::StreamClosed, "two readers wait for the same stream"));
            }
            other.forget(slot_of_other);
        }
        if state.is_empty() {
            state.waiting = Some((Arc::clone(shared), slot));
        } else {
            drop(state);
            shared.forget(slot);
            settle(&future, Ok(py.None().into_bound(py)))?;
        }
        Ok(future)
    }

    /// The next chunk, or `None` at the end. Blocks with the lock given back.
    fn next_blocking<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        loop {
            if let Some(next) = self.inflow.take() {
                let next = Answered::Portion(next).object(py)?;
                return Ok(next.cast_into::<PyBytes>().ok());
            }
            let inflow = &self.inflow;
            lock::without(py, &LockCounts::new(), || {
                let end = std::time::Instant::now() + SIGNAL_CHECK;
                let mut state = inflow.state.lock();
                while state.is_empty() && std::time::Instant::now() < end {
                    state = inflow.state.wait(state, Some(end));
                }
            });
            py.check_signals()?;
        }
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
