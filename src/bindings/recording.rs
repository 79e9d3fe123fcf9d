//! Traces, for Python: writing them, and finding the policy that they ask for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::bridge::lifecycle::generation;
use super::bridge::lock;
use super::errors::to_python;
use crate::batch::trace::{Recorder, Trace};
use crate::batch::tune::{self, Outcome, Tuning};
use crate::batch::{BatchPolicy, Dispatch};
use crate::metrics::LockCounts;

/// The native half of `penstock.batching.Recording`.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeRecording {
    recorder: Arc<Recorder>,
    born: u64,
}

#[pymethods]
impl NativeRecording {
    /// Lines written, and lines dropped because the file was too slow.
    fn counts(&self) -> (u64, u64) {
        self.recorder.counts()
    }

    /// Writes what there is and ends the file. Safe to call twice.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        // The thread that writes is the parent's, after a fork.
        if self.born != generation() {
            return Ok(());
        }
        let closed = lock::without(py, &LockCounts::new(), || self.recorder.close());
        closed.map_err(|error| to_python(py, &error))
    }
}

impl NativeRecording {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, born: generation() }
    }
}

/// The policy that a trace asks for, as `penstock tune` prints it; times in seconds. `workers` is 0 for those of the trace.
#[pyfunction]
#[pyo3(signature = (path, target, workers))]
pub(crate) fn tune_trace<'py>(
    py: Python<'py>,
    path: PathBuf,
    target: Option<f64>,
    workers: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let target = target.and_then(|target| Duration::try_from_secs_f64(target).ok());
    let found = lock::without(py, &LockCounts::new(), || {
        let trace = Trace::read(&path)?;
        let workers = if workers == 0 { trace.workers } else { workers };
        tune::tune(&trace, target, workers).map(|tuning| (trace, workers, tuning))
    });
    let (trace, workers, tuning) = found.map_err(|error| to_python(py, &error))?;
    shown(py, &trace, workers, &tuning)
}

fn shown<'py>(
    py: Python<'py>,
    trace: &Trace,
    workers: usize,
    found: &Tuning,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let lasted = trace.arrivals.last().map_or(Duration::ZERO, |last| last.at);
    dict.set_item("requests", trace.requests())?;
    dict.set_item("replayed", found.replayed)?;
    dict.set_item("seconds", lasted.as_secs_f64())?;
    dict.set_item("batches", trace.batches.len())?;
    dict.set_item("dropped", trace.dropped)?;
    dict.set_item("workers", workers)?;
    dict.set_item("tried", found.tried)?;
    dict.set_item("recorded", outcome(py, &found.recorded)?)?;
    dict.set_item("best", outcome(py, &found.best)?)?;
    Ok(dict)
}

fn outcome<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("policy", policy(py, &outcome.policy)?)?;
    dict.set_item("in_time", outcome.in_time)?;
    dict.set_item("throughput", outcome.throughput)?;
    dict.set_item("p50", outcome.p50.as_secs_f64())?;
    dict.set_item("p99", outcome.p99.as_secs_f64())?;
    dict.set_item("mean_batch_size", outcome.mean_size)?;
    dict.set_item("busy", outcome.busy)?;
    Ok(dict)
}

/// The settings of a policy that tuning decides on, by the names that they have in Python.
fn policy<'py>(py: Python<'py>, policy: &BatchPolicy) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    match policy.adaptive {
        None => dict.set_item("max_batch_size", policy.max_size)?,
        Some(adaptive) => {
            let target = adaptive.target.map(|target| target.as_secs_f64());
            dict.set_item("max_batch_size", (adaptive.low, policy.max_size, target))?;
        }
    }
    if policy.min_size > 1 {
        dict.set_item("min_batch_size", policy.min_size)?;
    }
    if policy.dispatch == Dispatch::Window || policy.min_size > 1 {
        dict.set_item("max_wait", policy.max_wait.as_secs_f64())?;
    }
    dict.set_item("dispatch", if policy.dispatch == Dispatch::Tick { "tick" } else { "window" })?;
    if !policy.preferred.is_empty() {
        dict.set_item("preferred_batch_sizes", policy.preferred.clone())?;
    }
    Ok(dict)
}
