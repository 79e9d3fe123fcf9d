//! A model's other end: its batches go there as one request each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::room::Going;
use super::{Room, health, refusal};
use crate::batch::Shift;
use crate::client::{
    ACCEPTED, Client, GrpcCall, Protocol, Request, RequestFields, Response, Route, Target, Timeouts,
};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Clock, Priority, TraceContext};
use crate::pipeline::{Carry, Carrying, Endpoint, Fault, Portion, Relays, Rounds, Shared, Taken, Tally};
use crate::tensor::Column;
use crate::wire::oip::{AskedRows, Encoded, ModelName, Question, ToldRows};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const HEADER_LENGTH: &str = "inference-header-content-length";

/// How a model is asked for on its other end.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// What it is called there.
    pub model: String,
    /// Its version there; none for the one that the server chooses.
    pub version: Option<String>,
    /// Where it infers over HTTP: a path of the client's own endpoints.
    pub path: String,
    /// Where it says whether it is ready.
    pub ready_path: String,
    /// Header fields of every request.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Tensors are binary data over HTTP, and JSON else.
    pub binary: bool,
    /// A request may be sent once more although the server may have seen it.
    pub idempotent: bool,
    /// Batches under way at a time at most.
    pub concurrency: usize,
    /// What one request may take.
    pub timeouts: Timeouts,
    /// Bytes that an answer may have.
    pub max_response: usize,
    /// How often the other end is asked whether it is ready; none for only when something failed.
    pub health_interval: Option<Duration>,
    /// A batch that the other end refuses is split.
    pub isolate: bool,
}

/// A model on another server, loaded.
pub struct Remote {
    settings: RemoteSettings,
    endpoint: Arc<Endpoint>,
    route: Route,
    target: Target,
    ready_target: Target,
    /// Whether any of its servers speaks HTTP, and any gRPC.
    speaks: (bool, bool),
    room: Mutex<Room>,
    doubt: Arc<Notify>,
    tally: Arc<dyn Tally>,
}

/// The task that carries a model's batches, and the one that looks after its other end.
pub struct Relayed {
    relays: Relays,
    watch: AbortHandle,
}

impl Remote {
    /// Takes a model's batches upstream from here on, until the shift is over.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for paths and fields that no request can have, [`ErrorKind::Closed`] where the client is.
    pub fn start(
        client: &Client,
        (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
        settings: RemoteSettings,
        tally: &Arc<dyn Tally>,
        runtime: &Handle,
    ) -> Result<Relayed> {
        let (route, target) = client.route(&settings.path)?;
        let (_, ready_target) = client.route(&settings.ready_path)?;
        // What no request can have is said now.
        fields_of(&settings.fields, &[])?;
        let doubt = Arc::new(Notify::new());
        let interval = settings.health_interval;
        let remote = Arc::new(Self {
            room: Mutex::new(Room::new(settings.concurrency)),
            speaks: (route.speaks(Protocol::Http), route.speaks(Protocol::Grpc)),
            endpoint: Arc::clone(&endpoint),
            settings,
            route,
            target,
            ready_target,
            doubt: Arc::clone(&doubt),
            tally: Arc::clone(tally),
        });
        endpoint.set_well(true);
        let watch = runtime.spawn(health::watch(Arc::clone(&remote), doubt, interval)).abort_handle();
        Ok(Relayed::new(Relays::start((endpoint, shift), remote, runtime), watch))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn route(&self) -> Route {
        self.route.clone()
    }

    /// The question whether it is ready, to be answered within `limit`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(super) fn question(&self, limit: Duration) -> Result<(Request, Question)> {
        let (name, version) = (self.settings.model.clone(), self.settings.version.clone());
        let question = Question::ModelReady(ModelName { name, version });
        let (http, grpc) = self.speaks;
        let call = || GrpcCall { path: question.grpc_path().into(), message: question.message() };
        let request = Request {
            http,
            grpc: grpc.then(call),
            fields: fields_of(&self.settings.fields, &[])?,
            timeouts: Timeouts { total: Some(limit), ..self.settings.timeouts },
            ..Request::new(Method::GET, self.ready_target.clone())
        };
        Ok((request, question))
    }

    /// Asks for a portion of a batch, on the terms of its requests.
    async fn ask(&self, portion: &Portion<'_>, shared: &Shared) -> std::result::Result<Vec<Column>, Fault> {
        let failed = |error| refusal::of_failure(&self.endpoint.spec.name, error);
        let request = self.request(portion, shared).map_err(failed)?;
        let response = Client::send(self.route.clone(), request).await.map_err(failed)?;
        match refusal::of_response(&response) {
            Some(fault) => Err(fault),
            None => self.read(portion, response).map_err(failed),
        }
    }

    fn request(&self, portion: &Portion<'_>, shared: &Shared) -> Result<Request> {
        let (spec, settings) = (&self.endpoint.spec, &self.settings);
        let left = shared.latest.map(|latest| latest.since(self.endpoint.clock().now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::new(ErrorKind::DeadlineExceeded, "no time was left to ask the upstream"));
        }
        let asked = AskedRows {
            inputs: &spec.inputs,
            outputs: &spec.outputs,
            columns: portion.rows.columns(),
            rows: portion.range.clone(),
            timeout: left,
        };
        let (http, grpc) = self.speaks;
        let body = if http { Some(asked.encode(settings.binary)?) } else { None };
        let call = || GrpcCall {
            path: MODEL_INFER.into(),
            message: asked.to_message(&settings.model, settings.version.as_deref()),
        };
        let fields = Fields::of(left, shared, body.as_ref());
        let total = settings.timeouts.total.into_iter().chain(left).min();
        Ok(Request {
            http,
            grpc: grpc.then(call),
            fields: fields_of(&settings.fields, &fields.named())?,
            body: body.map_or_else(Bytes::new, |body| body.body.into()),
            timeouts: Timeouts { total, ..settings.timeouts },
            idempotent: settings.idempotent,
            max_response: settings.max_response,
            ..Request::new(Method::POST, self.target.clone())
        })
    }

    fn read(&self, portion: &Portion<'_>, response: Response) -> Result<Vec<Column>> {
        let outputs = &self.endpoint.spec.outputs;
        let told = ToldRows { outputs, count: portion.range.len(), spares: portion.spares };
        if response.grpc.is_some() {
            return told.of_message(response.body);
        }
        let length = response.fields.get(HEADER_LENGTH).map(|length| {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.trim().parse().ok());
            length.ok_or_else(|| {
                Error::new(ErrorKind::ProtocolError, "inference-header-content-length is no number of bytes")
            })
        });
        told.of_body(&response.body, length.transpose()?)
    }

    /// Has the other end looked at where a failure says something of it.
    fn consider(&self, fault: &Fault) {
        if health::raises_doubt(fault.error.kind()) {
            self.doubt.notify_one();
        }
    }
}

impl Carry for Remote {
    fn carry(self: Arc<Self>, taken: Taken) -> Carrying {
        Box::pin(async move {
            let count = taken.0.entries.len();
            let place = InRoom { room: &self.room, going: self.room.lock().begin() };
            let mut rounds = Rounds::new(&self.endpoint, taken, self.settings.isolate, &self.tally);
            let shared = rounds.shared();
            let mut went_well = None;
            while let Some(rows) = rounds.next_rows() {
                let began = Instant::now();
                let (portion, leaving) = rounds.watched(rows.clone());
                let told = tokio::select! {
                    biased;
                    told = self.ask(&portion, &shared) => Some(told),
                    // The request is dropped, and its server told so.
                    () = leaving => None,
                };
                let Some(told) = told else {
                    let error = Error::new(ErrorKind::Closed, "nobody waits for this answer any more");
                    return rounds.give_up(&error);
                };
                let took = began.elapsed();
                match &told {
                    Ok(_) if rows.len() == count => went_well = Some(took),
                    Ok(_) => {}
                    Err(fault) => self.consider(fault),
                }
                rounds.computed(rows, took, told);
            }
            place.end(count, went_well);
            rounds.finish();
        })
    }

    fn room(&self) -> usize {
        self.room.lock().limit()
    }
}

/// A batch's place in the room, given back when it is dropped.
struct InRoom<'a> {
    room: &'a Mutex<Room>,
    going: Going,
}

impl InRoom<'_> {
    fn end(self, rows: usize, took: Option<Duration>) {
        self.room.lock().end(self.going, rows, took);
        std::mem::forget(self);
    }
}

impl Drop for InRoom<'_> {
    fn drop(&mut self) {
        self.room.lock().end(self.going, 0, None);
    }
}

impl Relayed {
    pub(super) fn new(relays: Relays, watch: AbortHandle) -> Self {
        Self { relays, watch }
    }

    /// Ends the shift and waits until what was taken is answered; answers whether it was within `limit`. What was not is
    /// given up, and its servers told so.
    pub fn end(&self, limit: Duration) -> bool {
        let in_time = self.relays.end(limit);
        self.watch.abort();
        in_time
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Values of the header fields that one batch has of its own.
struct Fields<'a> {
    seconds: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<&'a str>,
    priority: Option<&'static str>,
    tenant: Option<&'a str>,
    content_type: Option<&'static str>,
    /// The length of the JSON of a body, where binary data follows.
    header_length: Option<String>,
}

impl<'a> Fields<'a> {
    fn of(left: Option<Duration>, shared: &'a Shared, body: Option<&Encoded>) -> Self {
        let trace = shared.trace.as_ref();
        // What everybody has by default need not be said.
        let priority = shared.priority.filter(|priority| *priority != Priority::default());
        Self {
            seconds: left.map(|left| format!("{:.6}", left.as_secs_f64())),
            traceparent: trace.map(TraceContext::header),
            tracestate: trace.and_then(|trace| trace.state.as_deref()),
            priority: priority.map(Priority::name),
            tenant: shared.tenant.as_deref(),
            content_type: body.map(|body| match body.header_length {
                Some(_) => "application/octet-stream",
                None => "application/json",
            }),
            header_length: body.and_then(|body| body.header_length).map(|length| length.to_string()),
        }
    }

    fn named(&self) -> SmallVec<[(&str, &str); 8]> {
        let named = [
            ("content-type", self.content_type),
            (HEADER_LENGTH, self.header_length.as_deref()),
            ("x-request-timeout", self.seconds.as_deref()),
            ("traceparent", self.traceparent.as_deref()),
            ("tracestate", self.tracestate),
            ("x-request-priority", self.priority),
            ("x-request-tenant", self.tenant),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The fields of a request: its own, and those of every one.
fn fields_of(every: &[(Vec<u8>, Vec<u8>)], own: &[(&str, &str)]) -> Result<RequestFields> {
    // To pack and unpack numbers costs more than to send them.
    let every = every.iter().map(|(name, value)| {
        let is_usual = value == ACCEPTED.as_bytes() && name.eq_ignore_ascii_case(b"accept-encoding");
        (name.as_slice(), if is_usual { b"identity".as_slice() } else { value.as_slice() })
    });
    let own = own.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    RequestFields::new(&own, every)
}
