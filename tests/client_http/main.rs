//! The client against real servers that do what they should, and all that they should not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod asking;
mod bodies;
mod broken;
mod closing;
mod coded;
mod fleet;
mod framing;
mod health;
mod leaving;
mod load;
mod lost;
mod retries;
mod routes;
mod server;
mod stale;
mod timeouts;
