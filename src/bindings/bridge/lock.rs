//! The only place where the interpreter lock is given back and taken again, and where that is counted.
//!
//! A worker holds the lock while it runs a batch and gives it back while it waits for the next one: one acquisition a
//! batch. A lint bans every other way to the lock.
#![allow(clippy::disallowed_methods, reason = "this is the one place that the lint points to")]

use std::time::Instant;

use pyo3::prelude::*;

use crate::metrics::LockCounts;

/// Every acquisition of the process.
pub(crate) static ALL: LockCounts = LockCounts::new();

/// Gives the lock back, does `work` without it, and takes it again: one acquisition, counted for `counts` and for all.
pub(crate) fn without<T: Send>(py: Python<'_>, counts: &LockCounts, work: impl Send + FnOnce() -> T) -> T {
    let (value, done) = py.detach(|| (work(), Instant::now()));
    let wait = done.elapsed();
    counts.count(wait);
    ALL.count(wait);
    value
}

/// Takes the lock in the midst of work that [`without`] runs, for a short look, and gives it back; counted for all. `None`
/// where the interpreter ends, and has no lock to give any more.
pub(crate) fn within<T>(look: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let asked = Instant::now();
    Python::try_attach(|py| {
        ALL.count(asked.elapsed());
        look(py)
    })
}
