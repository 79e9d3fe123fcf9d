//! Calls of gRPC against real servers that do what they should, and all that they should not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod answers;
mod asking;
mod calls;
mod ends;
mod fleet;
mod health;
mod limits;
mod server;
mod streams;
