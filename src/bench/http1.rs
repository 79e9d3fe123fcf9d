//! One HTTP/1.1 connection, driven by the task that uses it: a write and a read carry a request and its answer.
//!
//! The load generator is the instrument: what it costs moves every figure that is measured on the same machine. So its
//! requests are bytes that were prepared beforehand, and its reader knows of HTTP what framing needs and no more.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use super::link::{Lost, Whole};
use super::prepared::Prepared;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::http1::Decoder;

/// What one read takes at least, where there is as much.
const READ_BYTES: usize = 8 * 1024;

/// A connection of one client's own.
pub(super) struct Socket {
    stream: TcpStream,
    input: BytesMut,
    /// Fires at the time-out of some request, not always of the one that is out: to set it anew for each one would cost
    /// more than to look when it fires.
    timer: Pin<Box<Sleep>>,
    usable: bool,
}

/// Opens a TCP connection within the time-out of a request.
pub(super) async fn connect(prepared: &Prepared) -> Result<TcpStream> {
    let address = prepared.address;
    let refused = |source| {
        let message = format!("no connection to {address} could be opened");
        Error::with_source(ErrorKind::ConnectFailed, message, source)
    };
    let opened = timeout(prepared.timeout, TcpStream::connect(address)).await.map_err(|_| {
        let message = format!("no connection to {address} was open after {:?}", prepared.timeout);
        Error::new(ErrorKind::ConnectTimeout, message)
    })?;
    let stream = opened.map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    Ok(stream)
}

impl Socket {
    /// Opens a connection; dropping the future closes it again.
    pub(super) async fn open(prepared: &Prepared) -> Result<Self> {
        let stream = connect(prepared).await?;
        let timer = Box::pin(sleep(prepared.timeout));
        Ok(Self { stream, input: BytesMut::new(), timer, usable: true })
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable
    }

    /// Sends a request and reads its answer.
    pub(super) async fn exchange(
        &mut self,
        prepared: &Prepared,
        body_index: usize,
    ) -> std::result::Result<Whole, Lost> {
        self.look_for_the_end()?;
        self.usable = false;
        let since = tokio::time::Instant::now();
        let mut exchange = Exchange {
            socket: self,
            unsent: prepared.bytes(body_index).unwrap_or_default(),
            write_failed: false,
            decoder: Decoder::new(prepared.to_head_request),
            body: prepared.keep.then(Vec::new),
            began: None,
        };
        let due = since + prepared.timeout;
        let ended = poll_fn(|context| match exchange.poll(context) {
            Poll::Pending => exchange.poll_timer(due, context),
            done @ Poll::Ready(_) => done,
        });
        match ended.await {
            Ok(ended) => exchange.whole(ended).ok_or(Lost::Failed(ErrorKind::Internal, 0)),
            Err(kind) => Err(Lost::Failed(kind, exchange.decoder.body_length())),
        }
    }

    /// Notices a server that closed the connection, or spoke without being asked, since the last answer.
    ///
    /// It costs no call of the operating system unless something has happened to the socket.
    fn look_for_the_end(&self) -> std::result::Result<(), Lost> {
        match self.stream.try_read(&mut [0]) {
            Ok(0) => Err(Lost::Untouched),
            Ok(_) => Err(Lost::Failed(ErrorKind::ProtocolError, 0)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Lost::Untouched),
        }
    }
}

/// A request that is out.
struct Exchange<'a> {
    socket: &'a mut Socket,
    unsent: &'a [u8],
    /// A server that refuses a body may answer and close before it has read it all: its answer is still waited for.
    write_failed: bool,
    decoder: Decoder,
    body: Option<Vec<u8>>,
    began: Option<Instant>,
}

impl Exchange<'_> {
    /// Sends and reads what can be sent and read now; ready at the end of the answer.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<Instant, ErrorKind>> {
        self.poll_send(context);
        loop {
            let input = &mut self.socket.input;
            let read = ready!(poll_read(&mut self.socket.stream, input, context));
            let now = Instant::now();
            match read {
                Ok(0) => {
                    let ended = self.decoder.end().map(|()| now);
                    return Poll::Ready(ended.map_err(|error| self.loss(error.kind())));
                }
                Ok(_) => {
                    self.began.get_or_insert(now);
                }
                Err(error) => return Poll::Ready(Err(self.loss(kind_of(&error)))),
            }
            match self.decoder.advance(input, self.body.as_mut()) {
                Ok(used) => input.advance(used),
                Err(error) => return Poll::Ready(Err(error.kind())),
            }
            if self.decoder.is_done() {
                // What follows an answer that nobody asked for belongs to none: the two sides do not agree.
                let surplus = !input.is_empty();
                return Poll::Ready(if surplus { Err(ErrorKind::ProtocolError) } else { Ok(now) });
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) {
        while !self.unsent.is_empty() && !self.write_failed {
            match Pin::new(&mut self.socket.stream).poll_write(context, self.unsent) {
                Poll::Pending => return,
                Poll::Ready(Ok(sent)) if sent > 0 => {
                    self.unsent = self.unsent.get(sent..).unwrap_or_default();
                }
                Poll::Ready(_) => self.write_failed = true,
            }
        }
    }

    fn poll_timer<T>(
        &mut self,
        due: tokio::time::Instant,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<T, ErrorKind>> {
        while self.socket.timer.as_mut().poll(context).is_ready() {
            if tokio::time::Instant::now() >= due {
                return Poll::Ready(Err(ErrorKind::DeadlineExceeded));
            }
            self.socket.timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// The kind of a failure that reading showed, which may have begun with the writing.
    fn loss(&self, kind: ErrorKind) -> ErrorKind {
        if self.write_failed && kind == ErrorKind::ReadFailed { ErrorKind::WriteFailed } else { kind }
    }

    fn whole(self, ended: Instant) -> Option<Whole> {
        let head = self.decoder.head()?;
        self.socket.usable = head.keeps && self.unsent.is_empty() && !self.write_failed;
        Some(Whole {
            code: None,
            status: head.status,
            length: self.decoder.body_length(),
            body: self.body.unwrap_or_default(),
            json_length: head.json_length,
            retry_after: head.retry_after,
            began: self.began.unwrap_or(ended),
            ended,
        })
    }
}

/// Reads once. By `poll_read` rather than `try_read`: a read that does not fill the buffer tells tokio that there is no
/// more, which saves the call that would find that out.
fn poll_read(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    input.reserve(READ_BYTES);
    pin!(stream.read_buf(input)).poll(context)
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero => ErrorKind::WriteFailed,
        _ => ErrorKind::ReadFailed,
    }
}
