//! What follows a request's head, and a response's.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::super::pieces::Pieces;
use super::signals::OpenStream;
use crate::error::Result;

/// The most of a body that is handed to the connection at a time, so that large ones take turns.
pub(in crate::client) const PIECE: usize = 64 * 1024;

/// A request's body on its way.
pub(in crate::client) struct Upload {
    stream: SendStream<Bytes>,
    rest: Bytes,
    /// What is to follow; none once all of it has been taken.
    pieces: Option<Pieces>,
}

impl Upload {
    /// Sends a short body at once: h2 keeps what the server does not take yet. An empty one is none.
    pub(in crate::client) fn new(mut stream: SendStream<Bytes>, mut body: Bytes) -> Self {
        if !body.is_empty() && body.len() <= PIECE {
            // A stream that is over already shows it by its response.
            let _ = stream.send_data(std::mem::take(&mut body), true);
        }
        Self { stream, rest: body, pieces: None }
    }

    /// Sends a body that is made meanwhile.
    pub(super) fn of_pieces(stream: SendStream<Bytes>, pieces: Pieces) -> Self {
        Self { stream, rest: Bytes::new(), pieces: Some(pieces) }
    }

    /// Sends what the server takes now, and wakes when it takes more. A server that wants no more of it says so by its
    /// response or by a reset, which the response shows.
    pub(in crate::client) fn advance(&mut self, context: &mut Context<'_>) {
        while !self.rest.is_empty() || self.poll_piece(context) {
            self.stream.reserve_capacity(self.rest.len().min(PIECE));
            let room = match self.stream.capacity() {
                0 => match self.stream.poll_capacity(context) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(_))) => self.stream.capacity(),
                    Poll::Ready(_) => return self.give_up(),
                },
                room => room,
            };
            let piece = self.rest.split_to(room.min(self.rest.len()));
            let is_last = self.rest.is_empty() && self.pieces.is_none();
            if !piece.is_empty() && self.stream.send_data(piece, is_last).is_err() {
                self.give_up();
            }
        }
    }

    fn give_up(&mut self) {
        self.rest.clear();
        self.pieces = None;
    }

    /// Takes the next piece; false where there is none yet, or no more, which the server is told.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> bool {
        let Some(pieces) = &self.pieces else { return false };
        match pieces.poll_next(context) {
            Poll::Pending => return false,
            Poll::Ready(Some(piece)) => self.rest = piece,
            Poll::Ready(None) => {
                self.pieces = None;
                // A stream that is over already shows it by its response.
                let _ = self.stream.send_data(Bytes::new(), true);
            }
        }
        !self.rest.is_empty()
    }
}

/// The body of a response. To drop it before its end resets the stream, and the connection goes on.
pub struct Http2Body {
    stream: RecvStream,
    upload: Upload,
    opened: OpenStream,
}

impl Http2Body {
    pub(super) fn new(stream: RecvStream, upload: Upload, opened: OpenStream) -> Self {
        Self { stream, upload, opened }
    }

    /// The next piece of it; none at its end. Its bytes are taken: the server may send as many more. To drop the future
    /// loses nothing.
    ///
    /// # Errors
    /// [`ErrorKind::ReadFailed`](crate::error::ErrorKind::ReadFailed) where the server resets the stream or the connection
    /// fails, [`ErrorKind::ProtocolError`](crate::error::ErrorKind::ProtocolError) where the server breaks the protocol,
    /// a body that is shorter or longer than its `Content-Length` included.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Http2Body::next`], without waiting.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        self.upload.advance(context);
        self.stream.poll_data(context).map(|data| {
            let taken = data?.and_then(|data| {
                self.stream.flow_control().release_capacity(data.len())?;
                Ok(data)
            });
            Some(taken.map_err(|error| self.opened.failure("the response broke off", error)))
        })
    }

    /// Whether nothing follows any more.
    pub fn is_ended(&self) -> bool {
        self.stream.is_end_stream()
    }
}
