//! What happens to Penstock when its process forks or its interpreter ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pyo3::prelude::*;

use super::{lock, port};
use crate::flow::events;
use crate::metrics::LockCounts;
use crate::runtime;

/// Counts forks: what was started in another generation has no threads in this one.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// The generation that this process is in; never 0.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Runs in a forked child, before anything else does.
#[pyfunction]
pub(crate) fn reset_after_fork() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    port::forget_after_fork();
    runtime::forget_after_fork();
    events::forget_after_fork();
}

/// Stops the runtime, waiting at most `limit` seconds. Runs when the interpreter ends.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>, limit: f64) -> bool {
    let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::ZERO);
    lock::without(py, &LockCounts::new(), || {
        lock::end_looks(limit / 2);
        runtime::shutdown(limit)
    })
}

/// Times that Penstock's own threads took the interpreter lock in this process.
#[pyfunction]
pub(crate) fn lock_acquisitions() -> u64 {
    lock::ALL.acquisitions()
}
