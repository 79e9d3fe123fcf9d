//! One attempt: a connection of one endpoint, the request over it, and the head of its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::{StatusCode, Version};
use tokio::time::Instant;

use super::answer::{Answer, Source};
use super::connection::{HttpConnection, HttpConnector};
use super::decode::Decoding;
use super::fleet::{Endpoint, Trip, outcome_of};
use super::grpc::{self, Caller, Came, Duplex, Opened};
use super::http1::{Exchange, Lost};
use super::http2::{Http2, Inbound, SendError};
use super::request::{Deadlines, Request};
use super::response::{GrpcEnd, Response};
use super::timer::{Timer, Timers};
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

/// What a failure says about the endpoint.
fn blame(kind: ErrorKind) -> Outcome {
    match kind {
        // Nothing: the caller's own limit may be short.
        ErrorKind::AcquireTimeout | ErrorKind::Closed | ErrorKind::Config | ErrorKind::DeadlineExceeded => {
            Outcome::Cancelled
        }
        _ => Outcome::Failure,
    }
}

type Streaming = (Lease<HttpConnector>, Inbound, SendStream<Bytes>, Arc<Timers>);

/// A head, and where its body comes from.
struct Began {
    status: StatusCode,
    version: Version,
    fields: Fields,
    keep_alive: Option<Duration>,
    encoded: bool,
    /// From sending the request to the head.
    first_byte: Duration,
    /// How a call of gRPC ended.
    grpc: Option<GrpcEnd>,
    /// Whether a call ended without a status of the server's own.
    is_broken: bool,
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
            Ok((began, lease, reused)) => {
                trip.first_byte(began.first_byte);
                Ok(self.answer(began, lease, trip, reused, attempts))
            }
            Err(lost) => {
                trip.end(blame(lost.error.kind()));
                Err(lost)
            }
        }
    }

    /// Opens a stream of messages once.
    pub(super) async fn attempt_duplex(&self, trip: Trip) -> std::result::Result<Duplex, Lost> {
        match self.open_stream(&trip).await {
            Ok((lease, inbound, stream, timers)) => {
                let endpoint = trip.endpoint().map(|endpoint| Arc::clone(endpoint.label()));
                let form = self.request.grpc.as_ref();
                Ok(Duplex::new(Opened {
                    inbound,
                    stream,
                    timers,
                    lease,
                    trip,
                    deadlines: self.deadlines,
                    endpoint: endpoint.unwrap_or_else(|_| Arc::from("")),
                    first: form.map(|form| form.message.clone()).unwrap_or_default(),
                    limit: self.request.max_response,
                }))
            }
            Err(lost) => {
                trip.end(blame(lost.error.kind()));
                Err(lost)
            }
        }
    }

    async fn open_stream(&self, trip: &Trip) -> std::result::Result<Streaming, Lost> {
        let unsent = |error| Lost::new(error, true);
        let endpoint = trip.endpoint().map_err(unsent)?;
        let lease = self.lease(endpoint).await.map_err(unsent)?;
        let (Some(caller), HttpConnection::Shared(http2)) =
            (&endpoint.connector().caller, lease.connection())
        else {
            return Err(unsent(Error::new(
                ErrorKind::Internal,
                "a stream was to go over a connection of HTTP/1.1",
            )));
        };
        let now = Instant::now();
        trip.sent_at(now);
        let opened = grpc::open(http2, caller, self.request, &self.deadlines, now, endpoint.label());
        let (inbound, stream) = opened.map_err(|SendError { error, unsent, .. }| Lost::new(error, unsent))?;
        let timers = http2.timers();
        Ok((lease, inbound, stream, timers))
    }

    async fn lease(&self, endpoint: &Endpoint) -> Result<Lease<HttpConnector>> {
        match endpoint.pool.try_acquire(&self.place) {
            Some(lease) => Ok(lease),
            None => Box::pin(self.wait_for_lease(endpoint)).await,
        }
    }

    async fn over_a_connection(
        &self,
        trip: &Trip,
    ) -> std::result::Result<(Began, Lease<HttpConnector>, bool), Lost> {
        let unsent = |error| Lost::new(error, true);
        let endpoint = trip.endpoint().map_err(unsent)?;
        let lease = self.lease(endpoint).await.map_err(unsent)?;
        let reused = lease.is_reused();
        let sent = Instant::now();
        trip.sent_at(sent);
        let began = match lease.connection() {
            HttpConnection::Alone(_) => self.over_http1(endpoint, &lease, sent).await?,
            HttpConnection::Shared(http2) => match &endpoint.connector().caller {
                Some(caller) => self.over_grpc(endpoint, caller, http2).await?,
                None => Box::pin(self.over_http2(endpoint, http2, sent)).await?,
            },
        };
        Ok((began, lease, reused))
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
            return Err(Lost::new(error, true));
        };
        let HttpConnector { label, authority, .. } = endpoint.connector();
        let mut exchange = Box::new(Exchange::new(socket, self.request, authority, label));
        let came = exchange.head(self.deadlines.first(sent)).await;
        let silent = lease.is_reused() && exchange.began.is_none();
        let (head, fields) = came.map_err(|lost| Lost { silent, ..lost })?;
        Ok(Began {
            status: head.status,
            version: Version::HTTP_11,
            fields,
            keep_alive: head.keep_alive.map(|seconds| Duration::from_secs(seconds.into())),
            encoded: head.encoded,
            first_byte: sent.elapsed(),
            grpc: None,
            is_broken: false,
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
                .map_err(|_| Lost::new(due.missed(endpoint.label()), false))??,
            None => asked.await?,
        };
        Ok(Began {
            status: head.status(),
            version: Version::HTTP_2,
            encoded: head.headers().contains_key(http::header::CONTENT_ENCODING),
            fields: Fields::of_map(head.headers()),
            keep_alive: None,
            first_byte: sent.elapsed(),
            grpc: None,
            is_broken: false,
            source: Source::Shared(body),
        })
    }

    async fn over_grpc(
        &self,
        endpoint: &Endpoint,
        caller: &Caller,
        http2: &Http2,
    ) -> std::result::Result<Began, Lost> {
        let Came { end, message, fields, first_byte, is_broken } =
            grpc::call(http2, caller, self.request, &self.deadlines, endpoint.label()).await?;
        Ok(Began {
            status: StatusCode::from_u16(end.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            version: Version::HTTP_2,
            fields,
            keep_alive: None,
            encoded: false,
            first_byte,
            grpc: Some(end),
            is_broken,
            source: Source::Called(message),
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
        let Began { status, version, fields, keep_alive, encoded, grpc, is_broken, source, first_byte } =
            began;
        let decoding = (encoded && self.request.decode)
            .then(|| fields.get("content-encoding").and_then(Decoding::of).map(Box::new));
        let elapsed = self.started.elapsed();
        let target = match &self.request.grpc {
            Some(call) if grpc.is_some() => call.target().ok(),
            _ => None,
        };
        let target = target.unwrap_or_else(|| self.request.target.clone());
        let endpoint =
            trip.endpoint().map_or_else(|_| Arc::from(""), |endpoint| Arc::clone(endpoint.label()));
        let response = Response {
            status,
            version,
            fields,
            grpc,
            body: Bytes::new(),
            target,
            endpoint,
            reused,
            attempts,
            first_byte: elapsed,
            elapsed,
        };
        let code = response.grpc.as_ref().map(|end| end.code);
        let retry_after = if status.is_success() { None } else { response.retry_after() };
        let outcome = outcome_of(status.as_u16(), code, is_broken, retry_after);
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
            sent: Instant::now().checked_sub(first_byte).unwrap_or(started),
            timer: Timer::default(),
            keep_alive,
            decoding: decoding.flatten(),
            coded: Bytes::new(),
        })
    }
}
