//! Where answers enter an event loop: its futures in a slab, a queue, and one byte on a socket for each burst.
//!
//! A worker pushes a batch of answers and, if nobody has done so since the last drain, writes one byte to a socket that
//! the loop watches. That cannot fail on a closed loop, needs no lock, and wakes asyncio once however many answers came.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;
use slab::Slab;

use crate::bindings::waiter::Results;
use crate::flow::BurstQueue;

/// Answers for futures of one loop.
pub(crate) struct Delivery {
    pub(crate) results: Arc<Results>,
    /// Which row answers which future.
    pub(crate) rows: Vec<(usize, usize)>,
}

/// The part of a port that other threads hold.
pub(crate) struct Shared {
    queue: BurstQueue<Delivery>,
    futures: Mutex<Slab<Py<PyAny>>>,
    bell: UnixStream,
}

impl Shared {
    /// Hands answers over and wakes the loop, unless a wake is already on its way.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        if self.queue.push(delivery) {
            // A full socket means that a wake is waiting to be read; a closed one, that nobody waits.
            let _ = (&self.bell).write(&[1]);
        }
    }

    /// True where the future was cancelled or given a result by somebody else.
    pub(crate) fn is_done(&self, py: Python<'_>, slot: usize) -> bool {
        let future = self.futures.lock().get(slot).map(|future| future.clone_ref(py));
        future.is_none_or(|future| {
            let done = future.bind(py).call_method0(intern!(py, "done"));
            done.and_then(|done| done.is_truthy()).unwrap_or(true)
        })
    }

    /// Drops a future that nobody will answer.
    pub(crate) fn forget(&self, slot: usize) {
        let future = self.futures.lock().try_remove(slot);
        drop(future);
    }

    /// Gives a future of the running loop its answer.
    pub(crate) fn answer(&self, py: Python<'_>, slot: usize, results: &Results, row: usize) -> PyResult<()> {
        let Some(future) = self.futures.lock().try_remove(slot) else { return Ok(()) };
        let future = future.bind(py);
        let set = match results.get(py, row)? {
            Ok(value) => future.call_method1(intern!(py, "set_result"), (value,)),
            Err(exception) => future.call_method1(intern!(py, "set_exception"), (exception,)),
        };
        match set {
            Err(error) if !error.is_instance(py, asyncio(py)?.invalid_state.bind(py)) => Err(error),
            // Done already: its owner cancelled it while the model ran.
            _ => Ok(()),
        }
    }
}

/// Something that has work to do at the end of a loop's tick.
pub(crate) trait TickEnd: Send + Sync {
    fn end_tick(self: Arc<Self>, py: Python<'_>, port: &Bound<'_, Port>);
}

/// One event loop's side of the bridge.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Port {
    pub(crate) shared: Arc<Shared>,
    pub(crate) event_loop: Py<PyAny>,
    create_future: Py<PyAny>,
    listener: UnixStream,
    /// What was submitted to in this tick.
    touched: Mutex<Vec<Arc<dyn TickEnd>>>,
    /// True while the end of this tick is scheduled.
    scheduled: AtomicBool,
    /// `end_tick`, bound once: binding it costs more than calling it.
    on_tick_end: PyOnceLock<Py<PyAny>>,
}

struct Asyncio {
    running_loop: Py<PyAny>,
    invalid_state: Py<PyAny>,
}

static ASYNCIO: PyOnceLock<Asyncio> = PyOnceLock::new();
static PORTS: Mutex<Vec<Py<Port>>> = Mutex::new(Vec::new());

fn asyncio(py: Python<'_>) -> PyResult<&Asyncio> {
    ASYNCIO.get_or_try_init(py, || {
        let module = PyModule::import(py, "asyncio")?;
        Ok(Asyncio {
            running_loop: PyModule::import(py, "asyncio.events")?.getattr("_get_running_loop")?.unbind(),
            invalid_state: module.getattr("InvalidStateError")?.unbind(),
        })
    })
}

/// The event loop that runs in this thread, if one does.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let event_loop = asyncio(py)?.running_loop.bind(py).call0()?;
    Ok(if event_loop.is_none() { None } else { Some(event_loop) })
}

impl Port {
    /// The port of the running loop; `recent` is looked at first and updated.
    pub(crate) fn current<'py>(py: Python<'py>, recent: &Mutex<Option<Py<Port>>>) -> PyResult<Bound<'py, Self>> {
        let Some(event_loop) = running_loop(py)? else {
            return Err(PyRuntimeError::new_err(
                "no event loop runs in this thread: await the call inside a coroutine, or use .call(item)",
            ));
        };
        let known = recent.lock().as_ref().map(|port| port.clone_ref(py));
        if let Some(port) = known.filter(|port| port.get().event_loop.is(&event_loop)) {
            return Ok(port.into_bound(py));
        }
        let port = Self::find_or_open(py, &event_loop)?;
        let before = recent.lock().replace(port.clone().unbind());
        drop(before);
        Ok(port)
    }

    fn find_or_open<'py>(py: Python<'py>, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let known: Vec<Py<Port>> = PORTS.lock().iter().map(|port| port.clone_ref(py)).collect();
        let mut open = Vec::with_capacity(known.len() + 1);
        for port in known {
            let closed = port.get().event_loop.bind(py).call_method0("is_closed")?.is_truthy()?;
            if port.get().event_loop.is(event_loop) {
                return Ok(port.into_bound(py));
            } else if closed {
                port.get().abandon();
            } else {
                open.push(port);
            }
        }
        let port = Self::open(py, event_loop)?;
        open.push(port.clone().unbind());
        let before = std::mem::replace(&mut *PORTS.lock(), open);
        drop(before);
        Ok(port)
    }

    fn open<'py>(py: Python<'py>, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let (bell, listener) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        let descriptor = listener.as_raw_fd();
        let shared = Shared { queue: BurstQueue::new(), futures: Mutex::new(Slab::new()), bell };
        let port = Self {
            shared: Arc::new(shared),
            event_loop: event_loop.clone().unbind(),
            create_future: event_loop.getattr("create_future")?.unbind(),
            listener,
            touched: Mutex::new(Vec::new()),
            scheduled: AtomicBool::new(false),
            on_tick_end: PyOnceLock::new(),
        };
        let port = Bound::new(py, port)?;
        let _ = port.get().on_tick_end.set(py, port.getattr("end_tick")?.unbind());
        event_loop.call_method1("add_reader", (descriptor, port.getattr("drain")?))?;
        Ok(port)
    }

    /// A new future of this loop, and the number it goes by.
    pub(crate) fn new_future<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, usize)> {
        let future = self.create_future.bind(py).call0()?;
        let slot = self.shared.futures.lock().insert(future.clone().unbind());
        Ok((future, slot))
    }

    /// Sees to it that `who` hears of the end of this tick.
    pub(crate) fn touch(slf: &Bound<'_, Self>, who: &Arc<impl TickEnd + 'static>) -> PyResult<()> {
        let py = slf.py();
        let port = slf.get();
        {
            let mut touched = port.touched.lock();
            let last = touched.last().map(|last| Arc::as_ptr(last).cast::<()>());
            if last != Some(Arc::as_ptr(who).cast::<()>()) {
                touched.push(Arc::clone(who) as Arc<dyn TickEnd>);
            }
        }
        if !port.scheduled.swap(true, Ordering::Relaxed) {
            let callback = port.on_tick_end.get(py);
            port.event_loop.bind(py).call_method1(intern!(py, "call_soon"), (callback,))?;
        }
        Ok(())
    }

    /// Lets go of everything that a closed loop will never ask for.
    fn abandon(&self) {
        let futures = std::mem::take(&mut *self.shared.futures.lock());
        let mut undelivered = Vec::new();
        self.shared.queue.drain(&mut undelivered);
        let touched = std::mem::take(&mut *self.touched.lock());
        drop((futures, undelivered, touched));
    }
}

#[pymethods]
impl Port {
    /// Runs on the loop when its socket is readable: answers every future that has an answer.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let mut bytes = [0_u8; 64];
        // Nothing to read is no error: what woke us was drained by an earlier call.
        let _ = (&self.listener).read(&mut bytes);
        let mut deliveries = Vec::new();
        self.shared.queue.drain(&mut deliveries);
        for delivery in deliveries {
            for (slot, row) in delivery.rows {
                self.shared.answer(py, slot, &delivery.results, row)?;
            }
        }
        Ok(())
    }

    /// Runs on the loop after every callback that was ready in this tick.
    fn end_tick(slf: &Bound<'_, Self>) {
        let port = slf.get();
        port.scheduled.store(false, Ordering::Relaxed);
        let touched = std::mem::take(&mut *port.touched.lock());
        for who in touched {
            who.end_tick(slf.py(), slf);
        }
    }
}

/// Forgets every port in a forked child, where the loops of the parent do not run.
pub(crate) fn forget_after_fork() {
    std::mem::forget(std::mem::take(&mut *PORTS.lock()));
}
