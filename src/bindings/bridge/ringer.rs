//! Answers of one tick of the runtime, delivered at its end: each loop is woken once.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::port::{Delivery, Reply, Shared};
use crate::pipeline::Ticker;

/// The loops that are to be woken at the end of the runtime's tick.
pub(crate) struct Ringer {
    ports: Mutex<Vec<Arc<Shared>>>,
    ticker: Arc<Ticker>,
}

impl Ringer {
    /// One whose [`run`](Self::run) is yet to be spawned.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { ports: Mutex::default(), ticker: Ticker::new() })
    }

    /// Answers a future of a loop, which is woken at the end of the runtime's tick.
    pub(crate) fn reply(&self, port: Arc<Shared>, slot: usize, reply: Box<dyn Reply>) {
        if port.push(Delivery::Reply { slot, reply }) {
            self.ports.lock().push(port);
            self.ticker.touch();
        }
    }

    /// Wakes the loops that have something to take.
    pub(crate) fn ring(&self) {
        let ports = std::mem::take(&mut *self.ports.lock());
        for port in ports {
            port.ring();
        }
    }

    /// Rings at the end of every tick that something was delivered in; runs until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let ticker = Arc::clone(&self.ticker);
        ticker.run(move || self.ring()).await;
    }
}

/// There is something to take.
pub(crate) struct Ready;

impl Reply for Ready {
    fn into_python(self: Box<Self>, py: Python<'_>) -> PyResult<Result<Bound<'_, PyAny>, Bound<'_, PyAny>>> {
        Ok(Ok(py.None().into_bound(py)))
    }
}
