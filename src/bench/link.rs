//! One connection, driven by the task that uses it.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::{Error, ErrorKind, Result};

/// A request as the load generator sends it.
pub(super) type Sent = Request<Full<Bytes>>;

/// An answer that came whole.
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) length: u64,
    /// Empty unless it was to be kept.
    pub(super) body: Vec<u8>,
}

/// Why no answer came.
pub(super) enum Lost {
    /// The connection was gone before it took the request, which can be sent over another one.
    Untouched(Box<Sent>),
    /// The connection failed with the request on it, after that many bytes of the answer.
    Failed(ErrorKind, u64),
}

/// One HTTP/1.1 connection.
///
/// It makes progress inside [`drive`](Self::drive) and [`exchange`](Self::exchange) alone. A task of its own costs
/// a request no less, and somebody would have to end it; as it is, the socket closes with the link.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    wire: Wire,
}

impl Link {
    /// Opens a connection; dropping the future closes it again.
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let refused = |source| {
            let message = format!("no connection to {address} could be opened");
            Error::with_source(ErrorKind::ConnectFailed, message, source)
        };
        let stream = TcpStream::connect(address).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|source| {
            let message = format!("the connection to {address} could not be set up");
            Error::with_source(ErrorKind::ConnectFailed, message, source)
        })?;
        Ok(Self { sender, wire: Wire(Some(Box::new(connection))) })
    }

    /// True where the server has closed the connection, as far as is known.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits for `work` while looking after the connection, so that its end is noticed in time.
    pub(super) async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        self.wire.drive(work).await
    }

    /// Sends a request and reads its answer, keeping a copy of its body if `keep` is set.
    ///
    /// After a loss, or when the future is dropped half way, the link is of no more use.
    pub(super) async fn exchange(&mut self, request: Sent, keep: bool) -> std::result::Result<Whole, Lost> {
        self.wire.drive(ask(&mut self.sender, request, keep)).await
    }
}

/// The socket's side of a connection, gone once the connection has ended; boxed, since links are moved about.
struct Wire(Option<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>);

impl Wire {
    async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Twice, since what the socket brought may let the work go on to something for the socket to take.
            for _ in 0..2 {
                if let Poll::Ready(output) = work.as_mut().poll(context) {
                    return Poll::Ready(output);
                }
                self.advance(context);
            }
            Poll::Pending
        })
        .await
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        let Some(connection) = &mut self.0 else {
            return;
        };
        // An error reaches the request that is on the connection; without one, its end is all that matters.
        if Pin::new(connection).poll(context).is_ready() {
            self.0 = None;
        }
    }
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Sent,
    keep: bool,
) -> std::result::Result<Whole, Lost> {
    if sender.ready().await.is_err() {
        return Err(Lost::Untouched(Box::new(request)));
    }
    match sender.try_send_request(request).await {
        Ok(response) => collect(response, keep).await,
        Err(mut failure) => match failure.take_message() {
            Some(request) => Err(Lost::Untouched(Box::new(request))),
            None => Err(Lost::Failed(kind_of(&failure.into_error()), 0)),
        },
    }
}

async fn collect(response: Response<Incoming>, keep: bool) -> std::result::Result<Whole, Lost> {
    let mut whole = Whole { status: response.status(), length: 0, body: Vec::new() };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Lost::Failed(kind_of(&error), whole.length))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        whole.length += data.len() as u64;
        if keep {
            // A copy, since a slice of the read buffer would keep all of that buffer in memory.
            whole.body.extend_from_slice(data);
        }
    }
    Ok(whole)
}

fn kind_of(error: &hyper::Error) -> ErrorKind {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        _ if error.is_parse() => ErrorKind::ProtocolError,
        _ if error.is_canceled() || error.is_closed() => ErrorKind::WriteFailed,
        Some(io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero) => ErrorKind::WriteFailed,
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => ErrorKind::ProtocolError,
        _ => ErrorKind::ReadFailed,
    }
}
