//! The only place where the interpreter lock is given back and taken again, and where that is counted.
//!
//! A worker holds the lock while it runs a batch and gives it back while it waits for the next one: one acquisition a
//! batch. A lint bans every other way to the lock.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the one place that the lint points to"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How often the lock was taken, and how long that took.
#[derive(Debug, Default)]
pub(crate) struct LockCounts {
    acquisitions: AtomicU64,
    wait_nanos: AtomicU64,
}

impl LockCounts {
    pub(crate) const fn new() -> Self {
        Self {
            acquisitions: AtomicU64::new(0),
            wait_nanos: AtomicU64::new(0),
        }
    }

    /// Times that the lock was taken.
    pub(crate) fn acquisitions(&self) -> u64 {
        self.acquisitions.load(Ordering::Relaxed)
    }

    /// Time spent waiting for the lock.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.wait_nanos.load(Ordering::Relaxed))
    }

    fn count(&self, wait: Duration) {
        self.acquisitions.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.wait_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// Every acquisition of the process.
pub(crate) static ALL: LockCounts = LockCounts::new();

/// Gives the lock back, does `work` without it, and takes it again: one acquisition, counted for `counts` and for all.
pub(crate) fn without<T: Send>(
    py: Python<'_>,
    counts: &LockCounts,
    work: impl Send + FnOnce() -> T,
) -> T {
    let (value, done) = py.detach(|| (work(), Instant::now()));
    let wait = done.elapsed();
    counts.count(wait);
    ALL.count(wait);
    value
}
