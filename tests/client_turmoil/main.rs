//! Client and pool over a network that lives in one thread and in its own time: partitions, lost hosts, held messages and
//! delays come by a seed, and the same seed gives the same course.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod faults;
mod network;
mod schedule;
mod server;
mod world;
