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
use pyo3::types::{PyDict, PyModule, PyTuple};
use slab::Slab;

use super::calls;
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
            let done = asyncio(py).and_then(|asyncio| calls::function1(&asyncio.done, future.bind(py)));
            done.and_then(|done| done.is_truthy()).unwrap_or(true)
        })
    }

    /// Drops a future that nobody will answer.
    pub(crate) fn forget(&self, slot: usize) {
        let future = self.futures.lock().try_remove(slot);
        drop(future);
    }

    /// Gives futures of the running loop their answers.
    pub(crate) fn answer(&self, py: Python<'_>, results: &Results, rows: &[(usize, usize)]) -> PyResult<()> {
        let futures: Vec<Option<Py<PyAny>>> = {
            let mut futures = self.futures.lock();
            rows.iter().map(|(slot, _)| futures.try_remove(*slot)).collect()
        };
        let asyncio = asyncio(py)?;
        for (future, (_, row)) in futures.into_iter().zip(rows) {
            let Some(future) = future else { continue };
            let set = match results.get(py, *row)? {
                Ok(value) => calls::function2(&asyncio.set_result, future.bind(py), &value),
                Err(exception) => calls::function2(&asyncio.set_exception, future.bind(py), &exception),
            };
            match set {
                Err(error) if !error.is_instance(py, asyncio.invalid_state.bind(py)) => {
                    return Err(error);
                }
                // Done already: its owner cancelled it while the model ran.
                _ => {}
            }
        }
        Ok(())
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
    new_future: Prepared,
    listener: UnixStream,
    /// What was submitted to in this tick.
    touched: Mutex<Vec<Arc<dyn TickEnd>>>,
    /// True while the end of this tick is scheduled.
    scheduled: AtomicBool,
    /// `call_soon(end_tick, context=...)`, put together once: no request's context reaches what runs at the end of a tick.
    on_tick_end: PyOnceLock<Prepared>,
    pub(crate) context: Py<PyAny>,
}

/// How futures of a loop are made: as `loop.create_future()` of asyncio and uvloop does, without its Python frame.
fn new_future_of(event_loop: &Bound<'_, PyAny>) -> PyResult<Prepared> {
    let py = event_loop.py();
    let keywords = PyDict::new(py);
    keywords.set_item("loop", event_loop)?;
    Ok(Prepared {
        callable: PyModule::import(py, "asyncio")?.getattr("Future")?.unbind(),
        arguments: PyTuple::empty(py).unbind(),
        keywords: keywords.unbind(),
    })
}

/// A call that is made again and again with the same objects.
struct Prepared {
    callable: Py<PyAny>,
    arguments: Py<PyTuple>,
    keywords: Py<PyDict>,
}

/// The port that a batcher used last, and the token of the run of its loop.
pub(crate) struct Recent {
    token: Option<Py<PyAny>>,
    port: Py<Port>,
}

/// What is used of asyncio. The methods are those of `asyncio.Future` itself: every future here is one.
struct Asyncio {
    running_loop: Py<PyAny>,
    invalid_state: Py<PyAny>,
    done: Py<PyAny>,
    set_result: Py<PyAny>,
    set_exception: Py<PyAny>,
}

static ASYNCIO: PyOnceLock<Asyncio> = PyOnceLock::new();
static PORTS: Mutex<Vec<Py<Port>>> = Mutex::new(Vec::new());

fn asyncio(py: Python<'_>) -> PyResult<&Asyncio> {
    ASYNCIO.get_or_try_init(py, || {
        let module = PyModule::import(py, "asyncio")?;
        let future = module.getattr("Future")?;
        Ok(Asyncio {
            done: future.getattr("done")?.unbind(),
            set_result: future.getattr("set_result")?.unbind(),
            set_exception: future.getattr("set_exception")?.unbind(),
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
    pub(crate) fn current<'py>(
        py: Python<'py>,
        recent: &Mutex<Option<Recent>>,
    ) -> PyResult<Bound<'py, Self>> {
        let token = calls::running_token(py, intern!(py, "__asyncio_running_event_loop__"));
        if let (Some(token), Some(recent)) = (&token, recent.lock().as_ref())
            && recent.token.as_ref().is_some_and(|known| known.is(token))
        {
            return Ok(recent.port.bind(py).clone());
        }
        let Some(event_loop) = running_loop(py)? else {
            return Err(PyRuntimeError::new_err(
                "no event loop runs in this thread: await the call inside a coroutine, or use .call(item)",
            ));
        };
        let known = recent.lock().as_ref().map(|recent| recent.port.clone_ref(py));
        let port = match known {
            Some(port) if port.get().event_loop.is(&event_loop) => port.into_bound(py),
            _ => Self::find_or_open(py, &event_loop)?,
        };
        let found = Recent { token: token.map(Bound::unbind), port: port.clone().unbind() };
        let before = recent.lock().replace(found);
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
            new_future: new_future_of(event_loop)?,
            listener,
            touched: Mutex::new(Vec::new()),
            scheduled: AtomicBool::new(false),
            on_tick_end: PyOnceLock::new(),
            context: PyModule::import(py, "contextvars")?.getattr("Context")?.call0()?.unbind(),
        };
        let port = Bound::new(py, port)?;
        let keywords = PyDict::new(py);
        keywords.set_item("context", &port.get().context)?;
        let prepared = Prepared {
            callable: event_loop.getattr("call_soon")?.unbind(),
            arguments: PyTuple::new(py, [port.getattr("end_tick")?])?.unbind(),
            keywords: keywords.unbind(),
        };
        let _ = port.get().on_tick_end.set(py, prepared);
        event_loop.call_method1("add_reader", (descriptor, port.getattr("drain")?))?;
        Ok(port)
    }

    /// A new future of this loop, and the number it goes by.
    pub(crate) fn new_future<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, usize)> {
        let Prepared { callable, arguments, keywords } = &self.new_future;
        let future = calls::prepared(py, callable, arguments, keywords)?;
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
            if let Some(Prepared { callable, arguments, keywords }) = port.on_tick_end.get(py) {
                calls::prepared(py, callable, arguments, keywords)?;
            }
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
            self.shared.answer(py, &delivery.results, &delivery.rows)?;
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
