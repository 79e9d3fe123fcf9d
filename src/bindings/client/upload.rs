//! Bodies that Python makes while they are sent, and requests that are out meanwhile.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use super::courier::{Address, Courier, Errand, Manner, Waits};
use super::reply::Answered;
use crate::bindings::bridge::bell::Bell;
use crate::bindings::bridge::lock;
use crate::bindings::bridge::port::Port;
use crate::bindings::errors::{raised, to_python};
use crate::bindings::waiter::Parked;
use crate::client::{Pieces, Request, Route};
use crate::error::ErrorKind;
use crate::flow::Monitor;
use crate::metrics::LockCounts;

/// The body of one request, made from `source` while it is sent.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeUpload {
    #[pyo3(get)]
    source: Py<PyAny>,
    pieces: Pieces,
    room: Arc<Room>,
    recent: Mutex<Option<Py<Port>>>,
}

/// Who waits for room: a future, or a thread.
#[derive(Default)]
struct Room {
    bell: Monitor<Bell>,
    /// Of the client that sends; it rings.
    courier: OnceLock<Arc<Courier>>,
}

impl Room {
    fn tell(&self) {
        if let Some(courier) = self.courier.get() {
            self.bell.lock().ring(&courier.ringer);
        }
        self.bell.wake_all();
    }
}

impl NativeUpload {
    /// What a request sends, once.
    pub(super) fn pieces(&self, py: Python<'_>, courier: &Arc<Courier>) -> PyResult<Pieces> {
        let again =
            |_| raised(py, ErrorKind::Config, "a body that is made while it is sent can be sent once");
        self.room.courier.set(Arc::clone(courier)).map_err(again)?;
        Ok(self.pieces.clone())
    }
}

#[pymethods]
impl NativeUpload {
    #[new]
    fn new(source: Py<PyAny>, length: Option<u64>) -> Self {
        let room = Arc::<Room>::default();
        let telling = Arc::clone(&room);
        Self { source, pieces: Pieces::new(length, move || telling.tell()), room, recent: Mutex::default() }
    }

    /// Adds a piece; true where there is room for another.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn put(&self, py: Python<'_>, piece: PyBackedBytes) -> PyResult<bool> {
        self.pieces.put(Bytes::copy_from_slice(&piece)).map_err(|error| to_python(py, &error))
    }

    /// Says that there are no more.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.pieces.finish().map_err(|error| to_python(py, &error))
    }

    /// A future of the running loop that is done when there is room again.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let port = Port::current(py, &self.recent)?;
        let mut bell = self.room.bell.lock();
        let has_room = self.pieces.has_room();
        bell.hang(py, &port, has_room)
    }

    /// Blocks until there is room again, at most so many seconds; answers whether there is.
    fn wait_blocking(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let end = Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default();
        lock::without(py, &LockCounts::new(), || {
            let mut bell = self.room.bell.lock();
            while !self.pieces.has_room() && Instant::now() < end {
                bell = self.room.bell.wait(bell, Some(end));
            }
        });
        py.check_signals()?;
        Ok(self.pieces.has_room())
    }
}

/// A request that is out.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativePending {
    parked: Arc<Parked<Answered>>,
    address: Address,
    courier: Arc<Courier>,
}

impl NativePending {
    pub(super) fn start(courier: &Arc<Courier>, route: Route, request: Request, how: Manner) -> Self {
        let parked = Arc::new(Parked::default());
        let waits = Waits::Thread(Arc::clone(&parked));
        let address = waits.address();
        courier.put(Errand { route, request, manner: how, recipient: courier.recipient(waits) });
        courier.send();
        Self { parked, address, courier: Arc::clone(courier) }
    }
}

#[pymethods]
impl NativePending {
    /// Whether the answer is there.
    #[getter]
    fn answered(&self) -> bool {
        self.parked.is_answered()
    }

    /// Blocks until the answer is there; Ctrl-C gives the request up.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let answered = self.parked.wait_for(py, None).inspect_err(|_| self.cancel())?;
        let nothing = || raised(py, ErrorKind::Internal, "a wait without an end has ended");
        answered.ok_or_else(nothing)?.object(py)
    }

    /// Gives the request up.
    fn cancel(&self) {
        self.courier.cancel(self.address);
    }
}
