//! The client's connections, carried by turmoil.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;

use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use penstock::client::{Idle, Network, SimulatedConnect, SimulatedStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

pub(crate) fn network() -> Network {
    Network::simulated(|address: SocketAddr| -> SimulatedConnect {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Box::new(Carried(Mutex::new(stream))) as Box<dyn SimulatedStream>)
        })
    })
}

/// Behind a lock, for to look at what lies ready needs the stream as one's own.
#[derive(Debug)]
struct Carried(Mutex<TcpStream>);

impl Carried {
    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.0.lock()
    }
}

impl SimulatedStream for Carried {
    fn idle(&self) -> Idle {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        match self.stream().poll_peek(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Pending => Idle::Quiet,
            Poll::Ready(Ok(1..)) => Idle::Readable,
            Poll::Ready(Ok(0) | Err(_)) => Idle::Closed,
        }
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(context, buffer)
    }
}

impl AsyncWrite for Carried {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(context, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(context)
    }
}
