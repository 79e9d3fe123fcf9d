//! What carries connections: the system's network, or one that stands in for it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::io::{SimulatedStream, Stream};

/// A connection over a simulated network, once it stands.
pub type SimulatedConnect = Pin<Box<dyn Future<Output = io::Result<Box<dyn SimulatedStream>>> + Send>>;

/// Opens connections over a simulated network.
type Connect = dyn Fn(SocketAddr) -> SimulatedConnect + Send + Sync;

/// The network that connections are opened over. Names are resolved by the system, and Unix sockets are its own, whichever
/// it is.
#[derive(Clone, Default)]
pub struct Network(Option<Arc<Connect>>);

impl Network {
    /// One that stands in for the system's: what is lost in it, and when, is for a test to say.
    pub fn simulated(connect: impl Fn(SocketAddr) -> SimulatedConnect + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(connect)))
    }

    /// Opens a connection. Only here it matters which network it is; what follows asks the stream.
    pub(super) fn connect(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Stream>> + Send + 'static {
        let simulated = self.0.clone();
        async move {
            match simulated {
                None => TcpStream::connect(address).await.map(Stream::Tcp),
                Some(connect) => connect(address).await.map(Stream::Simulated),
            }
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.0.is_some() { "simulated" } else { "system" })
    }
}

impl PartialEq for Network {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl Eq for Network {}
