//! Something that goes on by itself and ends once: futures and threads can wait for its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::records;
use crate::bindings::bridge::lock;
use crate::bindings::bridge::port::{Delivery, Port, Reply, Shared};
use crate::bindings::errors::to_python;
use crate::bindings::waiter::SIGNAL_CHECK;
use crate::error::Result as CoreResult;
use crate::flow::Monitor;
use crate::metrics::LockCounts;
use crate::models::Preload;

/// The end of something, once it has come, and the futures that wait for it.
#[derive(Default)]
pub(super) struct End {
    state: Monitor<Told>,
}

#[derive(Default)]
struct Told {
    answer: Option<CoreResult<()>>,
    waiting: Vec<(Arc<Shared>, usize)>,
}

impl End {
    /// Says how it ended. Only the first time counts.
    pub(super) fn tell(&self, answer: &CoreResult<()>) {
        let waiting = {
            let mut told = self.state.lock();
            if told.answer.is_some() {
                return;
            }
            told.answer = Some(answer.clone());
            std::mem::take(&mut told.waiting)
        };
        self.state.wake_all();
        for (port, slot) in waiting {
            port.deliver(Delivery::Reply { slot, reply: Box::new(Ended(answer.clone())) });
        }
    }

    fn wait(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut told = self.state.lock();
        while told.answer.is_none() && Instant::now() < end {
            told = self.state.wait(told, Some(end));
        }
    }

    fn answer(&self) -> Option<CoreResult<()>> {
        self.state.lock().answer.clone()
    }
}

/// An end on its way to a future.
struct Ended(CoreResult<()>);

impl Reply for Ended {
    fn into_python(self: Box<Self>, py: Python<'_>) -> PyResult<Result<Bound<'_, PyAny>, Bound<'_, PyAny>>> {
        Ok(match self.0 {
            Ok(()) => Ok(py.None().into_bound(py)),
            Err(error) => Err(to_python(py, &error).into_value(py).into_bound(py).into_any()),
        })
    }
}

/// Something that goes on by itself: `penstock.models.Operation` and `penstock.models.LoadHandle` document it.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeOperation {
    end: Arc<End>,
    /// The loads that it consists of, where it does.
    preload: Option<Preload>,
    recent: Mutex<Option<Py<Port>>>,
}

impl NativeOperation {
    /// Something that `begin` starts, which is given what to say at its end.
    pub(super) fn start(begin: impl FnOnce(Box<dyn FnOnce(CoreResult<()>) + Send>)) -> Self {
        let end = Arc::new(End::default());
        let told = Arc::clone(&end);
        begin(Box::new(move |answer| told.tell(&answer)));
        Self { end, preload: None, recent: Mutex::new(None) }
    }

    /// Another that ends when this does.
    pub(super) fn ending(end: &Arc<End>) -> Self {
        Self { end: Arc::clone(end), preload: None, recent: Mutex::new(None) }
    }

    /// What it ends by.
    pub(super) fn end(&self) -> Arc<End> {
        Arc::clone(&self.end)
    }

    /// Loads that have begun.
    pub(super) fn of(preload: Preload) -> Self {
        let end = Arc::new(End::default());
        let told = Arc::clone(&end);
        preload.on_done(move |answer| told.tell(&answer));
        Self { end, preload: Some(preload), recent: Mutex::new(None) }
    }
}

#[pymethods]
impl NativeOperation {
    /// A future of the running loop for the end.
    fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let port = Port::current(py, &self.recent)?;
        let (future, slot) = port.get().new_future(py)?;
        let shared = &port.get().shared;
        let answer = {
            let mut told = self.end.state.lock();
            if told.answer.is_none() {
                told.waiting.push((Arc::clone(shared), slot));
            }
            told.answer.clone()
        };
        if let Some(answer) = answer {
            shared.deliver(Delivery::Reply { slot, reply: Box::new(Ended(answer)) });
        }
        Ok(future)
    }

    /// Blocks until the end, at most so many seconds; false where it has not come then. Raises what went wrong.
    fn wait(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<bool> {
        let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            if let Some(answer) = self.end.answer() {
                return answer.map(|()| true).map_err(|error| to_python(py, &error));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            py.check_signals()?;
            let limit = left.map_or(SIGNAL_CHECK, |left| left.min(SIGNAL_CHECK));
            lock::without(py, &LockCounts::new(), || self.end.wait(limit));
        }
    }

    /// True once it has ended, well or not.
    #[getter]
    fn done(&self) -> bool {
        self.end.answer().is_some()
    }

    /// Gives up the loads that have not begun and that nobody else wants.
    fn cancel(&self) {
        if let Some(preload) = &self.preload {
            preload.cancel();
        }
    }

    /// How far each load is: one dictionary for each.
    fn progress<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for progress in self.preload.iter().flat_map(Preload::progress) {
            let row: Bound<'py, PyDict> = records::progress(py, &progress)?;
            list.append(row)?;
        }
        Ok(list)
    }
}
