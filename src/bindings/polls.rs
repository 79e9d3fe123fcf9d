//! Looks for models that are new, for a thread of Python that takes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::bridge::lock;
use crate::metrics::LockCounts;
use crate::serve::{Polls, Skipped};

/// What the thread of a server that looks for new models works with. It does not keep the server alive.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct PollDesk {
    polls: Arc<Polls>,
    locks: LockCounts,
}

impl PollDesk {
    pub(crate) fn new(polls: &Arc<Polls>) -> Self {
        Self { polls: Arc::clone(polls), locks: LockCounts::new() }
    }
}

#[pymethods]
impl PollDesk {
    /// Waits until a call wants a look at what is new, or so many seconds have passed. True where it is worth a moment's wait
    /// for what is being written; nothing once no look will be wanted any more.
    fn next(&self, py: Python<'_>, seconds: Option<f64>) -> Option<bool> {
        let until = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let until = until.and_then(|wait| Instant::now().checked_add(wait));
        lock::without(py, &self.locks, || self.polls.wait(until))
    }

    /// Says that the look was taken; and name, version and reason of what was found that cannot be served.
    fn polled(&self, skipped: Vec<(String, String, String)>) {
        let skipped =
            skipped.into_iter().map(|(name, version, reason)| Skipped { name, version, reason }).collect();
        self.polls.taken(skipped);
    }
}
