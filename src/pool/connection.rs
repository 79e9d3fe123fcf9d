//! What a pool must know of the connections that it keeps, and of whoever opens them.

use std::fmt::{self, Display, Formatter};
use std::future::Future;
use std::sync::Arc;

use crate::error::Result;

/// What may still be done with an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It takes requests.
    Usable,
    /// It finishes what it carries and takes no more: a GOAWAY came, or it is marked `connection: close`.
    Draining,
    /// The other side is gone.
    Closed,
}

/// An open connection. To drop it closes it.
pub trait Connection: Send + Sync + 'static {
    /// Requests that it carries at a time now: 1 for HTTP/1.1; for HTTP/2 the lesser of the peer's limit and the setting.
    /// It may change; who changes it tells [`Pool::look_again`](super::Pool::look_again).
    fn capacity(&self) -> usize;

    /// What may be done with it. It looks without waiting, and must not call
    /// the pool: it is asked under the pool's lock.
    fn condition(&self) -> Condition;
}

/// Opens connections to one endpoint, and looks after them.
pub trait Connector: Send + Sync + 'static {
    /// What it opens.
    type Connection: Connection;

    /// Opens a connection. It keeps its own time-out; the pool gives it up only when it is closed.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// An active health check over an idle connection, which is lent to nobody meanwhile.
    fn check(&self, connection: &Self::Connection) -> impl Future<Output = Result<()>> + Send;

    /// What the capacity of a connection will be, as far as that is known before one is open. `None` where only the first
    /// can tell (TLS with ALPN): it is then opened alone, and those after it as its capacity asks.
    fn likely_capacity(&self) -> Option<usize> {
        Some(1)
    }
}

/// Where in a program a connection was taken, for whoever looks for one that is held too long. Cheap to copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// Nobody said.
    #[default]
    Unknown,
    /// A place known when the program was compiled.
    Fixed(&'static str),
    /// Any other.
    Named(Arc<str>),
}

impl From<&'static str> for Place {
    fn from(name: &'static str) -> Self {
        Self::Fixed(name)
    }
}

impl From<Arc<str>> for Place {
    fn from(name: Arc<str>) -> Self {
        Self::Named(name)
    }
}

impl Display for Place {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => out.write_str("unknown"),
            Self::Fixed(name) => out.write_str(name),
            Self::Named(name) => out.write_str(name),
        }
    }
}
