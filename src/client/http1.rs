//! One HTTP/1.1 connection, driven by the task whose request it carries: no task of its own, no channel, no wake.
//!
//! hyper's connection is a task beside the request's: every request wakes both twice. Here a request is a write and its
//! answer a read (`docs/architecture.md` has the figures). RFC 9112 rules the framing, which `wire::http1` reads.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::connect::Connected;
use super::io::{Idle, Stream};
use super::pieces::Pieces;
use super::request::{Due, Request};
use super::timer::Timer;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::ChunkSize;
use crate::wire::http1::{Decoder, Fields, Head, put_field};

/// What a chunk has beside its bytes at most.
const CHUNK_FRAME: usize = 20;
/// Bodies up to here go out in one piece with the head.
const JOINED_BYTES: usize = 16 * 1024;

/// A connection that carries one request at a time.
pub(super) struct Socket {
    stream: Stream,
    input: BytesMut,
    output: Vec<u8>,
    reads: ChunkSize,
    timer: Timer,
    /// What stands before the path of a request that goes through a forwarding proxy, and what lets it through.
    forward: Option<Box<Forward>>,
}

struct Forward {
    origin: String,
    authorization: Option<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) error: Error,
    /// True where the server certainly never saw the request.
    pub(super) unsent: bool,
    /// True where its connection had served before, and nothing of an answer came over it.
    pub(super) silent: bool,
}

impl Lost {
    /// A loss of which no more is known than whether the server can have seen the request.
    pub(super) fn new(error: Error, unsent: bool) -> Self {
        Self { error, unsent, silent: false }
    }
}

impl Socket {
    /// Takes over a connection on which nothing was said yet; `origin` is `http://host:port`.
    pub(super) fn new(connected: Connected, origin: &str) -> Self {
        let forward = connected.forward_proxy.then(|| {
            let authorization = connected.proxy_authorization.map(|value| value.as_bytes().to_vec());
            Box::new(Forward { origin: origin.to_owned(), authorization })
        });
        Self {
            stream: connected.stream,
            input: BytesMut::new(),
            output: Vec::new(),
            reads: ChunkSize::default(),
            timer: Timer::default(),
            forward,
        }
    }

    /// Looks whether the other side closed an idle connection, or spoke without being asked.
    pub(super) fn settle(&mut self) -> Idle {
        self.stream.settle()
    }

    fn put_head(&mut self, request: &Request, authority: &str) {
        let out = &mut self.output;
        out.clear();
        out.extend_from_slice(request.method.as_str().as_bytes());
        out.push(b' ');
        if let Some(forward) = &self.forward {
            out.extend_from_slice(forward.origin.as_bytes());
        }
        out.extend_from_slice(request.target.as_str().as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if !request.fields.has_host {
            put_field(out, b"host", authority.as_bytes());
        }
        out.extend_from_slice(&request.fields.lines);
        if let Some(authorization) = self.forward.as_ref().and_then(|forward| forward.authorization.as_ref())
        {
            put_field(out, b"proxy-authorization", authorization);
        }
        match request.stated_length() {
            Some(length) => put_field(out, b"content-length", itoa::Buffer::new().format(length).as_bytes()),
            None if request.pieces.is_some() => put_field(out, b"transfer-encoding", b"chunked"),
            None => {}
        }
        out.extend_from_slice(b"\r\n");
        if request.body.len() <= JOINED_BYTES {
            out.extend_from_slice(&request.body);
        }
    }
}

/// A request that is out, and the answer that comes.
///
/// Dropping it closes the connection: nobody knows what is still to come over it.
pub(super) struct Exchange {
    socket: Box<Socket>,
    decoder: Decoder,
    /// Bytes of head and body that are out.
    sent: usize,
    /// The part of the body that does not go out with the head.
    body: Bytes,
    /// What is to follow it; none once all of it has been taken.
    pieces: Option<Pieces>,
    /// A server that refuses a body may answer and close before it has read it all: its answer is still waited for.
    write_failed: bool,
    endpoint: Arc<str>,
    /// What has come of the body and was not taken.
    pub(super) arrived: Vec<u8>,
    /// What is wrong with what followed that.
    broken: Option<Error>,
    /// Time of the first byte.
    pub(super) began: Option<Instant>,
}

impl Exchange {
    /// Prepares a request for a connection. Nothing is sent yet.
    pub(super) fn new(
        mut socket: Box<Socket>,
        request: &Request,
        authority: &str,
        endpoint: &Arc<str>,
    ) -> Self {
        socket.put_head(request, authority);
        let joined = request.body.len() <= JOINED_BYTES;
        Self {
            socket,
            decoder: Decoder::with_fields(request.method == http::Method::HEAD),
            sent: 0,
            body: if joined { Bytes::new() } else { request.body.clone() },
            pieces: request.pieces.clone(),
            write_failed: false,
            endpoint: Arc::clone(endpoint),
            arrived: Vec::new(),
            broken: None,
            began: None,
        }
    }

    /// Sends the request and waits for the head of its answer; a part of the body may have come with it.
    pub(super) async fn head(&mut self, due: Option<Due>) -> std::result::Result<(Head, Fields), Lost> {
        let arrived = poll_fn(|context| match self.poll_head(context) {
            Poll::Pending => self.poll_due(due, context),
            done @ Poll::Ready(_) => done,
        });
        arrived.await.map_err(|error| Lost::new(error, self.sent == 0))?;
        let fields = self.decoder.take_fields().unwrap_or_default();
        match self.decoder.head() {
            Some(head) => Ok((head, fields)),
            None => Err(Lost::new(Error::new(ErrorKind::Internal, "an answer has no head"), false)),
        }
    }

    /// Waits for more of the body, which is added to what has `arrived`, until what is `due` is missed; false at its end.
    pub(super) async fn more(&mut self, due: impl Fn() -> Option<Due>) -> Result<bool> {
        if self.decoder.is_done() {
            return Ok(false);
        }
        poll_fn(|context| match self.poll_portion(context) {
            // It is asked anew each time: it may have moved.
            Poll::Pending => self.poll_due(due(), context),
            done @ Poll::Ready(_) => done,
        })
        .await?;
        Ok(true)
    }

    /// True where the answer is whole.
    pub(super) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// How many bytes of the body are still to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// The connection, where it can carry another request.
    pub(super) fn into_socket(mut self) -> Option<Box<Socket>> {
        let keeps = self.decoder.head().is_some_and(|head| head.keeps);
        let all_taken = self.body.is_empty() && self.pieces.is_none();
        let out = self.unsent().is_empty() && all_taken && !self.write_failed;
        // What follows an answer that nobody asked for belongs to none: the two sides do not agree.
        if !(keeps && out && self.decoder.is_done() && self.socket.input.is_empty()) {
            return None;
        }
        if self.socket.reads != ChunkSize::default() {
            // An idle connection holds no large buffer.
            self.socket.input = BytesMut::new();
            self.socket.reads = ChunkSize::default();
        }
        if self.socket.output.capacity() > JOINED_BYTES {
            self.socket.output = Vec::new();
        }
        Some(self.socket)
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_send(context)?;
        while self.decoder.head().is_none() {
            ready!(self.poll_read(context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_portion(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_send(context)?;
        let before = self.decoder.body_length();
        while self.decoder.body_length() == before && !self.decoder.is_done() {
            ready!(self.poll_read(context))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes of the output that are not out; the output comes before the body.
    fn unsent(&self) -> &[u8] {
        self.socket.output.get(self.sent..).unwrap_or_default()
    }

    /// Sends what can be sent now. It fails only where nothing was sent at all: then another connection may do better.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Result<()> {
        while !self.write_failed {
            if self.unsent().is_empty() && self.body.is_empty() && !self.poll_piece(context) {
                self.poll_flush(context);
                return Ok(());
            }
            let head = self.socket.output.get(self.sent..).unwrap_or_default();
            let slices = [IoSlice::new(head), IoSlice::new(&self.body)];
            let stream = Pin::new(&mut self.socket.stream);
            let written = if self.body.is_empty() {
                stream.poll_write(context, head)
            } else {
                stream.poll_write_vectored(context, &slices)
            };
            match written {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => self.write_failed = true,
                Poll::Ready(Ok(written)) => self.advance_sent(written),
                Poll::Ready(Err(error)) if self.sent == 0 => return Err(self.broken(&error)),
                Poll::Ready(Err(_)) => self.write_failed = true,
            }
        }
        Ok(())
    }

    /// Takes the next piece of a body that is made while it is sent; false where there is none yet, or no more. Without a
    /// length it is framed as a chunk (RFC 9112, section 7.1).
    fn poll_piece(&mut self, context: &mut Context<'_>) -> bool {
        let Some(pieces) = &self.pieces else { return false };
        let is_chunked = pieces.length().is_none();
        let Poll::Ready(piece) = pieces.poll_next(context) else { return false };
        self.body = match piece {
            Some(piece) if is_chunked => {
                let mut chunk = Vec::with_capacity(piece.len() + CHUNK_FRAME);
                chunk.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                chunk.extend_from_slice(&piece);
                chunk.extend_from_slice(b"\r\n");
                chunk.into()
            }
            Some(piece) => piece,
            None => {
                self.pieces = None;
                Bytes::from_static(if is_chunked { b"0\r\n\r\n" } else { b"" })
            }
        };
        !self.body.is_empty()
    }

    /// TLS keeps what was written until it is flushed.
    fn poll_flush(&mut self, context: &mut Context<'_>) {
        if let Poll::Ready(Err(_)) = Pin::new(&mut self.socket.stream).poll_flush(context) {
            self.write_failed = true;
        }
    }

    fn advance_sent(&mut self, written: usize) {
        let of_head = written.min(self.unsent().len());
        self.sent += of_head;
        self.body.advance(written - of_head);
    }

    /// Reads once and decodes what came.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        let read = ready!(poll_read(&mut self.socket, context));
        match read {
            Ok(0) => {
                self.decoder.end().map_err(|error| {
                    let message = match self.began {
                        None => format!("{} closed the connection without an answer", self.endpoint),
                        Some(_) => {
                            format!("{} closed the connection before its answer was whole", self.endpoint)
                        }
                    };
                    Error::with_source(self.loss(error.kind()), message, error)
                })?;
                return Poll::Ready(Ok(()));
            }
            Ok(_) if self.began.is_none() => self.began = Some(Instant::now()),
            Ok(_) => {}
            Err(error) => return Poll::Ready(Err(self.broken(&error))),
        }
        let used = self.decoder.advance(&self.socket.input, Some(&mut self.arrived));
        let used = match used {
            Ok(used) => used,
            Err(error) => {
                let message = format!("{} sent what is no answer: {}", self.endpoint, error.message());
                let error = Error::with_source(error.kind(), message, error);
                if self.decoder.head().is_none() {
                    return Poll::Ready(Err(error));
                }
                // The head, and what has arrived before, are taken first.
                self.broken = Some(error);
                return Poll::Ready(Ok(()));
            }
        };
        self.socket.input.advance(used);
        Poll::Ready(Ok(()))
    }

    fn poll_due(&mut self, due: Option<Due>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(due) = due else { return Poll::Pending };
        ready!(self.socket.timer.poll_until(due.at, context));
        Poll::Ready(Err(due.missed(&self.endpoint)))
    }

    /// The kind of a failure that reading showed, which may have begun with the writing.
    fn loss(&self, kind: ErrorKind) -> ErrorKind {
        if self.write_failed && kind == ErrorKind::ReadFailed { ErrorKind::WriteFailed } else { kind }
    }

    fn broken(&self, error: &io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero => ErrorKind::WriteFailed,
            _ => ErrorKind::ReadFailed,
        };
        let when = if self.began.is_none() { "before it answered" } else { "in the middle of an answer" };
        let message = format!("the connection to {} broke {when}: {error}", self.endpoint);
        Error::with_source(self.loss(kind), message, io::Error::from(error.kind()))
    }
}

/// Reads once, into room that grows and shrinks with what the connection brings.
fn poll_read(socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let Socket { stream, input, reads, .. } = socket;
    input.reserve(reads.cap());
    let read = ready!(pin!(stream.read_buf(input)).poll(context))?;
    reads.took(read);
    Poll::Ready(Ok(read))
}
