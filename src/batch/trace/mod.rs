//! What came to a batcher and how long its function took, on file: one JSON object a line.
//!
//! The first line says what wrote it and under which policy; then come arrivals (`at`, `rows`, `cost`, `timeout`) and
//! batches (`taken`, `batch`, `cost`, `took`), about in the order in which they happened; `dropped` says how many lines
//! were left out because the file could not be written fast enough. Times are seconds.

mod line;
mod read;
mod recorder;

pub use read::{Measured, Trace};
pub(super) use recorder::Event;
pub use recorder::Recorder;
