//! The client: requests over pooled connections to one endpoint or a fleet of them.

mod address;
mod connect;
mod io;
mod proxy;
mod race;
mod tls;
mod trust;
mod tunnel;

pub use address::Origin;
pub use connect::{ConnectSettings, Connected, Dialer, Http2Choice};
pub use io::{Idle, Stream};
pub use proxy::Proxies;
pub use tls::{TlsSettings, failure_words};

#[cfg(test)]
mod tests;
