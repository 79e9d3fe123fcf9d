//! A model that is asked for: at once where it is loaded, else by a future or a thread that waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;

use super::desk::Desk;
use super::lease::{Hold, Lease};
use crate::bindings::bridge::port::{Delivery, Port, Reply, Shared};
use crate::bindings::errors::{raised, to_python};
use crate::bindings::waiter::Parked;
use crate::error::{ErrorKind, Result as CoreResult};
use crate::flow::Priority;
use crate::models::{Asked, Cache, ModelId, Residency};

/// What a cache lends to whoever asks it for models.
pub(super) struct Counter {
    pub(super) cache: Cache,
    pub(super) desk: Arc<Desk>,
    pub(super) recent: Mutex<Option<Py<Port>>>,
}

/// A model that was asked for. `async with`, `with`, `await` and `wait()` get it, once.
#[pyclass(frozen, module = "penstock.models")]
pub(crate) struct Acquiring {
    counter: Arc<Counter>,
    model: ModelId,
    priority: Priority,
    timeout: Option<Duration>,
    session: Option<Box<str>>,
    hold: Arc<Hold>,
}

impl Acquiring {
    pub(super) fn new(
        counter: Arc<Counter>,
        model: ModelId,
        priority: Priority,
        timeout: Option<Duration>,
        session: Option<Box<str>>,
    ) -> Self {
        Self { counter, model, priority, timeout, session, hold: Arc::default() }
    }

    fn asked(&self) -> Asked<'_> {
        let until = self.timeout.map(|timeout| self.counter.cache.now() + timeout);
        Asked { priority: self.priority, until, session: self.session.as_deref() }
    }

    /// The model where it is loaded.
    fn hit<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.hold.is_used() {
            let text = "a model that was asked for is taken once: call acquire() again";
            return Err(raised(py, ErrorKind::Config, text));
        }
        let Some(claim) = self.counter.cache.try_acquire(self.model, &self.asked()) else { return Ok(None) };
        let residency = claim.residency();
        self.hold.put(claim);
        residency.map(|residency| value_of(py, &self.counter.desk, residency)).transpose()
    }

    /// A future for the model, or for a lease on it.
    fn miss<'py>(&self, py: Python<'py>, form: Form) -> PyResult<Met<'py>> {
        let port = Port::current(py, &self.counter.recent)?;
        let (future, slot) = port.get().new_future(py)?;
        let place = Arc::new(Place::new(&port.get().shared, slot));
        let desk = Arc::clone(&self.counter.desk);
        let hold = Arc::downgrade(&self.hold);
        let told = {
            let place = Arc::clone(&place);
            move |answer| place.tell(Box::new(Arrived { desk, hold, answer, form }))
        };
        let claim = self.counter.cache.acquire(self.model, &self.asked(), Box::new(told));
        let there = claim.at_once().then(|| claim.residency()).flatten();
        self.hold.put(claim);
        if let Some(residency) = there {
            place.leave();
            return value_of(py, &self.counter.desk, residency).map(Met::Now);
        }
        let leaving = Bound::new(py, Leaving { hold: Arc::clone(&self.hold), place })?;
        future.call_method1("add_done_callback", (leaving,))?;
        Ok(Met::Later(future))
    }

    /// Blocks until the model is there.
    fn block<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(value) = self.hit(py)? {
            return Ok(value);
        }
        let parked = Arc::new(Parked::default());
        let told = {
            let parked = Arc::clone(&parked);
            move |answer| parked.answer(answer)
        };
        let claim = self.counter.cache.acquire(self.model, &self.asked(), Box::new(told));
        let there = claim.at_once().then(|| claim.residency()).flatten();
        self.hold.put(claim);
        if let Some(residency) = there {
            return value_of(py, &self.counter.desk, residency);
        }
        let waited =
            parked.wait_for(py, None).and_then(|answer: Option<CoreResult<Residency>>| match answer {
                Some(Ok(residency)) => value_of(py, &self.counter.desk, residency),
                Some(Err(error)) => Err(to_python(py, &error)),
                None => Err(raised(py, ErrorKind::Internal, "a wait without an end has ended")),
            });
        waited.inspect_err(|_| self.hold.release())
    }

    fn lease<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Lease::new(py, &self.counter.desk, &self.hold, value.unbind()).map(Bound::into_any)
    }
}

#[pymethods]
impl Acquiring {
    fn __aenter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let met = match self.hit(py)? {
            Some(value) => Met::Now(value),
            None => self.miss(py, Form::Value)?,
        };
        met.awaitable(py)
    }

    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        _kind: &Bound<'py, PyAny>,
        _error: &Bound<'py, PyAny>,
        _at: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.hold.release();
        Met::Now(py.None().into_bound(py)).awaitable(py)
    }

    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.block(py)
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _at: &Bound<'_, PyAny>) {
        self.hold.release();
    }

    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let met = match self.hit(py)? {
            Some(value) => Met::Now(value),
            None => self.miss(py, Form::Lease)?,
        };
        match met {
            Met::Now(value) => {
                let lease = self.lease(py, value)?;
                Met::Now(lease).awaitable(py)
            }
            Met::Later(future) => future.call_method0("__await__"),
        }
    }

    /// Blocks until the model is there, and gives a lease on it.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value = self.block(py)?;
        self.lease(py, value)
    }
}

/// The value of a residency that is leased.
fn value_of<'py>(py: Python<'py>, desk: &Desk, residency: Residency) -> PyResult<Bound<'py, PyAny>> {
    let missing = || raised(py, ErrorKind::Internal, "a model that is leased has no value");
    desk.value(py, residency).ok_or_else(missing)
}

/// A model that is there, or that will be.
enum Met<'py> {
    Now(Bound<'py, PyAny>),
    Later(Bound<'py, PyAny>),
}

impl<'py> Met<'py> {
    fn awaitable(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Now(value) => {
                let there = There(Mutex::new(Some(value.unbind())));
                Bound::new(py, there).map(Bound::into_any)
            }
            Self::Later(future) => Ok(future),
        }
    }
}

/// An awaitable for what is there already: awaiting it suspends nobody.
#[pyclass(frozen, module = "penstock._native")]
struct There(Mutex<Option<Py<PyAny>>>);

#[pymethods]
impl There {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self) -> PyResult<Py<PyAny>> {
        let value = self.0.lock().take();
        // In a tuple: a value that is one itself must not be taken for the arguments.
        Err(value.map_or_else(|| PyStopIteration::new_err(()), |value| PyStopIteration::new_err((value,))))
    }
}

/// What the future of a miss is for.
#[derive(Clone, Copy)]
enum Form {
    /// The model itself: whoever waits has the hold.
    Value,
    Lease,
}

/// A model on its way to a future. It keeps nothing: where nobody waits any more, the lease must end.
struct Arrived {
    desk: Arc<Desk>,
    hold: Weak<Hold>,
    answer: CoreResult<Residency>,
    form: Form,
}

impl Reply for Arrived {
    fn into_python(self: Box<Self>, py: Python<'_>) -> PyResult<Result<Bound<'_, PyAny>, Bound<'_, PyAny>>> {
        let Some(hold) = self.hold.upgrade() else { return Ok(Ok(py.None().into_bound(py))) };
        let answer = match &self.answer {
            Err(error) => Err(to_python(py, error)),
            Ok(residency) => value_of(py, &self.desk, *residency).and_then(|value| match self.form {
                Form::Value => Ok(value),
                Form::Lease => Lease::new(py, &self.desk, &hold, value.unbind()).map(Bound::into_any),
            }),
        };
        let answer = answer.inspect_err(|_| hold.release());
        Ok(answer.map_err(|error| error.into_value(py).into_bound(py).into_any()))
    }
}

/// The number of a future, which is used once: for its answer, or to let go of it.
struct Place {
    port: Arc<Shared>,
    slot: usize,
    used: AtomicBool,
}

impl Place {
    fn new(port: &Arc<Shared>, slot: usize) -> Self {
        Self { port: Arc::clone(port), slot, used: AtomicBool::new(false) }
    }

    fn tell(&self, reply: Box<dyn Reply>) {
        if !self.used.swap(true, Ordering::AcqRel) {
            self.port.deliver(Delivery::Reply { slot: self.slot, reply });
        }
    }

    fn leave(&self) {
        if !self.used.swap(true, Ordering::AcqRel) {
            self.port.forget(self.slot);
        }
    }
}

/// Called when the future of a miss is done: one that was cancelled gives up waiting. It also keeps the hold for as long as
/// there is a future.
#[pyclass(frozen, module = "penstock._native")]
struct Leaving {
    hold: Arc<Hold>,
    place: Arc<Place>,
}

#[pymethods]
impl Leaving {
    fn __call__(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        if future.call_method0("cancelled")?.is_truthy()? {
            self.place.leave();
            self.hold.release();
        }
        Ok(())
    }
}
