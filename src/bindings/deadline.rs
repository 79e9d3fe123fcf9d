//! How much time a batch has left: what `penstock.remaining()` looks at.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::flow::{Clock, Moment, TimeSource};

/// The moment at which the first request of a batch must be answered.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct BatchDeadline {
    clock: TimeSource,
    at: Moment,
}

impl BatchDeadline {
    /// The deadline of a batch, where it has one.
    pub(crate) fn of(clock: &TimeSource, at: Option<Moment>) -> Option<Self> {
        Some(Self { clock: clock.clone(), at: at? })
    }
}

#[pymethods]
impl BatchDeadline {
    /// Seconds until then; 0 once it has passed.
    fn remaining(&self) -> f64 {
        self.at.since(self.clock.now()).as_secs_f64()
    }
}

/// A function that runs with a deadline, or without, until this is dropped with [`leave`](Running::leave).
pub(crate) struct Running<'py> {
    variable: Bound<'py, PyAny>,
    token: Bound<'py, PyAny>,
}

impl<'py> Running<'py> {
    /// Says in the context of this thread what deadline the batch has that runs from here on.
    pub(crate) fn enter(py: Python<'py>, deadline: Option<BatchDeadline>) -> PyResult<Self> {
        static VARIABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let variable = VARIABLE.import(py, "penstock._deadline", "DEADLINE")?.clone();
        let token = variable.call_method1("set", (deadline,))?;
        Ok(Self { variable, token })
    }

    /// Says what was said before.
    pub(crate) fn leave(self) -> PyResult<()> {
        self.variable.call_method1("reset", (self.token,)).map(drop)
    }
}
