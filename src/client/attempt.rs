//! One attempt: a connection of one endpoint, the request over it, and the head of its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use tokio::time::Instant;

use super::answer::{Answer, Source};
use super::connection::{HttpConnection, HttpConnector};
use super::decode::Decoding;
use super::fleet::{Endpoint, Trip};
use super::http1::{Exchange, Lost};
use super::http2::Http2;
use super::request::{Deadlines, Request};
use super::response::Response;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Lease, Outcome, Place};
use crate::wire::http1::Fields;

/// What all attempts of a request have in common.
pub(super) struct Errand<'a> {
    pub(super) request: &'a Request,
    pub(super) deadlines: Deadlines,
    pub(super) started: Instant,
    pub(super) place: Place,
}

/// A head, and where its body comes from.
struct Began {
    status: http::StatusCode,
    version: Version,
    fields: Fields,
    keep_alive: Option<Duration>,
    encoded: bool,
    source: Source,
}

impl<'a> Errand<'a> {
    pub(super) fn new(request: &'a Request, place: Place) -> Self {
        let started = Instant::now();
        Self { request, deadlines: Deadlines::new(request.timeouts, started), started, place }
    }

    /// Sends the request once.
    pub(super) async fn attempt(&self, trip: Trip, attempts: u32) -> std::result::Result<Box<Answer>, Lost> {
        match self.over_a_connection(&trip).await {
            Ok((began, lease, reused, first_byte)) => {
                trip.first_byte(first_byte);
                Ok(self.answer(began, lease, trip, reused, attempts))
            }
            Err(lost) => {
                let outcome = match lost.error.kind() {
                    // These say nothing about the endpoint: the caller's own limit may be short.
                    ErrorKind::AcquireTimeout
                    | ErrorKind::Closed
                    | ErrorKind::Config
                    | ErrorKind::DeadlineExceeded => Outcome::Cancelled,
                    _ => Outcome::Failure,
                };
                trip.end(outcome);
                Err(lost)
            }
        }
    }

    async fn over_a_connection(
        &self,
        trip: &Trip,
    ) -> std::result::Result<(Began, Lease<HttpConnector>, bool, Duration), Lost> {
        let unsent = |error| Lost { error, unsent: true };
        let endpoint = trip.endpoint().map_err(unsent)?;
        let lease = match endpoint.pool.try_acquire(&self.place) {
            Some(lease) => lease,
            None => Box::pin(self.wait_for_lease(endpoint)).await.map_err(unsent)?,
        };
        let reused = lease.is_reused();
        let sent = Instant::now();
        let began = match lease.connection() {
            HttpConnection::Alone(_) => self.over_http1(endpoint, &lease, sent).await?,
            HttpConnection::Shared(http2) => Box::pin(self.over_http2(endpoint, http2, sent)).await?,
        };
        Ok((began, lease, reused, sent.elapsed()))
    }

    async fn wait_for_lease(&self, endpoint: &Endpoint) -> Result<Lease<HttpConnector>> {
        let due = self.deadlines.acquired(Instant::now());
        let acquired = endpoint.pool.acquire(due.map(|due| due.at), self.place.clone()).await;
        acquired.map_err(|error| match due {
            // The pool has a limit of its own, which it names itself.
            Some(due) if error.kind() == ErrorKind::AcquireTimeout && due.at <= Instant::now() => {
                let missed = due.missed(endpoint.label());
                Error::with_source(missed.kind(), missed.message(), error)
            }
            _ => error,
        })
    }

    async fn over_http1(
        &self,
        endpoint: &Endpoint,
        lease: &Lease<HttpConnector>,
        sent: Instant,
    ) -> std::result::Result<Began, Lost> {
        let Some(socket) = lease.connection().take() else {
            let error = Error::new(ErrorKind::Internal, "a connection was lent without its socket");
            return Err(Lost { error, unsent: true });
        };
        let HttpConnector { label, authority, .. } = endpoint.connector();
        let mut exchange = Box::new(Exchange::new(socket, self.request, authority, label));
        let (head, fields) = exchange.head(self.deadlines.first(sent)).await?;
        Ok(Began {
            status: head.status,
            version: Version::HTTP_11,
            fields,
            keep_alive: head.keep_alive.map(|seconds| Duration::from_secs(seconds.into())),
            encoded: head.encoded,
            source: Source::Alone(exchange),
        })
    }

    async fn over_http2(
        &self,
        endpoint: &Endpoint,
        http2: &Http2,
        sent: Instant,
    ) -> std::result::Result<Began, Lost> {
        let asked = endpoint.connector().over_http2(http2, self.request);
        let (head, body) = match self.deadlines.first(sent) {
            Some(due) => tokio::time::timeout_at(due.at, asked)
                .await
                .map_err(|_| Lost { error: due.missed(endpoint.label()), unsent: false })??,
            None => asked.await?,
        };
        Ok(Began {
            status: head.status(),
            version: Version::HTTP_2,
            encoded: head.headers().contains_key(http::header::CONTENT_ENCODING),
            fields: Fields::of_map(head.headers()),
            keep_alive: None,
            source: Source::Shared(body),
        })
    }

    fn answer(
        &self,
        began: Began,
        lease: Lease<HttpConnector>,
        mut trip: Trip,
        reused: bool,
        attempts: u32,
    ) -> Box<Answer> {
        let Began { status, version, fields, keep_alive, encoded, source } = began;
        let decoding = (encoded && self.request.decode)
            .then(|| fields.get("content-encoding").and_then(Decoding::of).map(Box::new));
        let elapsed = self.started.elapsed();
        let endpoint =
            trip.endpoint().map_or_else(|_| Arc::from(""), |endpoint| Arc::clone(endpoint.label()));
        let response = Response {
            status,
            version,
            fields,
            grpc: None,
            body: Bytes::new(),
            target: self.request.target.clone(),
            endpoint,
            reused,
            attempts,
            first_byte: elapsed,
            elapsed,
        };
        let outcome = match status.as_u16() {
            429 | 503 => Outcome::Overloaded(response.retry_after()),
            502 | 504 => Outcome::Failure,
            _ => Outcome::Success,
        };
        if outcome != Outcome::Success {
            trip.is_to_blame(outcome);
        }
        let (deadlines, started) = (self.deadlines, self.started);
        Box::new(Answer {
            response,
            source,
            lease,
            trip,
            outcome,
            deadlines,
            started,
            keep_alive,
            decoding: decoding.flatten(),
            coded: Bytes::new(),
        })
    }
}
