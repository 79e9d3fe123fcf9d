//! Counters and histograms, and their text for Prometheus.

mod model;

pub use model::{LockCounts, ModelMetrics, Outcome, Registry};
