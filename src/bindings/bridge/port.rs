//! Where answers enter an event loop: its futures in a slab, a queue, and one byte on a socket for each burst.
//!
//! A worker pushes a batch of answers and, if nobody has done so since the last drain, writes one byte to a socket that
//! the loop watches. That cannot fail on a closed loop, needs no lock, and wakes asyncio once however many answers came.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule, PyTuple};
use slab::Slab;

use super::calls;
pub(crate) use super::delivery::{Delivery, Reply};
use crate::bindings::waiter::Results;
use crate::flow::BurstQueue;

/// The part of a port that other threads hold.
pub(crate) struct Shared {
    queue: BurstQueue<Delivery>,
    futures: Mutex<Slab<Py<PyAny>>>,
    /// `None` once the loop has closed.
    bell: Mutex<Option<UnixStream>>,
}

impl Shared {
    /// Hands answers over and wakes the loop, unless a wake is already on its way.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        if self.push(delivery) {
            self.ring();
        }
    }

    /// Hands answers over; true where the loop must be woken, by [`ring`](Self::ring), which may wait for the end of a tick.
    pub(crate) fn push(&self, delivery: Delivery) -> bool {
        self.queue.push(delivery)
    }

    /// Wakes the loop.
    pub(crate) fn ring(&self) {
        if let Some(bell) = self.bell.lock().as_mut() {
            // A full socket means that a wake is waiting to be read.
            let _ = bell.write(&[1]);
        }
    }

    /// The number of a future of this loop.
    pub(crate) fn slot_of(&self, future: &Bound<'_, PyAny>) -> Option<usize> {
        self.futures.lock().iter().find(|(_, known)| known.is(future)).map(|(slot, _)| slot)
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
        for (future, (_, row)) in futures.into_iter().zip(rows) {
            if let Some(future) = future {
                settle(future.bind(py), results.get(py, *row)?)?;
            }
        }
        Ok(())
    }

    /// Gives one future of the running loop its answer.
    fn answer_one(&self, py: Python<'_>, slot: usize, reply: Box<dyn Reply>) -> PyResult<()> {
        let future = self.futures.lock().try_remove(slot);
        future.map_or(Ok(()), |future| settle(future.bind(py), reply.into_python(py)?))
    }
}

/// Gives a future its result or its exception, unless its owner has cancelled it meanwhile.
pub(crate) fn settle<'py>(
    future: &Bound<'py, PyAny>,
    answer: Result<Bound<'py, PyAny>, Bound<'py, PyAny>>,
) -> PyResult<()> {
    let asyncio = asyncio(future.py())?;
    let set = match answer {
        Ok(value) => calls::function2(&asyncio.set_result, future, &value),
        Err(exception) => calls::function2(&asyncio.set_exception, future, &exception),
    };
    match set {
        Err(error) if !error.is_instance(future.py(), asyncio.invalid_state.bind(future.py())) => Err(error),
        _ => Ok(()),
    }
}

/// Something that has work to do at the end of a loop's tick.
pub(crate) trait TickEnd: Send + Sync {
    fn end_tick(self: Arc<Self>, py: Python<'_>, port: &Bound<'_, Port>) -> PyResult<()>;
}

/// One event loop's side of the bridge. It is let go of when its loop has closed and the next loop comes.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Port {
    pub(crate) shared: Arc<Shared>,
    new_future: Prepared,
    /// Address of the token of this run of the loop; 0 where there is none. The token itself is kept below, so that no
    /// other can have its address.
    token: AtomicUsize,
    /// What refers to the loop, or from the loop to this port: Python's collector cannot see such a cycle.
    ties: Mutex<Option<Ties>>,
    /// What was submitted to in this tick.
    touched: Mutex<Vec<Arc<dyn TickEnd>>>,
    /// True while the end of this tick is scheduled.
    scheduled: AtomicBool,
}

struct Ties {
    event_loop: Py<PyAny>,
    token: Option<Py<PyAny>>,
    listener: UnixStream,
    /// `call_soon(end_tick)` with a context of its own: no request's context reaches what runs at the end of a tick.
    on_tick_end: Prepared,
    context: Py<PyAny>,
}

/// A call that is made again and again with the same objects.
struct Prepared {
    callable: Py<PyAny>,
    arguments: Py<PyTuple>,
    keywords: Py<PyDict>,
}

impl Prepared {
    fn call<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        calls::prepared(py, &self.callable, &self.arguments, &self.keywords)
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            callable: self.callable.clone_ref(py),
            arguments: self.arguments.clone_ref(py),
            keywords: self.keywords.clone_ref(py),
        }
    }
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
        recent: &Mutex<Option<Py<Port>>>,
    ) -> PyResult<Bound<'py, Self>> {
        let token = calls::running_token(py, intern!(py, "__asyncio_running_event_loop__"));
        if let (Some(token), Some(port)) = (&token, recent.lock().as_ref())
            && port.get().token.load(Ordering::Relaxed) == token.as_ptr() as usize
        {
            return Ok(port.bind(py).clone());
        }
        let Some(event_loop) = running_loop(py)? else {
            return Err(PyRuntimeError::new_err(
                "no event loop runs in this thread: await the call inside a coroutine, or use .call(item)",
            ));
        };
        let port = Self::find_or_open(py, &event_loop)?;
        port.get().remember(token);
        let before = recent.lock().replace(port.clone().unbind());
        drop(before);
        Ok(port)
    }

    fn remember(&self, token: Option<Bound<'_, PyAny>>) {
        let mut ties = self.ties.lock();
        let Some(ties) = ties.as_mut() else { return };
        let address = token.as_ref().map_or(0, |token| token.as_ptr() as usize);
        let before = std::mem::replace(&mut ties.token, token.map(Bound::unbind));
        self.token.store(address, Ordering::Relaxed);
        drop(before);
    }

    fn find_or_open<'py>(py: Python<'py>, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let known: Vec<Py<Port>> = PORTS.lock().iter().map(|port| port.clone_ref(py)).collect();
        if let Some(port) = known.iter().find(|port| port.get().is_of(event_loop)) {
            return Ok(port.bind(py).clone());
        }
        let port = Self::open(py, event_loop)?;
        let mut open = vec![port.clone().unbind()];
        for port in known {
            let closed = match port.get().event_loop(py) {
                Some(event_loop) => event_loop.call_method0("is_closed")?.is_truthy()?,
                None => true,
            };
            if closed {
                port.get().abandon(py);
            } else {
                open.push(port);
            }
        }
        let before = std::mem::replace(&mut *PORTS.lock(), open);
        drop(before);
        Ok(port)
    }

    fn open<'py>(py: Python<'py>, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let (bell, listener) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        let descriptor = listener.as_raw_fd();
        let bell = Mutex::new(Some(bell));
        let shared = Shared { queue: BurstQueue::new(), futures: Mutex::new(Slab::new()), bell };
        let port = Self {
            shared: Arc::new(shared),
            new_future: new_future_of(event_loop)?,
            token: AtomicUsize::new(0),
            ties: Mutex::new(None),
            touched: Mutex::new(Vec::new()),
            scheduled: AtomicBool::new(false),
        };
        let port = Bound::new(py, port)?;
        let context = PyModule::import(py, "contextvars")?.getattr("Context")?.call0()?;
        let keywords = PyDict::new(py);
        keywords.set_item("context", &context)?;
        let on_tick_end = Prepared {
            callable: event_loop.getattr("call_soon")?.unbind(),
            arguments: PyTuple::new(py, [port.getattr("end_tick")?])?.unbind(),
            keywords: keywords.unbind(),
        };
        event_loop.call_method1("add_reader", (descriptor, port.getattr("drain")?))?;
        *port.get().ties.lock() = Some(Ties {
            event_loop: event_loop.clone().unbind(),
            token: None,
            listener,
            on_tick_end,
            context: context.unbind(),
        });
        Ok(port)
    }

    fn is_of(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        self.ties.lock().as_ref().is_some_and(|ties| ties.event_loop.is(event_loop))
    }

    /// The loop, unless it has closed.
    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.ties.lock().as_ref().map(|ties| ties.event_loop.bind(py).clone())
    }

    /// A new future of this loop, and the number it goes by.
    pub(crate) fn new_future<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, usize)> {
        let future = self.new_future.call(py)?;
        let slot = self.shared.futures.lock().insert(future.clone().unbind());
        Ok((future, slot))
    }

    /// Sees to it that `who` hears of the end of this tick.
    pub(crate) fn touch(&self, py: Python<'_>, who: &Arc<impl TickEnd + 'static>) -> PyResult<()> {
        {
            let mut touched = self.touched.lock();
            let last = touched.last().map(|last| Arc::as_ptr(last).cast::<()>());
            if last != Some(Arc::as_ptr(who).cast::<()>()) {
                touched.push(Arc::clone(who) as Arc<dyn TickEnd>);
            }
        }
        if self.scheduled.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let schedule = self.ties.lock().as_ref().map(|ties| ties.on_tick_end.clone_ref(py));
        schedule.map_or(Ok(()), |schedule| schedule.call(py).map(drop))
    }

    /// Calls `callback` on the loop after `wait`.
    pub(crate) fn call_later(
        &self,
        py: Python<'_>,
        wait: Duration,
        callback: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let ties =
            self.ties.lock().as_ref().map(|ties| (ties.event_loop.clone_ref(py), ties.context.clone_ref(py)));
        let Some((event_loop, context)) = ties else { return Ok(()) };
        let keywords = PyDict::new(py);
        keywords.set_item("context", context)?;
        event_loop
            .bind(py)
            .call_method("call_later", (wait.as_secs_f64(), callback), Some(&keywords))
            .map(drop)
    }

    /// Lets go of everything that a closed loop will never ask for, and of the loop itself.
    fn abandon(&self, py: Python<'_>) {
        self.token.store(0, Ordering::Relaxed);
        let ties = self.ties.lock().take();
        let bell = self.shared.bell.lock().take();
        let futures = std::mem::take(&mut *self.shared.futures.lock());
        let mut undelivered = Vec::new();
        self.shared.queue.drain(&mut undelivered);
        let touched = std::mem::take(&mut *self.touched.lock());
        self.new_future.keywords.bind(py).clear();
        drop((ties, bell, futures, undelivered, touched));
    }
}

#[pymethods]
impl Port {
    /// Runs on the loop when its socket is readable: answers every future that has an answer.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(ties) = self.ties.lock().as_mut() {
            let mut bytes = [0_u8; 64];
            // Nothing to read is no error: what woke us was drained by an earlier call.
            let _ = ties.listener.read(&mut bytes);
        }
        let mut deliveries = Vec::new();
        self.shared.queue.drain(&mut deliveries);
        for delivery in deliveries {
            match delivery {
                Delivery::Rows { results, rows } => self.shared.answer(py, &results, &rows)?,
                Delivery::Values(values) => {
                    for (feed, value) in values {
                        feed.call_method1(py, intern!(py, "push"), (value,))?;
                    }
                }
                Delivery::Reply { slot, reply } => self.shared.answer_one(py, slot, reply)?,
            }
        }
        Ok(())
    }

    /// Runs on the loop after every callback that was ready in this tick.
    fn end_tick(slf: &Bound<'_, Self>) -> PyResult<()> {
        let port = slf.get();
        port.scheduled.store(false, Ordering::Relaxed);
        let touched = std::mem::take(&mut *port.touched.lock());
        let mut ended = Ok(());
        for who in touched {
            // One that raises (a request to stop) must not keep the others waiting.
            ended = ended.and(who.end_tick(slf.py(), slf));
        }
        ended
    }
}

/// Forgets every port in a forked child, where the loops of the parent do not run.
pub(crate) fn forget_after_fork() {
    std::mem::forget(std::mem::take(&mut *PORTS.lock()));
}
