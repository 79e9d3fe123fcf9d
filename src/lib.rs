//! Penstock: the data plane between requests and a model.
//!
//! Arrows point down only; rooms on one floor do not import one another (`docs/architecture.md`). Without the feature
//! `python` this is a plain Rust crate: `bindings` alone names Python.

pub mod batch;
pub mod bench;
pub mod client;
pub mod error;
pub mod flow;
pub mod formats;
pub mod gateway;
pub mod metrics;
pub mod models;
pub mod pipeline;
pub mod pool;
pub mod process;
pub mod runtime;
pub mod serve;
pub mod stream;
pub mod tensor;
pub mod wire;

#[cfg(feature = "python")]
mod bindings;
