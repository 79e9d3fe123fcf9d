//! The side of a cache that loads: what a thread of Python takes, and what it says of it.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::causes::{self, Raised};
use super::desk::{Desk, Job};
use crate::bindings::bridge::lock;
use crate::bindings::errors::kind_of;
use crate::error::{Error, ErrorKind};
use crate::metrics::LockCounts;
use crate::models::{Cache, Candidate, Residency};

/// What the thread of a cache that loads works with. `penstock._cache_work` is that thread.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct LoadDesk {
    desk: Arc<Desk>,
    cache: Cache,
    locks: LockCounts,
}

impl LoadDesk {
    pub(super) fn new(desk: Arc<Desk>, cache: Cache) -> Self {
        Self { desk, cache, locks: LockCounts::new() }
    }
}

#[pymethods]
impl LoadDesk {
    /// Gives the interpreter lock back until there is something to do; `None` where nothing will come any more.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let (desk, cache) = (&self.desk, &self.cache);
        let job = lock::without(py, &self.locks, || {
            loop {
                match desk.wait()? {
                    Job::Returned(residency, bytes) => cache.returned(residency, bytes),
                    job => return Some(job),
                }
            }
        });
        causes::sweep(py);
        job.map(|job| shown(py, job)).transpose()
    }

    /// True once the cache is closed: what is to be done still is there, and nobody waits for it.
    #[getter]
    fn closed(&self) -> bool {
        self.desk.is_closed()
    }

    /// What a model that is loaded is.
    fn value<'py>(&self, py: Python<'py>, residency: u64) -> Option<Bound<'py, PyAny>> {
        self.desk.value(py, Residency(residency))
    }

    /// Keeps what a loader returned.
    fn keep(&self, residency: u64, value: Py<PyAny>) {
        self.desk.keep(Residency(residency), value);
    }

    /// Gives back what was kept.
    fn take(&self, residency: u64) -> Option<Py<PyAny>> {
        self.desk.take(Residency(residency))
    }

    /// How far a load is; false where nobody wants it any more.
    fn report(&self, residency: u64, phase: &str, fraction: Option<f32>) -> bool {
        self.cache.report(Residency(residency), phase, fraction)
    }

    /// A model is loaded and runs for the first time.
    fn warming(&self, residency: u64) {
        self.cache.warming(Residency(residency));
    }

    /// A model that was kept can be used; it takes so many bytes, where that is known. False where it is not wanted any more.
    fn loaded(&self, residency: u64, size: Option<u64>) -> bool {
        self.desk.measured(Residency(residency), size.unwrap_or(0));
        self.cache.loaded(Residency(residency), size)
    }

    /// A load failed; with `retry` it may succeed the next time.
    fn failed(&self, residency: u64, error: &Bound<'_, PyAny>, retry: bool) {
        let error = failure(error);
        self.desk.forget(Residency(residency));
        self.cache.failed(Residency(residency), error, retry);
    }

    /// Counts a buffer that tells when it is gone.
    fn watch(&self, residency: u64, bytes: u64) {
        self.desk.watch(Residency(residency), bytes);
    }

    /// A buffer is gone.
    fn died(&self, residency: u64, bytes: u64) {
        self.desk.died(Residency(residency), bytes);
    }

    /// Bytes of a model's buffers that are alive.
    fn viewed(&self, residency: u64) -> u64 {
        self.desk.viewed(Residency(residency))
    }

    /// A model was let go of.
    fn unloaded(&self, residency: u64) {
        let viewed = self.desk.leave(Residency(residency));
        self.cache.unloaded(Residency(residency), viewed);
    }

    /// A model that can be used has broken: whoever asks for it has it loaded anew.
    fn dead(&self, residency: u64, error: &Bound<'_, PyAny>) {
        self.cache.dead(Residency(residency), failure(error));
    }

    /// The answer to a question of who leaves first.
    fn ranked(&self, question: u64, scores: Vec<f64>) {
        self.cache.ranked(question, scores);
    }
}

/// What a loader raised, as the core carries it. Kinds that say more than that the load failed are kept.
fn failure(exception: &Bound<'_, PyAny>) -> Error {
    let py = exception.py();
    let text = exception.str().map(|text| text.to_string()).unwrap_or_default();
    let class = exception.get_type().name().map(|name| name.to_string()).unwrap_or_default();
    let kind = match kind_of(exception) {
        Some(kind @ (ErrorKind::UnsafeFormat | ErrorKind::ChecksumMismatch | ErrorKind::PathEscape)) => kind,
        Some(ErrorKind::LoadFailed) => return failed_elsewhere(py, exception, &text),
        _ => ErrorKind::LoadFailed,
    };
    let text = if text.is_empty() { class } else { format!("{class}: {text}") };
    Error::with_source(kind, text.clone(), Raised::keep(exception, text))
}

/// A failure that says already that it is one, such as that of a worker process: what it stands for is of interest.
fn failed_elsewhere(py: Python<'_>, exception: &Bound<'_, PyAny>, text: &str) -> Error {
    let told = text.strip_prefix("model '").and_then(|text| text.split_once("' failed to load: "));
    let text = told.map_or(text, |(_, why)| why).to_owned();
    let cause = exception.getattr(intern!(py, "__cause__")).ok().filter(|cause| !cause.is_none());
    let raised = Raised::keep(cause.as_ref().unwrap_or(exception), text.clone());
    Error::with_source(ErrorKind::LoadFailed, text, raised)
}

/// A job: its kind, its number, and for a load the model, its name, version and attempt, and what it requires; for a
/// question the candidates.
fn shown(py: Python<'_>, job: Job) -> PyResult<Bound<'_, PyTuple>> {
    let none = || py.None();
    match job {
        Job::Load(load) => {
            let requires: Vec<u64> = load.requires.iter().map(|residency| residency.0).collect();
            let (name, version) = (&*load.name, &*load.version);
            ("load", load.residency.0, load.model.0, name, version, load.attempt, requires).into_pyobject(py)
        }
        Job::Rank(question) => {
            let entries = PyList::empty(py);
            for candidate in &question.candidates {
                entries.append(entry(py, candidate)?)?;
            }
            ("rank", question.question, none(), none(), none(), none(), entries).into_pyobject(py)
        }
        Job::Cancel(residency) => {
            ("cancel", residency.0, none(), none(), none(), none(), none()).into_pyobject(py)
        }
        Job::Unload(residency) | Job::Returned(residency, _) => {
            ("unload", residency.0, none(), none(), none(), none(), none()).into_pyobject(py)
        }
    }
}

fn entry<'py>(py: Python<'py>, candidate: &Candidate) -> PyResult<Bound<'py, PyDict>> {
    let entry = PyDict::new(py);
    entry.set_item("name", &*candidate.name)?;
    entry.set_item("version", &*candidate.version)?;
    entry.set_item("bytes", candidate.bytes)?;
    entry.set_item("load_seconds", candidate.load_seconds)?;
    entry.set_item("uses", candidate.uses)?;
    entry.set_item("idle", candidate.idle_seconds)?;
    entry.set_item("age", candidate.age_seconds)?;
    Ok(entry)
}
