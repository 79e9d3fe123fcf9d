//! Models that come and go: which is loaded, when, in which memory, and who may use it.
//!
//! The state is plain and its decisions are functions of it and of the time that they are given. One owner holds it and
//! carries out what it decides; what loading means is a [`Loader`]'s business.

pub mod failures;
pub mod graph;
pub mod policy;
pub mod predict;
pub mod progress;
pub mod queue;
pub mod recall;
pub mod simulate;
mod words;

pub use words::{LoadState, ModelId, Residency};
