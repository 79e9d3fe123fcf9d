//! A door, whatever its wire: from a request to its answer, within the limits.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::body::Body;

use super::access::{AccessLog, Answered, Note};
use super::answer::ReplyBody;
use super::body::{self, Refusal};
use super::deadline::Deadline;
use super::openai::{self, Call, Wanted};
use super::routes::{self, Reply, Route};
use super::security::Security;
use super::stream::Streams;
use super::terms::HeadTerms;
use super::traced::Tracing;
use super::watch::{Phase, Watch};
use super::words::Words;
use super::{Connections, HttpSettings, Service, Siblings, dashboard, grpc, infer, repository, request_id};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{DoorMetrics, InFlight, Registry, StreamMetrics};
use crate::pipeline::Endpoint;

/// Answers requests for a [`Service`], over connections or, in the same process, without one.
pub struct Door {
    pub(super) service: Arc<Service>,
    pub(super) settings: HttpSettings,
    pub(super) metrics: DoorMetrics,
    pub(super) streams: Arc<Streams>,
    pub(super) connections: Connections,
    pub(super) access_log: Option<Arc<dyn AccessLog>>,
    pub(super) security: Arc<Security>,
    pub(super) siblings: OnceLock<Siblings>,
    pub(super) tracing: OnceLock<Tracing>,
    /// Where it answers HTTP, if it does.
    pub(super) http_address: OnceLock<SocketAddr>,
}

/// Where a request came from.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// What looks after its connection, where that carries one request at a time.
    pub(super) watch: Option<&'a Watch>,
    pub(super) peer: Option<SocketAddr>,
    /// Whom the client's certificate names.
    pub(super) client: Option<&'a Arc<str>>,
    /// It came in where calls of gRPC are answered alone.
    pub(super) grpc_only: bool,
}

impl Door {
    /// A door to `service`; its counters go into `registry`, and a record of each request to `access_log`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where nothing can be served under these limits.
    pub fn new(
        service: Arc<Service>,
        settings: HttpSettings,
        access_log: Option<Arc<dyn AccessLog>>,
        registry: &Registry,
    ) -> Result<Arc<Self>> {
        Self::secured(service, settings, Security::none(), access_log, registry)
    }

    /// As [`new`](Self::new), with what it asks of those who come.
    ///
    /// # Errors
    /// As those of [`new`](Self::new).
    pub fn secured(
        service: Arc<Service>,
        settings: HttpSettings,
        security: Arc<Security>,
        access_log: Option<Arc<dyn AccessLog>>,
        registry: &Registry,
    ) -> Result<Arc<Self>> {
        settings.check()?;
        let limits = settings.stream_limits();
        service.limit_streams(&limits);
        Ok(Arc::new(Self {
            service,
            streams: Streams::new(&settings, limits.memory, StreamMetrics::new(registry)),
            settings,
            metrics: DoorMetrics::new(registry),
            connections: Connections::default(),
            access_log,
            security,
            siblings: OnceLock::new(),
            tracing: OnceLock::new(),
            http_address: OnceLock::new(),
        }))
    }

    /// Has requests recorded, from here on; the first who says so is heard.
    pub fn trace_by(&self, tracing: Tracing) {
        self.tracing.get_or_init(|| tracing);
    }

    /// Who is told of a request that is noted so.
    pub(super) fn reporter(&self, note: &Note) -> Option<&Arc<dyn AccessLog>> {
        let tracing = || self.tracing.get().filter(|_| note.is_recorded()).map(Tracing::log);
        self.access_log.as_ref().or_else(tracing)
    }

    /// Ends the streamed answers that run, with `error` as the last that is said in them.
    pub fn end_streams(&self, error: &Error) {
        self.streams.end_all(error);
    }

    /// What it serves.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Inference requests in flight.
    pub fn in_flight(&self) -> usize {
        self.metrics.in_flight()
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.count()
    }

    pub(super) fn publish_connections(&self) {
        if let Some(siblings) = self.siblings.get() {
            siblings.publish(self.connections.count());
        }
    }

    /// The count of its connections, for somebody who waits for their end.
    pub fn connection_count(&self) -> Connections {
        self.connections.clone()
    }

    /// The text of every metric of this process.
    pub fn metrics_text(&self) -> String {
        self.metrics.observe(self.connections.count());
        self.streams.observe();
        self.service.metrics()
    }

    /// Answers a request that came over no connection. Every failure is an answer, with a status and words.
    ///
    /// # Cancellation
    /// Dropping the future takes the request out of its model's queue.
    pub async fn ask<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.answer(request, Origin::default()).await
    }

    pub(super) async fn answer<B>(&self, request: Request<B>, origin: Origin<'_>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let mut note = Note {
            logged: self.access_log.is_some(),
            bytes: body.size_hint().lower(),
            client: origin.client.map(Arc::clone),
            ..Note::default()
        };
        // What asks a model is sent; probes and scrapes would only fill the traces.
        note.label(&parts.headers, self.tracing.get().filter(|_| parts.method == Method::POST));
        let began = note.logged.then(Instant::now);
        let mut body = pin!(body);
        let words = Words::of(parts.uri.path());
        let mut reply = {
            let route = pin!(self.route(&parts, words, body.as_mut(), origin, &mut note));
            guarded(route, |error| words.failure(error)).await
        };
        self.security.mark(&parts, &mut reply);
        if parts.method == Method::HEAD {
            routes::leave_out_body(&mut reply);
        }
        if parts.version < Version::HTTP_2 && !note.body_read && !body.is_end_stream() {
            Box::pin(keep_or_close(&parts, body, &mut reply)).await;
        }
        request_id::say(reply.headers_mut(), note.called());
        self.metrics.responded(reply.status().as_u16());
        self.metrics.moved(note.bytes, reply.body().size_hint().lower());
        if let Some((began, log)) = began.zip(self.reporter(&note)) {
            let boarding = note.boarding.clone();
            let mut record = note.record(&parts, origin.peer, &Answered::replied(&reply), began);
            record.logged = self.access_log.is_some();
            match reply.body_mut() {
                ReplyBody::Whole(_) => log.access(record),
                ReplyBody::Stream(body) => body.log(log, record, (began, boarding)),
            }
        }
        reply
    }

    async fn route<B>(
        &self,
        parts: &Parts,
        words: Words,
        body: B,
        origin: Origin<'_>,
        note: &mut Note,
    ) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if origin.grpc_only {
            return routes::not_here(self.http_address.get());
        }
        let route = Route::of(parts.uri.path());
        if let Some(answer) = self.keep_out(parts, words, route.as_ref(), note) {
            return *answer;
        }
        let Some(route) = route.filter(|route| self.settings.dashboard || *route != Route::Dashboard) else {
            if grpc::names_grpc(&parts.headers) {
                return words.refusal(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "grpc needs http/2");
            }
            return words.refusal(StatusCode::NOT_FOUND, "there is nothing at this path");
        };
        let fits =
            parts.method == route.method() || (parts.method == Method::HEAD && route.method() == Method::GET);
        if !fits {
            return words.wrong_method(&route);
        }
        let asked = Asked { parts, body, watch: origin.watch };
        let answer = match route {
            Route::Infer { name, version } => match self.service.model(name, version) {
                Ok(model) => {
                    note.model = Some(Arc::clone(&model));
                    self.infer(&model, asked, note).await
                }
                Err(error) => Err(error),
            },
            Route::Generate { name, version, stream } => {
                Box::pin(self.openai(Wanted::Generate { name, version, stream }, words, asked, note)).await
            }
            Route::Embeddings => Box::pin(self.openai(Wanted::Embeddings, words, asked, note)).await,
            Route::Text(form) => Box::pin(self.openai(Wanted::Text(form), words, asked, note)).await,
            Route::Metrics => {
                let text = self.metrics_text();
                Ok(routes::metrics(match self.siblings.get() {
                    Some(siblings) => Box::pin(siblings.merged(text)).await,
                    None => text,
                }))
            }
            Route::Dashboard => Ok(dashboard::page()),
            Route::Repository(wanted) => Box::pin(self.repository_asked(wanted, asked, note)).await,
            Route::Server => Ok(routes::server(self.has_repository())),
            other => routes::answer(&self.service, &other),
        };
        answer.unwrap_or_else(|error| words.failure(&error))
    }

    async fn infer<B>(&self, model: &Arc<Endpoint>, asked: Asked<'_, B>, note: &mut Note) -> Result<Reply>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let _in_flight = self.admit()?;
        let parts = asked.parts;
        let terms = head_terms(&parts.headers, note).inspect_err(|_| model.count_invalid())?;
        let body = match self.read(asked, note).await {
            Ok(body) => body,
            Err(refusal) => {
                model.count_invalid();
                return Ok(self.refuse(Words::Oip, &refusal, parts.version));
            }
        };
        infer::answer(model, &parts.headers, body, terms, self.settings.server_timing, note).await
    }

    /// Answers what asks for vectors, for text or for the steps of a model.
    async fn openai<B>(
        &self,
        wanted: Wanted<'_>,
        words: Words,
        asked: Asked<'_, B>,
        note: &mut Note,
    ) -> Result<Reply>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let in_flight = self.admit()?;
        let parts = asked.parts;
        let terms = head_terms(&parts.headers, note)?;
        let body = match self.read(asked, note).await {
            Ok(body) => body,
            Err(refusal) => return Ok(self.refuse(words, &refusal, parts.version)),
        };
        let call = Call {
            service: &self.service,
            streams: &self.streams,
            headers: &parts.headers,
            terms,
            body,
            in_flight,
            say_timing: self.settings.server_timing,
        };
        openai::answer(call, wanted, note).await
    }

    /// Answers what is asked of the model repository.
    async fn repository_asked<B>(
        &self,
        wanted: repository::Wanted<'_>,
        asked: Asked<'_, B>,
        note: &mut Note,
    ) -> Result<Reply>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let parts = asked.parts;
        match self.read(asked, note).await {
            Ok(body) => self.repository_reply(wanted, parts, body).await,
            Err(refusal) => Ok(self.refuse(Words::Oip, &refusal, parts.version)),
        }
    }

    /// The whole body of a request.
    async fn read<B>(&self, asked: Asked<'_, B>, note: &mut Note) -> std::result::Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Asked { parts, body, watch } = asked;
        let arrived = || {
            note.body_read = true;
            if let Some(watch) = watch
                && parts.version == Version::HTTP_11
            {
                watch.enter(Phase::Answering);
            }
        };
        let body = body::read(body, &parts.headers, &self.settings, arrived).await?;
        note.bytes = body.len() as u64;
        Ok(body)
    }

    /// Admits an inference request; it counts as long as what comes back lives.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] where there are `max_in_flight` already.
    pub(super) fn admit(&self) -> Result<InFlight> {
        let most = self.settings.max_in_flight;
        self.metrics.admit(most).ok_or_else(|| {
            self.metrics.refused("max_in_flight");
            let message = format!("there are max_in_flight={most} requests: try again later");
            Error::new(ErrorKind::Overloaded, message)
        })
    }

    fn refuse(&self, words: Words, refusal: &Refusal, version: Version) -> Reply {
        self.metrics.refused(refusal.reason);
        let mut reply = words.refusal(refusal.status, &refusal.message);
        if refusal.unread && version < Version::HTTP_2 {
            reply.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        reply
    }
}

/// A request to a model, before its body was read.
struct Asked<'a, B> {
    parts: &'a Parts,
    body: B,
    watch: Option<&'a Watch>,
}

/// A panic is this request's failure, which `failed` words, and not its connection's.
pub(super) async fn guarded<F: Future>(
    mut answer: Pin<&mut F>,
    failed: impl Fn(&Error) -> F::Output,
) -> F::Output {
    let guarded = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            let error = Error::new(ErrorKind::Internal, "penstock panicked: please report it");
            Poll::Ready(failed(&error))
        })
    });
    guarded.await
}

/// How a request of this head waits, and how long.
fn head_terms(headers: &HeaderMap, note: &Note) -> Result<HeadTerms> {
    let mut terms = HeadTerms::of_head(headers)?;
    terms.label(note);
    terms.default_tenant(note.key.as_ref());
    terms.give_up_at(Deadline::of_head(headers)?);
    Ok(terms)
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// An answer that did not need the body of its request: the connection is kept where little of that is left.
async fn keep_or_close<B: Body<Data = Bytes>>(parts: &Parts, body: Pin<&mut B>, reply: &mut Reply) {
    if reply.headers().contains_key(header::CONNECTION) {
        return;
    }
    // Who waits to be asked for the body must not be asked for nothing.
    let waits = parts.headers.contains_key(header::EXPECT);
    if waits || !body::read_past(body).await {
        reply.headers_mut().insert(header::CONNECTION, CLOSE);
    }
}
