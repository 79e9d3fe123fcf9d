//! A stream whose trailers matter, too: what gRPC needs.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};

use super::signals::OpenStream;
use super::{Http2, SendError, refused};

/// What comes over a stream: head, pieces, trailers, in this order.
pub(in crate::client) struct Inbound {
    response: ResponseFuture,
    body: Option<RecvStream>,
    opened: OpenStream,
    /// Bytes that had left when the stream was opened.
    written_before: u64,
}

impl Http2 {
    /// Opens a stream, and leaves it open for what is to be sent. Its head is absolute and holds no field that HTTP/2 does
    /// not allow. To drop both directions resets it.
    ///
    /// # Errors
    /// A [`SendError`]: nothing was sent.
    pub(in crate::client) fn open(
        &self,
        head: Request<()>,
    ) -> std::result::Result<(Inbound, SendStream<Bytes>), SendError> {
        let signals = &self.shared.signals;
        let written_before = signals.written();
        let opened = signals.open_stream();
        let mut sender = self.shared.sender.clone();
        // A sender of its own never has to wait: beyond what the server allows, the stream itself does.
        let (response, stream) = sender.send_request(head, false).map_err(|error| signals.not_sent(error))?;
        Ok((Inbound { response, body: None, opened, written_before }, stream))
    }
}

impl Inbound {
    /// Waits for the head; asked once.
    pub(in crate::client) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<Response<()>, SendError>> {
        match ready!(Pin::new(&mut self.response).poll(context)) {
            Ok(response) => {
                let (head, body) = response.into_parts();
                self.body = Some(body);
                Poll::Ready(Ok(Response::from_parts(head, ())))
            }
            Err(error) => Poll::Ready(Err(self.failure("the server gave no answer", error))),
        }
    }

    /// Waits for the next piece; none at their end, and before the head.
    pub(in crate::client) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<Option<Bytes>, SendError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(None)) };
        let Some(piece) = ready!(body.poll_data(context)) else { return Poll::Ready(Ok(None)) };
        let taken = piece.and_then(|piece| {
            body.flow_control().release_capacity(piece.len())?;
            Ok(Some(piece))
        });
        Poll::Ready(taken.map_err(|error| self.failure("the answer broke off", error)))
    }

    /// Waits for what follows the last piece; none where nothing does.
    pub(in crate::client) fn poll_trailers(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<Option<HeaderMap>, SendError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(None)) };
        let trailers = ready!(body.poll_trailers(context));
        Poll::Ready(trailers.map_err(|error| self.failure("the answer broke off", error)))
    }

    fn failure(&self, what: &str, error: h2::Error) -> SendError {
        // Where not a byte has left since, nothing of it can have arrived.
        let unsent = refused(&error) || self.opened.written() == self.written_before;
        let reset = error.reason().filter(|_| error.is_remote() && error.is_reset());
        SendError { error: self.opened.failure(what, error), unsent, reset }
    }
}
