//! Connections of the client to real listeners: in the clear, over Unix sockets, over TLS and through proxies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod certificates;
mod harness;
mod http2;
mod http2_ends;
mod plain;
mod proxies;
mod tls;
