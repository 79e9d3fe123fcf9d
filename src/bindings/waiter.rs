//! Who waits for an answer, and what an answer is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::bridge::lock;
use super::bridge::port::Shared;
use super::errors;
use super::flight::Flight;
use crate::error::ErrorKind;
use crate::flow::{Monitor, TraceContext};
use crate::metrics::LockCounts;

/// How often a thread that blocks lets Python look for Ctrl-C.
pub(crate) const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// The place of a caller in a trace, where it is in one.
pub(crate) type Trace = Option<Arc<TraceContext>>;

/// `traceparent` and `tracestate` of a caller, as `penstock._scope` says them.
pub(crate) type Place = (String, Option<String>);

/// The place in a trace that a caller names; none where it cannot be read.
pub(crate) fn trace_of(told: Option<Place>) -> Trace {
    let (parent, state) = told?;
    TraceContext::parse(&parent, state.as_deref()).map(Arc::new)
}

/// A future of an event loop, a thread that blocks, or several of them that share an answer.
pub(crate) enum Waiter {
    Future {
        port: Arc<Shared>,
        slot: usize,
        /// What takes the values of every step, where they are wanted at once.
        feed: Option<Py<PyAny>>,
        trace: Trace,
    },
    Thread(Arc<Parked>, Trace),
    Shared(Arc<Flight>),
}

impl Waiter {
    /// The trace that it is in; of those who share an answer, that of the first.
    pub(crate) fn trace(&self) -> Trace {
        match self {
            Self::Future { trace, .. } | Self::Thread(_, trace) => trace.clone(),
            Self::Shared(flight) => flight.trace(),
        }
    }

    /// Lets go of whoever will not be answered.
    pub(crate) fn forget(self) {
        match self {
            Self::Future { port, slot, .. } => port.forget(slot),
            Self::Thread(..) => {}
            Self::Shared(flight) => flight.arrive().into_iter().for_each(Self::forget),
        }
    }
}

/// A failure that every waiter of a batch gets an exception of its own for.
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    pub(crate) cause: Option<Py<PyAny>>,
}

impl Failure {
    /// What `error` is to the requests that it failed: Penstock's own words stand, anything else is the model's fault.
    pub(crate) fn of(py: Python<'_>, error: PyErr) -> Self {
        let value = error.into_value(py).into_bound(py).into_any();
        let text = value.str().map(|text| text.to_string()).unwrap_or_default();
        match errors::kind_of(&value) {
            Some(kind @ (ErrorKind::Output | ErrorKind::Internal)) => {
                Self { kind, message: text, cause: None }
            }
            Some(ErrorKind::Item) => {
                Self { kind: ErrorKind::Item, message: text, cause: Some(value.unbind()) }
            }
            // Nobody raised it: what Penstock says of a function whose process has died, or was ended.
            Some(kind @ (ErrorKind::Model | ErrorKind::Closed))
                if value.getattr("__traceback__").is_ok_and(|at| at.is_none()) =>
            {
                let cause = value.getattr("__cause__").ok().filter(|cause| !cause.is_none());
                Self { kind, message: text, cause: cause.map(Bound::unbind) }
            }
            _ => {
                let class = value.get_type().name().map(|name| name.to_string()).unwrap_or_default();
                let message = format!("the function raised {class}: {text}");
                Self { kind: ErrorKind::Model, message, cause: Some(value.unbind()) }
            }
        }
    }

    fn exception<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let cause = self.cause.as_ref().map(|cause| cause.bind(py));
        errors::exception(py, self.kind, &self.message, cause)
    }
}

/// What one request gets.
pub(crate) enum Outcome {
    Value(Py<PyAny>),
    /// An exception that the function made for this very request.
    Refused(Py<PyAny>),
    Failed(Arc<Failure>),
}

/// The answers of a batch, or of a part of one.
pub(crate) enum Results {
    /// One value for each row.
    Rows(Py<PyList>),
    /// One outcome for each row.
    Each(Vec<Outcome>),
}

impl Results {
    /// The answer to row `row`: a value, or an exception to raise.
    pub(crate) fn get<'py>(
        &self,
        py: Python<'py>,
        row: usize,
    ) -> PyResult<Result<Bound<'py, PyAny>, Bound<'py, PyAny>>> {
        Ok(match self {
            Self::Rows(rows) => Ok(rows.bind(py).get_item(row)?),
            Self::Each(outcomes) => match outcomes.get(row) {
                Some(Outcome::Value(value)) => Ok(value.bind(py).clone()),
                Some(Outcome::Refused(exception)) => Err(exception.bind(py).clone()),
                Some(Outcome::Failed(failure)) => Err(failure.exception(py)?),
                None => Err(errors::exception(py, ErrorKind::Internal, "a row has no outcome", None)?),
            },
        })
    }
}

/// A thread that blocks until its answer is there: for a batch, its results and the row.
pub(crate) struct Parked<T = (Arc<Results>, usize)> {
    answer: Monitor<Option<T>>,
    left: AtomicBool,
}

impl<T> Default for Parked<T> {
    fn default() -> Self {
        Self { answer: Monitor::new(None), left: AtomicBool::new(false) }
    }
}

impl<T> Parked<T> {
    /// Hands the answer over.
    pub(crate) fn answer(&self, answer: T) {
        *self.answer.lock() = Some(answer);
        self.answer.wake_all();
    }

    /// Blocks for at most `limit`, or until the answer is there.
    pub(crate) fn wait(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut answer = self.answer.lock();
        while answer.is_none() && Instant::now() < end {
            answer = self.answer.wait(answer, Some(end));
        }
    }

    /// Blocks until the answer is there or `until` has come, with the lock given back, and lets Python look for signals.
    pub(crate) fn wait_for(&self, py: Python<'_>, until: Option<Instant>) -> PyResult<Option<T>>
    where
        T: Send,
    {
        loop {
            if let Some(answer) = self.take() {
                return Ok(Some(answer));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            py.check_signals()?;
            let limit = left.map_or(SIGNAL_CHECK, |left| left.min(SIGNAL_CHECK));
            lock::without(py, &LockCounts::new(), || self.wait(limit));
        }
    }

    /// Whether the answer is there.
    pub(crate) fn is_answered(&self) -> bool {
        self.answer.lock().is_some()
    }

    /// The answer, once.
    pub(crate) fn take(&self) -> Option<T> {
        self.answer.lock().take()
    }

    /// Says that nobody waits any more.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// True where nobody waits any more.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}
