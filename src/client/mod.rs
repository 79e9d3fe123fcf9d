//! The client: requests over pooled connections to one endpoint or a fleet of them.
//!
//! | file | its story |
//! |---|---|
//! | `address` `proxy` `tls` `trust` `tunnel` `race` `connect` `network` `io` | from an origin to a connected stream of bytes |
//! | `request` `pieces` `response` | what is asked, whole or made while it is sent, and what is answered |
//! | `http1` `http2` `grpc` | a request over one connection |
//! | `connection` | what the pool pools, and how its health is checked |
//! | `fleet` `retry` `attempt` `attempts` `answer` | which endpoint, over which connection, how often, and the body |
//! | `decode` | content codings taken off |
//! | `inflow` `waiting` | a body that is read while it comes: forms, windows, time-outs, what has arrived |
//! | `owner` | the client itself |
//! | `metrics` | what its pools count, as OpenMetrics |

mod address;
mod answer;
mod attempt;
mod attempts;
mod connect;
mod connection;
mod decode;
mod fleet;
mod grpc;
mod http1;
mod http2;
mod inflow;
mod io;
mod metrics;
mod network;
mod owner;
mod pieces;
mod proxy;
mod race;
mod request;
mod response;
mod retry;
mod timer;
mod tls;
mod trust;
mod tunnel;
mod waiting;

pub use address::{Origin, Protocol};
pub use connect::{ConnectSettings, Connected, Dialer, Http2Choice};
pub use decode::ACCEPTED;
pub use grpc::{Duplex, DuplexReceiver, DuplexSender};
pub use http2::{Http2, Http2Body, Http2Settings, SendError};
pub use inflow::{
    Arrivals, DRAINED_FOR, Form, StreamCount, StreamCounts, StreamFigures, StreamMemory, StreamSettings,
    StreamTicket, Taken,
};
pub use io::{Idle, SimulatedStream, Stream};
pub use metrics::{metrics_text, pool_collector};
pub use network::{Network, SimulatedConnect};
pub use owner::{Body, Client, ClientSettings, EndpointStats, Route};
pub use pieces::Pieces;
pub use proxy::Proxies;
pub use request::{GrpcCall, Request, RequestFields, Target, Timeouts};
pub use response::{GrpcEnd, Response};
pub use retry::Retry;
pub use tls::{TlsSettings, failure_words};
pub use waiting::Waiting;

#[cfg(test)]
mod tests;
