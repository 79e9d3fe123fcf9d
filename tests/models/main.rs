//! The cache of models from outside: a loader that a test drives, a clock that it turns, and what must hold whatever happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod failures;
mod found;
mod makespan;
mod random;
mod regressions;
mod stress;
mod world;
