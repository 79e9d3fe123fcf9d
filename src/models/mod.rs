//! Models that come and go: which is loaded, when, in which memory, and who may use it.
//!
//! The state is plain and its decisions are functions of it and of the time that they are given. One owner, [`Cache`],
//! holds it under one lock and carries out what it decides once the lock is released; what loading means is a
//! [`Loader`]'s business.

mod cache;
mod claim;
pub mod failures;
pub mod graph;
mod keeper;
mod loader;
mod memory;
pub mod policy;
pub mod predict;
mod preload;
pub mod progress;
pub mod queue;
mod recall;
pub mod simulate;
mod spec;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod words;

pub use cache::Cache;
pub use claim::Claim;
pub use loader::{Candidate, Load, Loader, Ranking};
pub use policy::PolicyKind;
pub use preload::Preload;
pub use progress::Progress;
pub use spec::{Asked, CacheSettings, LoadSpec};
pub use stats::{
    CacheBytes, CacheStats, Evictions, Health, IndexRow, LastEviction, LoadSeconds, ModelStats, Preloads,
    WhatIf,
};
pub use words::{Cause, LoadState, ModelId, Reason, Residency};
