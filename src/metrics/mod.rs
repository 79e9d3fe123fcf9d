//! Counters and histograms, and their text for Prometheus.

mod merge;
mod model;
#[cfg(test)]
mod tests;

pub use merge::{Merged, Refused, merge};
pub use model::{LockCounts, ModelMetrics, Outcome, Registry};
