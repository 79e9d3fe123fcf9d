//! A connected stream of bytes, whatever carries it.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A connection, open for HTTP.
#[derive(Debug)]
pub enum Stream {
    /// Over the network, in the clear.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Encrypted, over a network connection or over the tunnel of an encrypted proxy.
    Tls(Box<TlsStream<Stream>>),
    /// Over a network that stands in for the system's.
    Simulated(Box<dyn SimulatedStream>),
}

/// A connection over a network that stands in for the system's.
pub trait SimulatedStream: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin + 'static {
    /// As [`Stream::idle`].
    fn idle(&self) -> Idle;
}

/// What a connection that carries no request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Nothing came: it can carry a request.
    Quiet,
    /// Something lies ready. Over HTTP/1.1 in the clear that is an answer to no request; over TLS it may be a session
    /// ticket, which comes unasked, and [`Stream::settle`] tells.
    Readable,
    /// The other side closed it, or it failed.
    Closed,
}

impl Stream {
    /// Looks at a connection that should be idle, without waiting, and takes no bytes.
    ///
    /// It asks the system, not the runtime: an end that has arrived may not have been polled yet, and a request that is
    /// sent on such a connection might not be allowed to go again.
    pub fn idle(&self) -> Idle {
        match self {
            Self::Tcp(stream) => idle(peek(stream), stream.ready(Interest::READABLE)),
            Self::Unix(stream) => idle(peek(stream), stream.ready(Interest::READABLE)),
            Self::Tls(stream) => match stream.get_ref() {
                // It holds what it has decrypted, or has been told the end.
                (_, session) if !session.wants_read() => Idle::Readable,
                (below, _) => below.idle(),
            },
            Self::Simulated(stream) => stream.idle(),
        }
    }

    /// As [`Stream::idle`], but takes in what TLS sends on its own behalf, so that [`Idle::Readable`] always means an
    /// answer to no request. Those bytes are lost: such a connection is to be closed.
    pub fn settle(&mut self) -> Idle {
        match (self.idle(), &mut *self) {
            (Idle::Readable, Self::Tls(stream)) => {
                let mut byte = [0];
                let mut buffer = ReadBuf::new(&mut byte);
                match Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Idle::Readable,
                    // What is still there the runtime has not seen yet: tickets, unless the end came with it.
                    Poll::Pending if !self.has_ended() => Idle::Quiet,
                    Poll::Ready(_) | Poll::Pending => Idle::Closed,
                }
            }
            (seen, _) => seen,
        }
    }

    /// True where the other side has said that nothing more will come, whatever lies unread in front of that.
    fn has_ended(&self) -> bool {
        match self.ground() {
            Self::Tcp(stream) => ended(stream),
            Self::Unix(stream) => ended(stream),
            Self::Tls(_) | Self::Simulated(_) => false,
        }
    }

    /// The network connection or Unix socket at the bottom.
    fn ground(&self) -> &Self {
        match self {
            Self::Tls(stream) => stream.get_ref().0.ground(),
            other => other,
        }
    }

    /// The other side's network address; none over a Unix socket.
    pub fn peer_address(&self) -> Option<std::net::SocketAddr> {
        match self.ground() {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            _ => None,
        }
    }
}

fn idle(seen: io::Result<usize>, ready: impl Future<Output = io::Result<tokio::io::Ready>>) -> Idle {
    match seen {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Idle::Quiet,
        Err(_) | Ok(0) => Idle::Closed,
        // The end may lie behind what is ready: then there will be nothing more to ask for.
        Ok(_) => match pin!(ready).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) if !ready.is_read_closed() => Idle::Readable,
            Poll::Pending => Idle::Readable,
            Poll::Ready(_) => Idle::Closed,
        },
    }
}

#[cfg(target_os = "linux")]
fn ended(socket: &impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut looked = [PollFd::new(socket, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked, Some(&at_once)).is_ok_and(|found| found > 0)
}

/// Other systems do not say before what lies in front of it was read.
#[cfg(not(target_os = "linux"))]
fn ended(_: &impl std::os::fd::AsFd) -> bool {
    false
}

/// Looks at the first byte that lies ready and leaves it there; 0 is the end.
fn peek<'socket>(socket: &'socket impl std::os::fd::AsFd) -> io::Result<usize> {
    SockRef::<'socket>::from(socket).peek(&mut [MaybeUninit::uninit(); 1])
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Simulated(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Simulated(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Simulated(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Simulated(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Simulated(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Simulated(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
