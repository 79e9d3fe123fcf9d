//! A model's other end: its batches go there as one request each.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::about::About;
use super::room::Going;
use super::{Room, health, refusal};
use crate::batch::Shift;
use crate::client::{
    ACCEPTED, Client, GrpcCall, Protocol, Request, RequestFields, Response, Route, Target, Timeouts,
};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Clock, offload};
use crate::pipeline::{
    Carry, Carrying, Endpoint, Fault, ModelSpec, Portion, Relays, Rounds, Shared, Taken, Tally,
};
use crate::tensor::{Column, Rows};
use crate::wire::oip::{AskedRows, Encoded, ModelName, Question, ToldRows};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// So many bytes are copied while one is written as text, or read.
const COPIES: usize = 8;
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
        let request = self.request(portion, shared).await.map_err(failed)?;
        let response = Client::send(self.route.clone(), request).await.map_err(failed)?;
        match refusal::of_response(&response) {
            Some(fault) => Err(fault),
            None => self.read(portion, response).await.map_err(failed),
        }
    }

    async fn request(&self, portion: &Portion<'_>, shared: &Shared) -> Result<Request> {
        let settings = &self.settings;
        let about = About::of(shared, self.endpoint.clock().now());
        if about.left.is_some_and(|left| left.is_zero()) {
            return Err(Error::new(ErrorKind::DeadlineExceeded, "no time was left to ask the upstream"));
        }
        let (body, message) = self.written(portion, about.left).await?;
        // Writing may have taken its time.
        let about = About::of(shared, self.endpoint.clock().now());
        let header_length =
            body.as_ref().and_then(|body| body.header_length).map(|length| length.to_string());
        let mut fields = about.fields();
        if body.is_some() {
            fields.push(match &header_length {
                Some(_) => ("content-type", "application/octet-stream"),
                None => ("content-type", "application/json"),
            });
        }
        fields.extend(header_length.as_deref().map(|length| (HEADER_LENGTH, length)));
        let total = settings.timeouts.total.into_iter().chain(about.left).min();
        Ok(Request {
            http: self.speaks.0,
            grpc: message.map(|message| GrpcCall { path: MODEL_INFER.into(), message }),
            fields: fields_of(&settings.fields, &fields)?,
            body: body.map_or_else(Bytes::new, |body| body.body.into()),
            timeouts: Timeouts { total, ..settings.timeouts },
            idempotent: settings.idempotent,
            max_response: settings.max_response,
            ..Request::new(Method::POST, self.target.clone())
        })
    }

    /// What is asked, as its server may be told it: over HTTP, and over gRPC. Large bodies are written elsewhere than on the
    /// thread that all connections share.
    async fn written(
        &self,
        portion: &Portion<'_>,
        timeout: Option<Duration>,
    ) -> Result<(Option<Encoded>, Option<Bytes>)> {
        let (http, grpc) = self.speaks;
        let (spec, rows) = (Arc::clone(&self.endpoint.spec), Arc::clone(portion.rows));
        let (range, binary) = (portion.range.clone(), self.settings.binary);
        let ahead = asked(&spec, &rows, range.clone(), timeout).size_ahead(binary || !http);
        let work = if binary || !http { ahead / COPIES } else { ahead };
        let name = grpc.then(|| (self.settings.model.clone(), self.settings.version.clone()));
        offload::run(work, move || {
            let asked = asked(&spec, &rows, range, timeout);
            let body = if http { Some(asked.encode(binary)?) } else { None };
            Ok((body, name.map(|(model, version)| asked.to_message(&model, version.as_deref()))))
        })
        .await
    }

    async fn read(&self, portion: &Portion<'_>, response: Response) -> Result<Vec<Column>> {
        let (spec, spares) = (Arc::clone(&self.endpoint.spec), Arc::clone(portion.spares));
        let count = portion.range.len();
        if response.grpc.is_some() {
            // Raw tensors are copied, at most.
            return ToldRows { outputs: &spec.outputs, count, spares: &spares }.of_message(response.body);
        }
        let length = response.fields.get(HEADER_LENGTH).map(|length| {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.trim().parse().ok());
            length.ok_or_else(|| {
                Error::new(ErrorKind::ProtocolError, "inference-header-content-length is no number of bytes")
            })
        });
        let (length, body) = (length.transpose()?, response.body);
        let work = if length.is_some() { body.len() / COPIES } else { body.len() };
        offload::run(work, move || {
            ToldRows { outputs: &spec.outputs, count, spares: &spares }.of_body(&body, length)
        })
        .await
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

    fn usual_room(&self) -> usize {
        self.room.lock().usual()
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

fn asked<'a>(
    spec: &'a ModelSpec,
    rows: &'a Rows,
    range: Range<usize>,
    timeout: Option<Duration>,
) -> AskedRows<'a> {
    let (inputs, outputs, columns) = (&*spec.inputs, &*spec.outputs, rows.columns());
    AskedRows { inputs, outputs, columns, rows: range, timeout }
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
