//! A trace of requests shaped like those of people and timers, and the real cache under it on a clock that only events move:
//! weeks in seconds, the same each time.

mod bound;
mod chance;
mod drive;
mod future;
mod outcome;
mod predictable;
mod shape;
#[cfg(test)]
mod tests;
mod trace;

pub use bound::{Bound, bound};
pub(super) use drive::{Ask, Loaded, World};
pub use drive::{Setup, drive};
pub use outcome::Outcome;
pub use predictable::Predictable;
pub use shape::{Model, Shape};
pub use trace::{Access, Source, Trace};
