//! What an HTTP/2 connection sends after the head of an answer: bytes, or messages and then trailers.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::account::Account;
use super::reply;
use crate::serve::answer::ReplyBody;
use crate::wire::grpc::{Code, Status};

/// The body of an answer over HTTP/2.
pub(in crate::serve) enum AnswerBody {
    /// What is no call of gRPC, or one that was refused.
    Reply(ReplyBody),
    /// The one message of a call that went well.
    Message(Left),
    /// Messages that come while the call goes on.
    Stream(Box<Stream>),
}

/// What is left to be sent of a call that went well.
pub(in crate::serve) enum Left {
    /// The message, framed.
    Message(Bytes),
    Trailers,
    Nothing,
}

impl AnswerBody {
    pub(super) fn message(framed: Bytes) -> Self {
        Self::Message(Left::Message(framed))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.get_mut() {
            Self::Reply(body) => return Pin::new(body).poll_frame(context),
            Self::Stream(stream) => return stream.poll_frame(context).map(|frame| frame.map(Ok)),
            Self::Message(left) => match std::mem::replace(left, Left::Nothing) {
                Left::Message(message) => {
                    *left = Left::Trailers;
                    Some(Frame::data(message))
                }
                Left::Trailers => Some(Frame::trailers(reply::well())),
                Left::Nothing => None,
            },
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Reply(body) => body.is_end_stream(),
            Self::Message(left) => matches!(left, Left::Nothing),
            Self::Stream(stream) => stream.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Reply(body) => body.size_hint(),
            // A length would go into the head of the answer, and calls have none there.
            Self::Message(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A call that puts pieces of its answer into a channel while it goes on.
pub(super) type Going = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// The answer to such a call. The call goes on as far as the other side takes its answers; it is dropped with this.
pub(in crate::serve) struct Stream {
    call: Option<Going>,
    pieces: mpsc::Receiver<Bytes>,
    end: Result<(), Status>,
    ended: bool,
    account: Account,
}

impl Stream {
    pub(super) fn new(call: Going, pieces: mpsc::Receiver<Bytes>, account: Account) -> Self {
        Self { call: Some(call), pieces, end: Ok(()), ended: false, account }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            match self.pieces.poll_recv(context) {
                Poll::Ready(Some(piece)) => {
                    self.account.answered(piece.len());
                    return Poll::Ready(Some(Frame::data(piece)));
                }
                // What it had to say is said.
                Poll::Ready(None) if self.call.is_none() => break,
                // Also with pieces left: a task that has had its turn must let others have theirs.
                Poll::Pending if self.call.is_none() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => {}
            }
            let before = self.pieces.len();
            if self.poll_call(context).is_pending() && self.pieces.len() == before {
                return Poll::Pending;
            }
        }
        self.ended = true;
        self.account.end(self.end.as_ref().map_or_else(|status| status.code, |()| Code::Ok));
        Poll::Ready(Some(Frame::trailers(reply::trailers(&self.end))))
    }

    /// Lets the call go on; a panic is this call's failure, not its connection's.
    fn poll_call(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(call) = &mut self.call else { return Poll::Ready(()) };
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
        let panicked = Status::new(Code::Internal, "penstock panicked: please report it");
        self.end = std::task::ready!(polled.unwrap_or(Poll::Ready(Err(panicked))));
        // Its end of the channel goes with it.
        self.call = None;
        Poll::Ready(())
    }
}
