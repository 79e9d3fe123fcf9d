//! What is handed to an event loop: answers, and which of its futures they are for.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::bindings::waiter::Results;

/// Answers for futures of one loop.
pub(crate) enum Delivery {
    /// Rows of a batch.
    Rows {
        results: Arc<Results>,
        /// Which row answers which future.
        rows: Vec<(usize, usize)>,
    },
    /// Values of one step for those who want each at once: what takes it, and the value.
    Values(Vec<(Py<PyAny>, Py<PyAny>)>),
    /// An answer of its own for one future.
    Reply { slot: usize, reply: Box<dyn Reply> },
}

/// An answer that becomes a Python object only where it is wanted, in the thread of its loop.
pub(crate) trait Reply: Send {
    /// A value, or an exception to raise.
    fn into_python(self: Box<Self>, py: Python<'_>) -> PyResult<Result<Bound<'_, PyAny>, Bound<'_, PyAny>>>;
}
