//! The only place where the interpreter lock is given back and taken again, and where that is counted.
//!
//! A worker holds the lock while it runs a batch and gives it back while it waits for the next one: one acquisition a
//! batch. A lint bans every other way to the lock.
#![allow(clippy::disallowed_methods, reason = "this is the one place that the lint points to")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::metrics::LockCounts;

/// Every acquisition of the process.
pub(crate) static ALL: LockCounts = LockCounts::new();

/// The thread that ends the interpreter, once it does.
static ENDED_BY: OnceLock<ThreadId> = OnceLock::new();
/// Threads that look [`within`] work at this moment.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

struct Looking;

impl Looking {
    fn new() -> Self {
        LOOKING.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        LOOKING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lets no other thread look [`within`] its work from here on, and waits, without the lock, for those that do: a thread that
/// is in Python below a frame of Rust when the interpreter ends could not be ended.
pub(crate) fn end_looks(limit: Duration) {
    let end = Instant::now() + limit;
    let _ = ENDED_BY.set(thread::current().id());
    while LOOKING.load(Ordering::SeqCst) > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
}

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
    let _looking = Looking::new();
    if ENDED_BY.get().is_some_and(|ender| *ender != thread::current().id()) {
        return None;
    }
    Python::try_attach(|py| {
        ALL.count(asked.elapsed());
        look(py)
    })
}
