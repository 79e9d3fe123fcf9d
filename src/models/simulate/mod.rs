//! A trace of requests shaped like those of people and timers, and what caches make of it, in time that is only counted.

mod chance;
mod predictable;
mod replay;
mod shape;
#[cfg(test)]
mod tests;
mod trace;

pub use predictable::Predictable;
pub use replay::{Baseline, Outcome, bound, replay, replay_baseline};
pub use shape::{Model, Shape};
pub use trace::{Access, Source, Trace};
