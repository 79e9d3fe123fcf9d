//! What the task of a connection tells to those who use it, without a lock on their way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::super::io::Stream;
use super::{SendError, words};
use crate::error::{Error, ErrorKind};
use crate::pool::Condition;

const USABLE: u8 = 0;
const DRAINING: u8 = 1;
const CLOSED: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Signals {
    condition: AtomicU8,
    /// How many streams the server allows.
    allowed: AtomicUsize,
    open: AtomicUsize,
    read: AtomicU64,
    written: AtomicU64,
    /// How many streams were given up while the server said nothing at all; `doubted` is told of each.
    doubts: AtomicUsize,
    doubted: Arc<Notify>,
    /// Why it was closed from this side.
    reason: Mutex<Option<String>>,
}

/// One request or response that is under way.
#[derive(Debug)]
pub(super) struct OpenStream {
    signals: Arc<Signals>,
    /// Bytes that had come when it was opened.
    read_before: u64,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.signals.open.fetch_sub(1, Ordering::Relaxed);
        if self.signals.read() == self.read_before {
            self.signals.doubts.fetch_add(1, Ordering::Relaxed);
            self.signals.doubted.notify_one();
        }
    }
}

impl Signals {
    pub(super) fn condition(&self) -> Condition {
        match self.condition.load(Ordering::Acquire) {
            USABLE => Condition::Usable,
            DRAINING => Condition::Draining,
            _ => Condition::Closed,
        }
    }

    pub(super) fn drain(&self) {
        self.condition.fetch_max(DRAINING, Ordering::AcqRel);
    }

    pub(super) fn close(&self, reason: Option<String>) {
        *self.reason.lock() = reason;
        self.condition.store(CLOSED, Ordering::Release);
    }

    pub(super) fn allow(&self, streams: usize) {
        self.allowed.store(streams, Ordering::Relaxed);
    }

    pub(super) fn allowed(&self) -> usize {
        self.allowed.load(Ordering::Relaxed)
    }

    pub(super) fn open_stream(self: &Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenStream { signals: Arc::clone(self), read_before: self.read() }
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How often it came into doubt that the server is still there.
    pub(super) fn doubts(&self) -> usize {
        self.doubts.load(Ordering::Relaxed)
    }

    /// Told at each doubt.
    pub(super) fn doubted(&self) -> Arc<Notify> {
        Arc::clone(&self.doubted)
    }

    /// How many bytes have come.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How many bytes have left, at most.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The failure of a request that did not leave.
    pub(super) fn not_sent(&self, error: h2::Error) -> SendError {
        SendError::before(self.failure("the request was not sent", error))
    }

    /// The failure of a request or response in the crate's terms; `what` begins the sentence.
    pub(super) fn failure(&self, what: &str, error: h2::Error) -> Error {
        let kind = match (error.is_library(), error.is_io() || error.reason().is_some()) {
            (true, _) => ErrorKind::ProtocolError,
            (false, true) => ErrorKind::ReadFailed,
            // Neither side's fault but the caller's: a head that HTTP/2 does not allow.
            (false, false) => ErrorKind::Config,
        };
        // A stream that its connection took along knows only that it is gone.
        let reason = self.reason.lock().clone().filter(|_| error.is_io()).unwrap_or_else(|| words(&error));
        Error::with_source(kind, format!("{what}: {reason}"), error)
    }
}

impl OpenStream {
    /// How many bytes have left over the connection, at most.
    pub(super) fn written(&self) -> u64 {
        self.signals.written()
    }

    pub(super) fn failure(&self, what: &str, error: h2::Error) -> Error {
        self.signals.failure(what, error)
    }
}

/// A stream of bytes that counts them.
pub(super) struct Counted {
    stream: Stream,
    signals: Arc<Signals>,
    /// h2 asks once, when it begins, whether pieces are gathered in a write. Where they are not, it copies bodies of up to
    /// 1 KiB behind their heads, and many short requests leave in one write instead of one each. From then on it asks at
    /// each write, and long bodies need not be copied.
    gathers: bool,
}

impl Counted {
    pub(super) fn new(stream: Stream, signals: Arc<Signals>) -> Self {
        Self { stream, signals, gathers: false }
    }

    fn count(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(length)) = polled {
            self.signals.written.fetch_add(u64::try_from(*length).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let length = u64::try_from(buffer.filled().len() - before).unwrap_or(u64::MAX);
        self.signals.read.fetch_add(length, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.gathers && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The first frames are out: it has begun.
        self.gathers = true;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
