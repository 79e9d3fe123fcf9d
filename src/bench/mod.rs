//! A load generator for HTTP and gRPC servers on this machine: what `penstock bench` and the benchmarks run on.
//!
//! A [`Plan`] says what is sent where and how fast; [`run`] carries it out and hands back a [`Report`].
//! Two ways to load a server answer two questions:
//!
//! - **closed loop** ([`Mode::Closed`]): every client sends its next request when the last one is answered.
//!   It finds the highest throughput. Its latencies flatter a slow server, which slows the clients down too.
//! - **open loop** ([`Mode::Open`]): requests fall due by a schedule that does not know how the server fares,
//!   and latency counts from the moment a request fell due. It finds the latency that users see at a rate.
//!
//! One task per connection owns the socket and drives it itself, and one write and one read carry a request and its
//! answer: what the load generator costs the machine is little beside what the server does. HTTP/2 is hyper's, and
//! calls of gRPC go over it.

mod alarm;
mod arrivals;
mod check;
mod client;
mod feed;
mod http1;
mod http2;
mod ledger;
mod link;
mod message;
mod plan;
mod prepared;
mod report;
mod run;
mod target;
#[cfg(test)]
mod tests;

pub use ledger::{Snapshot, Watch};
pub use plan::{Mode, Order, Plan, Protocol, Spacing};
pub use report::{Answer, Latencies, Report};
pub use run::{run, run_watched};
pub use target::Target;
