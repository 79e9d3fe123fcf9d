//! Whose batch a model runs: what `penstock.current_trace()` and the model's own log records say.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::flow::TraceContext;
use crate::metrics;
use crate::pipeline::BatchAccount;

/// The trace of a batch, and what its requests are called.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct BatchScope {
    trace: Option<TraceContext>,
    ids: Vec<Arc<str>>,
}

impl BatchScope {
    /// That of a batch, where there is anything to say.
    pub(crate) fn of(batch: &BatchAccount) -> Option<Self> {
        let trace = batch.trace();
        (trace.is_some() || !batch.ids.is_empty()).then(|| Self { trace, ids: batch.ids.clone() })
    }

    /// As another process was told of it.
    pub(crate) fn told(trace: Option<&(String, Option<String>)>, ids: Vec<String>) -> Option<Self> {
        let trace = trace.and_then(|(parent, state)| TraceContext::parse(parent, state.as_deref()));
        let ids: Vec<Arc<str>> = ids.into_iter().map(Arc::from).collect();
        (trace.is_some() || !ids.is_empty()).then_some(Self { trace, ids })
    }
}

#[pymethods]
impl BatchScope {
    /// What names the batch to others, as headers.
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        if let Some(trace) = &self.trace {
            headers.set_item("traceparent", trace.header())?;
            if let Some(state) = &trace.state {
                headers.set_item("tracestate", &**state)?;
            }
        }
        Ok(headers)
    }

    #[getter]
    fn trace_id(&self) -> Option<String> {
        self.trace.as_ref().map(TraceContext::trace_text)
    }

    #[getter]
    fn span_id(&self) -> Option<String> {
        self.trace.as_ref().map(TraceContext::span_text)
    }

    /// What the senders of its requests call them, as far as they do.
    #[getter]
    fn request_ids(&self) -> Vec<&str> {
        self.ids.iter().map(|id| &**id).collect()
    }
}

/// Counts a run of Python's garbage collector.
#[pyfunction]
pub(crate) fn count_collection(generation: u32, seconds: f64) {
    metrics::count_collection(generation, Duration::try_from_secs_f64(seconds).unwrap_or_default());
}
