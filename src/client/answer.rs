//! An answer whose head is there: its body as it comes, over either version of HTTP, and the connection that it came over.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::connection::{HttpConnection, HttpConnector};
use super::decode::Decoding;
use super::fleet::Trip;
use super::http1::Exchange;
use super::http2::Http2Body;
use super::request::{Deadlines, Due};
use super::response::Response;
use super::timer::Timer;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Lease, Outcome};

/// Longer bodies are decoded on a thread of their own: the runtime has others to serve.
const LONG_BODY: usize = 128 * 1024;
/// Bytes of a body that is read as it comes that are decoded at a time, and how many of them make a chunk.
const DECODED_AT_ONCE: usize = 256;
const ENOUGH_DECODED: usize = 64 * 1024;
/// Room that is made beforehand for a body of known length.
const MAX_RESERVED: u64 = 1024 * 1024;

/// Where the body comes from.
pub(super) enum Source {
    Alone(Box<Exchange>),
    Shared(Http2Body),
    /// A call of gRPC: its one message, where nobody has taken it.
    Called(Bytes),
}

/// An answer that still comes. Dropping it gives it up: the connection is closed, or its stream reset.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) source: Source,
    pub(super) lease: Lease<HttpConnector>,
    pub(super) trip: Trip,
    pub(super) outcome: Outcome,
    pub(super) deadlines: Deadlines,
    pub(super) started: Instant,
    /// When the request was sent that this is the answer to.
    pub(super) sent: Instant,
    /// What is waited by over HTTP/2; a connection of HTTP/1.1 has its own.
    pub(super) timer: Timer,
    /// How long the server keeps the connection when it is idle.
    pub(super) keep_alive: Option<Duration>,
    pub(super) decoding: Option<Box<Decoding>>,
    /// What has come of a body that is read as it comes, and has its coding still.
    pub(super) coded: Bytes,
}

impl Answer {
    /// Waits for the next portion of the body as it was sent, and adds it to `into`; false at its end. `due` says by when,
    /// and is asked again when that has come: it may have moved.
    async fn portion(&mut self, into: &mut Vec<u8>, due: impl Fn() -> Option<Due>) -> Result<bool> {
        let read = self.read(into, due).await;
        match &read {
            // It says nothing about the endpoint: the caller's own limit may be short.
            Err(error) if error.kind() == ErrorKind::DeadlineExceeded => {}
            Err(_) => self.trip.fail(),
            Ok(_) => {}
        }
        read
    }

    async fn read(&mut self, into: &mut Vec<u8>, due: impl Fn() -> Option<Due>) -> Result<bool> {
        match &mut self.source {
            Source::Alone(exchange) => {
                let more = if exchange.arrived.is_empty() { exchange.more(due).await } else { Ok(true) };
                // What came before a failure has come.
                if into.is_empty() {
                    std::mem::swap(into, &mut exchange.arrived);
                } else {
                    into.append(&mut exchange.arrived);
                }
                more
            }
            Source::Called(message) => {
                into.extend_from_slice(&std::mem::take(message));
                Ok(!into.is_empty())
            }
            Source::Shared(body) => {
                let (timer, endpoint) = (&mut self.timer, &self.response.endpoint);
                let next = poll_fn(|context| match body.poll_next(context) {
                    Poll::Pending => match due() {
                        Some(due) => {
                            timer.poll_until(due.at, context).map(|()| Some(Err(due.missed(endpoint))))
                        }
                        None => Poll::Pending,
                    },
                    came @ Poll::Ready(_) => came,
                });
                Ok(match next.await.transpose()? {
                    Some(portion) => {
                        into.extend_from_slice(&portion);
                        true
                    }
                    None => false,
                })
            }
        }
    }

    /// Whether all of it is there, as that of a call is.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.source, Source::Called(_))
    }

    /// Reads the body to its end; none where it has more than `limit` bytes. An error is the connection's.
    pub(super) async fn collect(&mut self, limit: usize) -> Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        if let Source::Alone(exchange) = &mut self.source {
            std::mem::swap(&mut body, &mut exchange.arrived);
            let left = exchange.left().unwrap_or(0).min(MAX_RESERVED);
            body.reserve_exact(usize::try_from(left).unwrap_or(0));
        }
        while self.read_on(&mut body, self.idle()).await? {
            if body.len() > limit {
                return Ok(None);
            }
        }
        Ok((body.len() <= limit).then_some(body))
    }

    /// Gives the connection back and the answer with its body, which was collected, without its content coding.
    pub(super) async fn finish_with(mut self: Box<Self>, body: Vec<u8>, limit: usize) -> Result<Response> {
        let decoding = self.decoding.take();
        let mut response = self.finish();
        response.body = match decoding {
            None => body.into(),
            Some(mut decoding) if body.len() > LONG_BODY => {
                let decoded = tokio::task::spawn_blocking(move || decoding.all(&body, limit));
                let failed = |error| Error::with_source(ErrorKind::Internal, "decoding a body failed", error);
                decoded.await.map_err(failed)??.into()
            }
            Some(mut decoding) => decoding.all(&body, limit)?.into(),
        };
        Ok(response)
    }

    async fn read_on(&mut self, body: &mut Vec<u8>, due: impl Fn() -> Option<Due>) -> Result<bool> {
        if let Source::Alone(exchange) = &self.source
            && exchange.is_done()
            && exchange.arrived.is_empty()
        {
            return Ok(false);
        }
        self.portion(body, due).await
    }

    /// By when the next portion must come where every byte counts.
    pub(super) fn idle(&self) -> impl Fn() -> Option<Due> + use<> {
        let (deadlines, now) = (self.deadlines, Instant::now());
        move || deadlines.idle(now)
    }

    /// Waits for the next portion of the body without its content coding, and adds it to `into`; false at its end. Where
    /// it fails, what came before is added all the same. `due` is as of [`Answer::portion`].
    pub(super) async fn next(&mut self, into: &mut Vec<u8>, due: impl Fn() -> Option<Due>) -> Result<bool> {
        let before = into.len();
        loop {
            self.decode_some(into)?;
            if into.len() > before {
                return Ok(true);
            }
            if self.decoding.is_none() {
                let goes_on = self.read_on(into, &due).await?;
                if into.len() > before || !goes_on {
                    return Ok(goes_on);
                }
                continue;
            }
            let mut portion = Vec::new();
            let read = self.read_on(&mut portion, &due).await;
            self.coded = portion.into();
            if !self.coded.is_empty() && read.is_err() {
                // The failure stands behind what came before it.
                self.decode_some(into)?;
            }
            if !read? {
                let Some(mut decoding) = self.decoding.take() else { return Ok(false) };
                decoding.end(into, usize::MAX)?;
                return Ok(into.len() > before);
            }
        }
    }

    /// Takes the coding off of what has come, until it is enough for a chunk: in small steps, for what a few bytes unfold
    /// to may be ten thousand times as long.
    fn decode_some(&mut self, into: &mut Vec<u8>) -> Result<()> {
        while let Some(decoding) = self.decoding.as_mut().filter(|_| !self.coded.is_empty()) {
            let some = self.coded.split_to(self.coded.len().min(DECODED_AT_ONCE));
            decoding.feed(&some, into, usize::MAX)?;
            if into.len() >= ENOUGH_DECODED {
                break;
            }
        }
        Ok(())
    }

    /// Lets go of an answer that is asked for again: it says something about its endpoint. Where it is whole, its
    /// connection goes on.
    pub(super) fn let_go(self: Box<Self>) {
        if self.is_whole() || matches!(&self.source, Source::Alone(exchange) if exchange.is_done()) {
            drop(self.finish());
        } else {
            let Self { trip, outcome, .. } = *self;
            trip.end(outcome);
        }
    }

    /// Gives the connection back, after the end of the body.
    pub(super) fn finish(self: Box<Self>) -> Response {
        let Self { mut response, source, lease, trip, outcome, started, keep_alive, .. } = *self;
        let reusable = match (source, lease.connection()) {
            (Source::Alone(exchange), connection) => exchange.into_socket().is_some_and(|socket| {
                connection.put(socket);
                true
            }),
            (Source::Shared(_), HttpConnection::Shared(_)) => true,
            (Source::Shared(_), HttpConnection::Alone(_)) => false,
            (Source::Called(message), _) => {
                response.body = message;
                true
            }
        };
        lease.finish(reusable, keep_alive);
        trip.end(outcome);
        response.elapsed = started.elapsed();
        response
    }
}
