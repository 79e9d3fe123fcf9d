//! A connection's socket: it tells the watch what moves, and gives words to what the HTTP library refuses by itself.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::transport::Transport;
use super::watch::{Phase, Watch};
use crate::wire::oip;

/// An interim answer: clients skip it (RFC 9110, section 15.2), and a socket that is closed refuses it.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A socket that is watched.
pub(super) struct Socket {
    stream: Transport,
    watch: Arc<Watch>,
    /// The other side sends no more, and the HTTP library does not know it yet.
    half_closed: bool,
    hung_up: Option<HungUp>,
}

/// Resolves when the other side, which sends no more, turns out to be gone altogether.
type HungUp = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Socket {
    pub(super) fn new(stream: Transport, watch: Arc<Watch>) -> Self {
        Self { stream, watch, half_closed: false, hung_up: None }
    }

    /// The end of what the other side sends. The HTTP library takes it for the end of the connection, and gives up
    /// whatever it is at; so it hears of it only where nothing is owed any more.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let seen_before = std::mem::replace(&mut self.half_closed, true);
        match self.watch.phase() {
            Phase::Answering => self.poll_hung_up(context),
            Phase::Streaming => {
                // Within an answer nothing else can be sent: whoever writes it says something soon.
                if !seen_before {
                    self.watch.doubt();
                    context.waker().wake_by_ref();
                }
                self.poll_refused(context)
            }
            // Where the body is whole, the request has gone on by the next time.
            Phase::Body if !seen_before => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            // Who does not take the answer is found out by sending it.
            Phase::Sending => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// The end of what the other side sends, while it waits for an answer. Who shut down his sending half still gets the
    /// answer; who closed the socket wants none, and the model should not see his request. Both look the same (a FIN),
    /// but only the closed socket refuses (with RST) what is sent to it.
    fn poll_hung_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.hung_up.is_none() && self.stream.poll_try_write(context, INTERIM).is_err() {
            return Poll::Ready(());
        }
        self.poll_refused(context)
    }

    /// Ready when something that was sent has been refused.
    fn poll_refused(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.hung_up.is_none() {
            let Ok(hung_up) = self.refusal() else { return Poll::Ready(()) };
            self.hung_up = Some(hung_up);
        }
        self.hung_up.as_mut().map_or(Poll::Ready(()), |hung_up| hung_up.as_mut().poll(context))
    }

    /// An answer that is still made waits for who does not take it, and goes on when he does.
    fn note_stall(&self, stalled: bool, context: &Context<'_>) {
        if self.watch.stalled(stalled) && self.watch.phase() == Phase::Streaming {
            context.waker().wake_by_ref();
        }
    }

    fn refusal(&self) -> io::Result<HungUp> {
        // A second handle of the same socket: the first is in the hands of the HTTP library.
        let handle = std::net::TcpStream::from(self.stream.tcp().as_fd().try_clone_to_owned()?);
        let handle = TcpStream::from_std(handle)?;
        if self.stream.is_encrypted() {
            return Ok(Box::pin(left_for_good(handle)));
        }
        Ok(Box::pin(async move {
            // An error in waiting is an end, too.
            let _ = handle.ready(Interest::ERROR).await;
        }))
    }

    /// Replaces an answer that the HTTP library gives by itself, which has no body, by one with words in it.
    fn refuse_in_words(&mut self, context: &mut Context<'_>, written: &[u8]) -> Option<usize> {
        if !matches!(self.watch.phase(), Phase::New | Phase::Head | Phase::Idle) {
            return None;
        }
        let answer = in_words(written)?;
        // A socket without room for so little is one whose client reads nothing.
        let _ = self.stream.poll_try_write(context, &answer);
        Some(written.len())
    }
}

/// Resolves when a client that has said, encrypted, that it sends no more closes its socket, too, or sends more. Who sends
/// no more and wants his answer keeps the socket open: the two are said apart, and so need not look the same.
async fn left_for_good(handle: TcpStream) {
    let mut more = [0; 64];
    while let Ok(ready) = handle.ready(Interest::READABLE | Interest::ERROR).await {
        let waits = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if ready.is_error() || !handle.try_read(&mut more).is_err_and(waits) {
            return;
        }
    }
}

/// The answer to a head that takes too long.
pub(super) fn late_head() -> Vec<u8> {
    refusal("408 Request Timeout", "the head of the request took longer than header_timeout")
}

/// The answer to who does not encrypt what he sends, where that is asked for.
pub(super) fn in_the_clear() -> Vec<u8> {
    refusal("400 Bad Request", "this port speaks tls: ask it with https:// or grpcs://")
}

/// The answer to a connection that is one too many.
pub(super) fn one_too_many(most: usize) -> Vec<u8> {
    let message = format!("there are max_connections={most} connections: try again later");
    refusal("503 Service Unavailable\r\nretry-after: 1", &message)
}

fn in_words(written: &[u8]) -> Option<Vec<u8>> {
    let written = std::str::from_utf8(written).ok()?;
    let status = written.strip_prefix("HTTP/1.1 ")?.lines().next()?;
    if !written.ends_with("\r\n\r\n") {
        return None;
    }
    let message = match status.get(..3)? {
        "400" => "this is no HTTP request: its head cannot be read",
        "414" => "the path of the request is too long",
        "431" => "the head of the request exceeds max_head bytes, or 100 headers",
        _ => return None,
    };
    Some(refusal(status, message))
}

fn refusal(status: &str, message: &str) -> Vec<u8> {
    let body = oip::error_body(message);
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.stream.poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = polled {
            if buffer.filled().len() > before {
                self.watch.received();
            } else if buffer.remaining() > 0 {
                return self.poll_end(context).map(Ok);
            }
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(length) = self.refuse_in_words(context, bytes) {
            return Poll::Ready(Ok(length));
        }
        let polled = self.stream.poll_write(context, bytes);
        self.note_stall(polled.is_pending(), context);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices
            && let Some(length) = self.refuse_in_words(context, only)
        {
            return Poll::Ready(Ok(length));
        }
        let polled = self.stream.poll_write_vectored(context, slices);
        self.note_stall(polled.is_pending(), context);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream.poll_flush(context);
        if self.stream.is_encrypted() {
            self.note_stall(polled.is_pending(), context);
        }
        if polled.is_ready() && self.watch.flushed() && self.half_closed {
            // Now it may be heard.
            context.waker().wake_by_ref();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream.poll_shutdown(context);
        if self.stream.is_encrypted() {
            self.note_stall(polled.is_pending(), context);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_refusals_get_words_and_answers_stay_as_they_are() {
        let bare =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let answer = String::from_utf8(in_words(bare).unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["error"].is_string());
        for other in
            [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"HTTP/1.1 400 Bad Request\r\n", b"{}", b"\xff\xfe", b""]
        {
            assert_eq!(in_words(other), None);
        }
    }
}
