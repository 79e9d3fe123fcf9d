//! A call with any number of messages each way, at the same time.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::connection::HttpConnector;
use super::super::fleet::{Trip, outcome_of};
use super::super::http2::{Inbound, PIECE, SendError};
use super::super::request::{Deadlines, Due};
use super::super::response::GrpcEnd;
use super::super::timer::{Timer, Timers};
use super::call::{LONGEST, kept};
use super::end::{encoding_of, foreign, of_reset, status_of, unreadable, without_status};
use super::wait::Wait;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Lease;
use crate::wire::grpc::{Code, Messages};
use crate::wire::http1::Fields;

/// A stream of messages each way. To drop it, or either half of it, before its end resets it.
pub struct Duplex {
    sender: DuplexSender,
    receiver: DuplexReceiver,
}

/// The half that sends.
pub struct DuplexSender {
    outlet: Arc<Outlet>,
    /// What of a message is still to be sent.
    rest: Bytes,
    total: Option<Due>,
    timer: Timer,
    is_finished: bool,
}

/// The half that receives.
pub struct DuplexReceiver {
    inbound: Inbound,
    outlet: Arc<Outlet>,
    /// What the stream takes up; gone at its end.
    hold: Option<(Lease<HttpConnector>, Trip)>,
    wait: Wait,
    deadlines: Deadlines,
    opened: Instant,
    limit: usize,
    /// From the head on.
    began: Option<(HeaderMap, Messages)>,
    fields: Fields,
    end: Option<GrpcEnd>,
}

/// What both halves may do to the stream.
struct Outlet {
    stream: Mutex<SendStream<Bytes>>,
    endpoint: Arc<str>,
    /// This side reset it.
    given_up: AtomicBool,
}

/// What a stream is made of.
pub(in crate::client) struct Opened {
    pub(in crate::client) inbound: Inbound,
    pub(in crate::client) stream: SendStream<Bytes>,
    pub(in crate::client) timers: Arc<Timers>,
    pub(in crate::client) lease: Lease<HttpConnector>,
    pub(in crate::client) trip: Trip,
    pub(in crate::client) deadlines: Deadlines,
    pub(in crate::client) endpoint: Arc<str>,
    pub(in crate::client) first: Bytes,
    pub(in crate::client) limit: usize,
}

impl Duplex {
    pub(in crate::client) fn new(opened: Opened) -> Self {
        let Opened { inbound, mut stream, timers, lease, trip, deadlines, endpoint, first, limit } = opened;
        if !first.is_empty() {
            // A stream that is over already shows it when it is read.
            let _ = stream.send_data(first, false);
        }
        let wait = Wait::new(timers, Arc::clone(&endpoint));
        let outlet = Outlet { stream: Mutex::new(stream), endpoint, given_up: AtomicBool::new(false) };
        let outlet = Arc::new(outlet);
        let sender = DuplexSender {
            outlet: Arc::clone(&outlet),
            rest: Bytes::new(),
            total: deadlines.total(),
            timer: Timer::default(),
            is_finished: false,
        };
        let receiver = DuplexReceiver {
            inbound,
            outlet,
            hold: Some((lease, trip)),
            wait,
            deadlines,
            opened: Instant::now(),
            limit: limit.min(LONGEST),
            began: None,
            fields: Fields::default(),
            end: None,
        };
        Self { sender, receiver }
    }

    /// As [`DuplexSender::send`].
    ///
    /// # Errors
    /// As [`DuplexSender::send`].
    pub async fn send(&mut self, message: Bytes) -> Result<()> {
        self.sender.send(message).await
    }

    /// As [`DuplexSender::finish`].
    ///
    /// # Errors
    /// As [`DuplexSender::send`].
    pub async fn finish(&mut self) -> Result<()> {
        self.sender.finish().await
    }

    /// As [`DuplexReceiver::next`].
    ///
    /// # Errors
    /// As [`DuplexReceiver::next`].
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.receiver.next().await
    }

    /// As [`DuplexReceiver::end`].
    pub fn end(&self) -> Option<&GrpcEnd> {
        self.receiver.end()
    }

    /// As [`DuplexReceiver::endpoint`].
    pub fn endpoint(&self) -> &Arc<str> {
        self.receiver.endpoint()
    }

    /// Its two halves, for two tasks: whoever sends much and reads nothing meanwhile may wait for a server that does the
    /// same.
    pub fn split(self) -> (DuplexSender, DuplexReceiver) {
        (self.sender, self.receiver)
    }
}

impl DuplexSender {
    /// Sends a message, with its prefix, and waits until the server takes it: the time-out is that of the whole stream. To
    /// drop the future loses nothing: what is left of the message goes before the next.
    ///
    /// # Errors
    /// [`ErrorKind::StreamClosed`] where the stream is over, of which the other half tells how, or finished;
    /// [`ErrorKind::DeadlineExceeded`] where its time is up.
    pub async fn send(&mut self, message: Bytes) -> Result<()> {
        if self.is_finished {
            return Err(self.outlet.closed("was finished before"));
        }
        poll_fn(|context| self.poll_flush(context)).await?;
        self.rest = message;
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Says that no more messages come. The other half goes on.
    ///
    /// # Errors
    /// As [`DuplexSender::send`]; none where it was finished before.
    pub async fn finish(&mut self) -> Result<()> {
        if self.is_finished {
            return Ok(());
        }
        poll_fn(|context| self.poll_flush(context)).await?;
        self.is_finished = true;
        let sent = self.outlet.stream.lock().send_data(Bytes::new(), true);
        sent.map_err(|_| self.outlet.closed("is over"))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match self.poll_rest(context) {
            Poll::Pending => {
                let Some(due) = self.total else { return Poll::Pending };
                ready!(self.timer.poll_until(due.at, context));
                self.outlet.give_up();
                Poll::Ready(Err(due.missed(&self.outlet.endpoint)))
            }
            done @ Poll::Ready(_) => done,
        }
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut stream = self.outlet.stream.lock();
        while !self.rest.is_empty() {
            stream.reserve_capacity(self.rest.len().min(PIECE));
            let room = match stream.capacity() {
                0 => match ready!(stream.poll_capacity(context)) {
                    Some(Ok(_)) => stream.capacity(),
                    _ => return Poll::Ready(Err(self.outlet.closed("is over"))),
                },
                room => room,
            };
            let piece = self.rest.split_to(room.min(self.rest.len()));
            if !piece.is_empty() && stream.send_data(piece, false).is_err() {
                return Poll::Ready(Err(self.outlet.closed("is over")));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for DuplexSender {
    fn drop(&mut self) {
        if !self.is_finished {
            self.outlet.give_up();
        }
    }
}

impl DuplexReceiver {
    /// Waits for the next message, without its prefix and unpacked; none at the end, of which [`end`](Self::end) tells how
    /// it went. The time-outs for the first byte and between two of them count from the call. To drop the future loses
    /// nothing.
    ///
    /// # Errors
    /// The time-outs, [`ErrorKind::ReadFailed`] where the connection fails or a message is too long,
    /// [`ErrorKind::ProtocolError`] for an answer that is against the protocol, [`ErrorKind::StreamClosed`] after any of
    /// them, and where the other half was dropped before it finished. With an error the stream is reset.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.hold.is_none() {
            return if self.end.is_some() { Ok(None) } else { Err(self.outlet.closed("is over")) };
        }
        let came = self.advance().await;
        match came {
            Ok(message) => Ok(message),
            Err(_) if self.outlet.given_up.load(Ordering::Acquire) => {
                self.hold = None;
                Err(self.outlet.closed("was given up by this side before it was finished"))
            }
            Err(SendError { reset: Some(reason), .. }) => {
                self.ended(of_reset(reason), None, true);
                Ok(None)
            }
            Err(SendError { error, .. }) => Err(self.failed(error)),
        }
    }

    /// How the stream ended; none before its end.
    pub fn end(&self) -> Option<&GrpcEnd> {
        self.end.as_ref()
    }

    /// The initial metadata, as soon as [`next`](Self::next) has given anything; at the end the trailers, too.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Who answers: `grpc://host:port`.
    pub fn endpoint(&self) -> &Arc<str> {
        &self.outlet.endpoint
    }

    async fn advance(&mut self) -> std::result::Result<Option<Bytes>, SendError> {
        if self.began.is_none() && !self.begin().await? {
            return Ok(None);
        }
        let endpoint = Arc::clone(&self.outlet.endpoint);
        let refused = |status| SendError::after(unreadable(&endpoint, &status));
        let idle = || self.deadlines.idle(Instant::now());
        let Some((head, messages)) = &mut self.began else { return Ok(None) };
        loop {
            if let Some(message) = messages.take().map_err(refused)? {
                return Ok(Some(kept(message)));
            }
            let inbound = &mut self.inbound;
            let Some(piece) = self.wait.until(idle, |context| inbound.poll_piece(context)).await? else {
                break;
            };
            messages.push(piece);
        }
        let inbound = &mut self.inbound;
        let trailers = self.wait.until(idle, |context| inbound.poll_trailers(context)).await?;
        let end = trailers.as_ref().and_then(status_of).or_else(|| status_of(head));
        let end = end.ok_or_else(|| SendError::after(without_status(&endpoint)))?;
        if end.code == Code::Ok {
            messages.end().map_err(refused)?;
        }
        self.ended(end, trailers.as_ref(), false);
        Ok(None)
    }

    /// Waits for the head; false where it is the end.
    async fn begin(&mut self) -> std::result::Result<bool, SendError> {
        let inbound = &mut self.inbound;
        let first = || self.deadlines.first(Instant::now());
        let head = self.wait.until(first, |context| inbound.poll_head(context)).await?;
        if let Some((_, trip)) = &self.hold {
            trip.first_byte(self.opened.elapsed());
        }
        self.fields = Fields::of_map(head.headers());
        if let Some(end) = foreign(&head) {
            self.ended(end, None, false);
            return Ok(false);
        }
        let encoding = encoding_of(head.headers());
        let encoding =
            encoding.map_err(|status| SendError::after(unreadable(&self.outlet.endpoint, &status)))?;
        self.began = Some((head.into_parts().0.headers, Messages::new(encoding, self.limit, "max_response")));
        Ok(true)
    }

    fn ended(&mut self, end: GrpcEnd, trailers: Option<&HeaderMap>, is_broken: bool) {
        if let (Some((head, _)), Some(trailers)) = (&self.began, trailers) {
            self.fields = Fields::of_maps(head, Some(trailers));
        }
        if let Some((lease, trip)) = self.hold.take() {
            lease.finish(true, None);
            trip.end(outcome_of(end.code.http_status(), Some(end.code), is_broken, None));
        }
        self.end = Some(end);
        // What was still to be sent interests nobody any more.
        self.outlet.stream.lock().send_reset(Reason::CANCEL);
    }

    fn failed(&mut self, error: Error) -> Error {
        if let Some((_, mut trip)) = self.hold.take()
            && error.kind() != ErrorKind::DeadlineExceeded
        {
            trip.fail();
        }
        self.outlet.give_up();
        error
    }
}

impl Drop for DuplexReceiver {
    fn drop(&mut self) {
        if self.hold.is_some() {
            self.outlet.give_up();
        }
    }
}

impl Outlet {
    fn give_up(&self) {
        if !self.given_up.swap(true, Ordering::AcqRel) {
            self.stream.lock().send_reset(Reason::CANCEL);
        }
    }

    fn closed(&self, how: &str) -> Error {
        Error::new(ErrorKind::StreamClosed, format!("the stream to {} {how}", self.endpoint))
    }
}
