//! The client: requests over pooled connections to one endpoint or a fleet of them.

mod address;
mod connect;
mod http2;
mod io;
mod proxy;
mod race;
mod tls;
mod trust;
mod tunnel;

pub use address::Origin;
pub use connect::{ConnectSettings, Connected, Dialer, Http2Choice};
pub use http2::{Condition, Http2, Http2Body, Http2Settings, SendError};
pub use io::{Idle, Stream};
pub use proxy::Proxies;
pub use tls::{TlsSettings, failure_words};

#[cfg(test)]
mod tests;
