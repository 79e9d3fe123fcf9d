//! The HTTP door over real sockets, with a model in Rust behind it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod binary;
mod bodies;
mod closing;
mod connections;
mod dashboard;
mod deadlines;
mod failures;
mod halves;
mod harness;
mod http2;
mod http2_floods;
mod inside;
mod interleaving;
mod keys;
mod leaving;
mod limits;
mod load;
mod origins;
mod overload;
mod packing;
mod repository;
mod routes;
mod rows;
mod streaming;
mod streams_leaving;
mod terms;
mod timeouts;
mod timing;
mod tls;
mod tls_ends;
mod whole_streams;
