//! One client's way to the server: what it sends over it, what comes back, and how it gets lost.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::http1::Socket;
use super::http2::{Line, Stream};
use super::plan::Protocol;
use super::prepared::Prepared;
use crate::error::{ErrorKind, Result};
use crate::wire::grpc::Code;

/// An answer that came whole.
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) length: u64,
    /// Empty unless it was asked for.
    pub(super) body: Vec<u8>,
    /// Where the body starts with JSON and binary tensors follow: how long the JSON is.
    pub(super) json_length: Option<usize>,
    /// True where it says when to come again.
    pub(super) retry_after: bool,
    /// How a call of gRPC ended; none over HTTP.
    pub(super) code: Option<Code>,
    /// When the first of its bytes was there, or its head over HTTP/2.
    pub(super) began: Instant,
    /// When the last of them was.
    pub(super) ended: Instant,
}

impl Whole {
    /// True where the server did what it was asked for.
    pub(super) fn is_success(&self) -> bool {
        self.code.map_or(self.status.is_success(), |code| code == Code::Ok)
    }

    /// True where the server has no room for the request now, and says when to come again.
    pub(super) fn is_refusal(&self) -> bool {
        let too_many = match self.code {
            Some(code) => matches!(code, Code::ResourceExhausted | Code::Unavailable),
            None => matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE),
        };
        too_many && self.retry_after
    }
}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection was gone before it took the request, which can be sent over another one.
    Untouched,
    /// The connection failed with the request on it, after that many bytes of the answer's body.
    Failed(ErrorKind, u64),
}

/// Where links lead to, and over which connection.
#[derive(Clone)]
pub(super) enum Way {
    Alone,
    /// The clients of one connection share it.
    Together(Arc<Line>),
}

impl Way {
    /// One for each client, in their order.
    pub(super) fn of(protocol: Protocol, clients: usize) -> Vec<Self> {
        let Some(streams) = protocol.streams() else {
            return vec![Self::Alone; clients];
        };
        let mut ways = Vec::with_capacity(clients);
        while ways.len() < clients {
            let line = Arc::new(Line::default());
            let sharing = streams.max(1).min(clients - ways.len());
            ways.extend((0..sharing).map(|_| Self::Together(Arc::clone(&line))));
        }
        ways
    }
}

/// A client's connection, or its share of one.
pub(super) enum Link {
    Alone(Socket),
    Together(Stream),
}

impl Link {
    /// Opens a connection, or joins the one that others have opened: then the second value is false.
    pub(super) async fn open(way: &Way, prepared: &Prepared) -> Result<(Self, bool)> {
        match way {
            Way::Alone => Ok((Self::Alone(Socket::open(prepared).await?), true)),
            Way::Together(line) => {
                let (stream, opened) = Stream::open(line, prepared).await?;
                Ok((Self::Together(stream), opened))
            }
        }
    }

    /// True where another request can be sent over it, as far as is known.
    pub(super) fn is_usable(&self) -> bool {
        match self {
            Self::Alone(socket) => socket.is_usable(),
            Self::Together(stream) => stream.is_usable(),
        }
    }

    /// Sends the request with the body of that index and reads its answer.
    ///
    /// After a loss, or when the future is dropped half way, the link is of no more use.
    pub(super) async fn exchange(
        &mut self,
        prepared: &Prepared,
        body_index: usize,
    ) -> std::result::Result<Whole, Lost> {
        match self {
            Self::Alone(socket) => socket.exchange(prepared, body_index).await,
            Self::Together(stream) => stream.exchange(prepared, body_index).await,
        }
    }
}
