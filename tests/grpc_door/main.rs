//! The gRPC door over real sockets, with a model in Rust behind it and a bare HTTP/2 client before it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod bad_input;
mod calls;
mod closing;
mod deadlines;
mod framing;
mod harness;
mod health;
mod overload;
mod ports;
mod reflection;
mod repository;
mod steps;
mod streams;
mod terms;
mod tls;
