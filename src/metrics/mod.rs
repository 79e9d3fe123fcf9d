//! Counters and histograms, and their text for Prometheus.

mod door;
mod merge;
mod model;
mod models;
mod process;
mod security;
mod stream;
#[cfg(test)]
mod tests;
mod window;

pub use door::{DoorMetrics, InFlight};
pub use merge::{Merged, Refused, merge};
pub use model::{BatchCount, LockCounts, ModelMetrics, Outcome, PARTS, Registry};
pub use models::{CacheCounts, LOAD_SECONDS, LoadSeconds, ModelCounts, PredictionCounts};
pub use process::count_collection;
pub use security::SecurityMetrics;
pub use stream::{StreamCount, StreamMetrics};
