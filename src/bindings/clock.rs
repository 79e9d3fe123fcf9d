//! A clock that a test moves, for Python.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use crate::flow::{Clock, Moment, TimeSource, VirtualClock};

/// The native half of `penstock.VirtualClock`, which documents it.
#[pyclass(frozen, subclass, module = "penstock._native")]
pub(crate) struct NativeClock(Arc<VirtualClock>);

#[pymethods]
impl NativeClock {
    #[new]
    fn new() -> Self {
        Self(Arc::new(VirtualClock::new()))
    }

    /// Seconds since the clock was made, as far as it was moved.
    fn now(&self) -> f64 {
        self.0.now().since(Moment::default()).as_secs_f64()
    }

    /// Moves the clock forward and wakes the threads that wait for it.
    #[pyo3(name = "_move")]
    fn advance(&self, seconds: f64) {
        self.0.advance(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    }
}

impl NativeClock {
    /// What a batcher lives by that was given this clock.
    pub(crate) fn source(&self) -> TimeSource {
        TimeSource::Virtual(Arc::clone(&self.0))
    }
}
