//! The HTTP door over real sockets, with a model in Rust behind it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod closing;
mod connections;
mod failures;
mod harness;
mod leaving;
mod load;
mod overload;
mod routes;
mod rows;
