//! Counters and histograms, and their text for Prometheus.

mod door;
mod model;

pub use door::{DoorMetrics, InFlight};
pub use model::{LockCounts, ModelMetrics, Outcome, Registry};
