//! The native half of `penstock.Server`: endpoints, a door, and how they close.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tokio::runtime::Handle;

use super::bridge::lifecycle::generation;
use super::bridge::{lock, stock};
use super::errors::{raised, to_python};
use super::inside::NativePipeline;
use super::journal::NativeJournal;
use super::models::NativeModelCache;
use super::policy::Policy;
use super::polls::PollDesk;
use super::recording::NativeRecording;
use super::records;
use super::roster::Roster;
use super::security::Guards;
use super::shift::{NativeShift, Served};
use super::switches::Switches;
use super::{in_process, inherited};
use crate::batch::{BatchAccount, BatchPolicy};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::flow::SlowReader;
use crate::metrics::{LockCounts, Registry};
use crate::models::Cache;
use crate::pipeline::{ModelSpec, Passing, Task};
use crate::runtime;
use crate::serve::{
    AccessLog, Door, HttpServer, HttpSettings, Polls, RepositoryAccess, Security, Service, Tracing, listen,
};
use crate::tensor::TensorSpec;

/// A name, an element type and the axes of one row.
type Tensor = (String, String, Vec<i64>);

/// What a server needs to know of a model.
#[derive(FromPyObject)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) version: String,
    task: String,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    policy: Policy,
    workers: usize,
    /// It answers step by step.
    steps: bool,
    /// What is passed on as it came; nothing where the model is none of another server.
    passing: String,
    /// A batch holds one request.
    alone: bool,
}

/// What a queue of a model needs to know beside its specification.
pub(crate) struct ModelTerms {
    pub(crate) workers: usize,
    pub(crate) steps: bool,
    pub(crate) isolate: bool,
    pub(crate) max_size: usize,
    pub(crate) single_flight: bool,
    pub(crate) passing: Option<Passing>,
}

/// What a server's door is to allow; times in seconds.
#[derive(FromPyObject)]
pub(crate) struct Limits {
    max_body: usize,
    max_head: usize,
    max_connections: usize,
    max_in_flight: usize,
    max_streams: u32,
    header_timeout: f64,
    body_timeout: f64,
    idle_timeout: f64,
    server_timing: bool,
    keep_alive: f64,
    compression: String,
    stream_window: usize,
    stream_memory: usize,
    slow_reader: String,
    dashboard: bool,
    repository: String,
}

/// Time for the clients of answers that are cut short to hear of it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How often a wait looks for signals.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
const FOREVER: Duration = Duration::from_hours(8760);

/// Where a server is reached.
#[derive(FromPyObject)]
pub(crate) enum Place {
    /// By a socket that listens, of which this is the descriptor; it becomes the server's.
    #[pyo3(transparent)]
    Listener(i32),
    /// At a host and a port.
    #[pyo3(transparent)]
    Address((String, u16)),
}

/// Models, and the cache that they live in, where each is registered.
type Stock = (Vec<Model>, Py<NativeModelCache>);

/// For HTTP and gRPC, and for gRPC alone.
type Places = (Option<Place>, Option<Place>);

/// The native half of `penstock.Server`, which documents it.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeServer {
    roster: Arc<Roster>,
    /// Who looks for models that are new, where somebody is to.
    polls: Arc<Polls>,
    door: Arc<Door>,
    security: Arc<Security>,
    /// None where it is reached from within the process only.
    http: OnceLock<HttpServer>,
    /// What listens for gRPC alone, if something does.
    grpc: OnceLock<HttpServer>,
    born: u64,
    closed: Mutex<bool>,
}

/// An answer, for Python: status, headers, body, and the class of the error that it stands for.
type Answer<'py> = (u16, Vec<(String, Bound<'py, PyBytes>)>, Bound<'py, PyBytes>, Option<&'static str>);

#[pymethods]
impl NativeServer {
    /// Opens the door at `places`, a second way in for gRPC alone included, or none; every model says "not ready" until a shift of it begins. Connections wait in the kernel
    /// until `accept`, unless `accepting`. With `siblings`, a directory and a worker's name, `/metrics` answers for all who
    /// share the directory.
    #[new]
    #[pyo3(signature = (stock, *, places, accepting, limits, security, switches, journal, siblings=None))]
    #[allow(clippy::too_many_arguments, reason = "each is an object of its own in python")]
    fn new(
        py: Python<'_>,
        stock: Stock,
        places: Places,
        accepting: bool,
        limits: Limits,
        security: Guards,
        switches: Switches,
        journal: Option<PyRef<'_, NativeJournal>>,
        siblings: Option<(String, String)>,
    ) -> PyResult<Self> {
        let (models, cache) = (stock.0, stock.1.get().cache(py)?);
        let access_log = journal.map(|journal| journal.access_log());
        let opened = limits
            .into_settings()
            .map(|settings| HttpSettings { streaming: switches.stream, ..settings })
            .and_then(|settings| {
                Self::open((models, cache), places, accepting, (settings, security), access_log)
            });
        let joined = opened.and_then(|server| {
            if let Some((directory, name)) = siblings {
                server.door.join_siblings(Path::new(&directory), &name, &runtime::handle()?)?;
            }
            Ok(server)
        });
        joined.map_err(|error| to_python(py, &error))
    }

    /// Has requests, and the batches that they ride in, recorded for their traces: those that their senders record, and this
    /// share of those that come without a trace, up to so many a second. It is said before anybody can come.
    fn trace_by(&self, journal: &Bound<'_, NativeJournal>, ratio: f64, limit: u32) {
        let journal = journal.get();
        self.door.trace_by(Tracing::new(journal.access_log(), ratio, limit));
        self.roster.trace_by(&journal.batch_log());
    }

    /// Has the metrics say how many records of that journal were dropped.
    fn count_dropped(&self, journal: &Bound<'_, NativeJournal>) {
        let journal = journal.get();
        let help = "Log records and spans that were dropped because their reader was too slow.";
        let dropped = journal.counter();
        self.door.service().registry().count_elsewhere("log_dropped", help, dropped);
    }

    /// Says "not ready", and goes on answering whoever comes.
    fn begin_leave(&self) {
        if !self.is_foreign() {
            self.door.service().begin_leave();
        }
    }

    /// Accepts connections, where it did not yet.
    fn accept(&self) {
        self.listeners().for_each(HttpServer::accept);
    }

    /// Leaves what comes to the other processes on the same socket, for so many seconds at most: each connection ends with
    /// its next answer. Answers whether nobody is connected any more.
    fn hand_over(&self, py: Python<'_>, limit: f64) -> bool {
        let limit = Duration::try_from_secs_f64(limit).unwrap_or_default();
        self.listeners().for_each(HttpServer::hand_over);
        let connections = self.door.connection_count();
        lock::without(py, &LockCounts::new(), || connections.wait_none(limit))
    }

    /// Reads the files of certificates and keys again; answers whether anything has changed.
    fn reload_security(&self, py: Python<'_>) -> PyResult<bool> {
        let reloaded = lock::without(py, &LockCounts::new(), || self.security.reload());
        reloaded.map_err(|error| to_python(py, &error))
    }

    /// Answers a request that comes from within the process, over the same path as those from the network.
    fn request<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        path: &str,
        headers: Vec<(String, Vec<u8>)>,
        body: Vec<u8>,
    ) -> PyResult<Answer<'py>> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| raised(py, ErrorKind::Config, &format!("this is no http request: {error}")))?;
        let door = Arc::clone(&self.door);
        let (parts, body) = in_process::ask(py, async move {
            let (parts, body) = door.ask(request).await.into_parts();
            // It cannot fail.
            (parts, body.collect().await.map(Collected::to_bytes).unwrap_or_default())
        })?;
        let headers = parts.headers.iter();
        let headers = headers
            .map(|(name, value)| (name.as_str().to_owned(), PyBytes::new(py, value.as_bytes())))
            .collect();
        let error = parts.extensions.get::<ErrorKind>().map(|kind| kind.meaning().class);
        Ok((parts.status.as_u16(), headers, PyBytes::new(py, &body), error))
    }

    /// Opens the door of a server that is reached from within the process only, and accepts connections. Once.
    fn listen(&self, py: Python<'_>, places: Places) -> PyResult<()> {
        let opened = runtime::handle().and_then(|runtime| self.open_places(places, true, &runtime));
        opened.map_err(|error| to_python(py, &error))
    }

    /// The way in for callers of this process.
    fn inside(&self, py: Python<'_>) -> PyResult<NativePipeline> {
        NativePipeline::new(&self.door).map_err(|error| to_python(py, &error))
    }

    /// The workers of one load of model `index`, which are yet to come.
    fn shift(&self, py: Python<'_>, index: usize) -> PyResult<NativeShift> {
        self.served(py, index).map(NativeShift::new)
    }

    /// Opens the queue of one more model, which the cache has already, and gives its number. Nobody finds it yet.
    fn add_model(&self, py: Python<'_>, model: Model) -> PyResult<usize> {
        let opened = self.roster.open(vec![model]).map_err(|error| to_python(py, &error))?;
        opened.first().copied().ok_or_else(|| raised(py, ErrorKind::Internal, "no queue was opened"))
    }

    /// Lets requests find model `index`.
    fn publish(&self, py: Python<'_>, index: usize) -> PyResult<()> {
        self.roster.publish(index).map_err(|error| to_python(py, &error))
    }

    /// Lets requests find model `index` in place of model `old`, from one request to the next.
    fn succeed(&self, py: Python<'_>, old: usize, index: usize) -> PyResult<()> {
        self.roster.succeed(old, index).map_err(|error| to_python(py, &error))
    }

    /// Lets requests find model `index` no more; those who had found it are answered.
    fn withdraw(&self, index: usize) {
        self.roster.withdraw(index);
    }

    /// Waits until all who had found model `index` have their answers, at most so many seconds; answers whether that came.
    fn drain(&self, py: Python<'_>, index: usize, limit: f64) -> PyResult<bool> {
        let until = Instant::now() + Duration::try_from_secs_f64(limit).unwrap_or(FOREVER);
        loop {
            let look = until.min(Instant::now() + SIGNAL_CHECK);
            if lock::without(py, &LockCounts::new(), || self.roster.drain(index, look)) {
                return Ok(true);
            }
            py.check_signals()?;
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// Forgets model `index`: what waits for it is refused, and what runs is answered. Its number is not used again.
    fn remove_model(&self, index: usize) {
        self.roster.remove(index);
    }

    /// What metrics and statistics call model `index`; nothing where it is not there any more.
    fn label(&self, index: usize) -> Option<String> {
        self.roster.label(index)
    }

    /// Says "not ready" as long as models that are to be there from the start are on their way.
    fn set_starting(&self, starting: bool) {
        self.door.service().set_starting(starting);
    }

    /// Has calls wait for a look at what is new before they list or load models; gives what hears of them.
    fn begin_polls(&self) -> PollDesk {
        self.door.service().poll_by(&self.polls);
        PollDesk::new(&self.polls)
    }

    /// Waits for all worker processes to end, and kills those that have not after `limit` seconds.
    fn end_processes(&self, py: Python<'_>, limit: f64) {
        if self.is_foreign() {
            return;
        }
        let end = Instant::now() + Duration::try_from_secs_f64(limit).unwrap_or(Duration::ZERO);
        lock::without(py, &LockCounts::new(), || {
            for served in self.roster.all() {
                served.end_processes(end);
            }
        });
    }

    /// The numbers of the worker processes of model `index` that run now.
    fn process_numbers(&self, index: usize) -> Vec<u32> {
        self.roster.served(index).map(|served| served.process_numbers()).unwrap_or_default()
    }

    /// Writes what comes to model `index`, and how long it takes, into a file.
    #[allow(clippy::needless_pass_by_value, reason = "a path comes from Python by value")]
    fn begin_record(&self, py: Python<'_>, index: usize, path: PathBuf) -> PyResult<NativeRecording> {
        let recorder =
            self.served(py, index)?.endpoint.record(&path).map_err(|error| to_python(py, &error))?;
        Ok(NativeRecording::new(recorder))
    }

    /// Host and port that it listens on, if it does.
    #[getter]
    fn address(&self) -> Option<(String, u16)> {
        self.http.get().map(shown)
    }

    /// Host and port that it listens on for gRPC alone, if it does.
    #[getter]
    fn grpc_address(&self) -> Option<(String, u16)> {
        self.grpc.get().map(shown)
    }

    /// True where every model can answer.
    #[getter]
    fn ready(&self) -> bool {
        self.door.service().is_ready()
    }

    /// Connections that are open.
    #[getter]
    fn connections(&self) -> usize {
        self.door.connections()
    }

    /// The text of every metric.
    fn metrics(&self) -> String {
        self.door.metrics_text()
    }

    /// Counters of every model, by its name, and its version where it has several.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for served in self.roster.all() {
            let stats = served.endpoint.stats();
            let totals = served.endpoint.history().totals();
            let counters = served.counters.shown(py, &stats, &totals, &served.endpoint.locks)?;
            counters.set_item("shared", served.endpoint.shared())?;
            all.set_item(&served.label, counters)?;
        }
        Ok(all)
    }

    /// What there is to say of the last batches of a model that carried a request of that name, or any.
    #[pyo3(signature = (model, request_id, last))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        model: &str,
        request_id: Option<&str>,
        last: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        // The last of that label: one that replaces another has it, too.
        let served = self.roster.all().into_iter().rev().find(|served| served.label == model);
        let endpoint = served
            .ok_or_else(|| raised(py, ErrorKind::ModelNotFound, &format!("there is no model '{model}'")))?
            .endpoint;
        let carried =
            |batch: &BatchAccount| request_id.is_none_or(|wanted| batch.ids.iter().any(|id| **id == *wanted));
        records::shown(py, &endpoint.history().last(last, carried), endpoint.clock())
    }

    /// Stops accepting, answers what was accepted (or refuses what waits, without `drain`), at most `limit` seconds;
    /// answers whether all of it ended in time. Safe to call twice.
    fn close(&self, py: Python<'_>, drain: bool, limit: f64) -> bool {
        if self.is_foreign() {
            return true;
        }
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(FOREVER);
        let closing = self.closing(drain, limit);
        lock::without(py, &LockCounts::new(), closing)
    }

    /// As `close`, awaitable.
    fn close_async<'py>(&self, py: Python<'py>, drain: bool, limit: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(FOREVER);
        stock::blocking(py, self.closing(drain, limit))
    }
}

impl NativeServer {
    fn open(
        (models, cache): (Vec<Model>, Cache),
        places: Places,
        accepting: bool,
        (settings, guards): (HttpSettings, Guards),
        access_log: Option<Arc<dyn AccessLog>>,
    ) -> CoreResult<Self> {
        let runtime = runtime::handle()?;
        let registry = Arc::new(Registry::new());
        let service = Service::new(Vec::new(), Arc::clone(&registry))?;
        service.keep_models_in(&cache, &runtime);
        let roster = Roster::new(cache, Arc::clone(&registry), Arc::clone(&service), runtime.clone());
        roster.open(models)?.into_iter().try_for_each(|index| roster.publish(index))?;
        let security = guards.open(&registry)?;
        let door = Door::secured(service, settings, Arc::clone(&security), access_log, &registry)?;
        let (roster, polls, closed) = (Arc::new(roster), Arc::default(), Mutex::new(false));
        let (http, grpc) = (OnceLock::new(), OnceLock::new());
        let server = Self { roster, polls, door, security, http, grpc, born: generation(), closed };
        server.open_places(places, accepting, &runtime)?;
        Ok(server)
    }

    fn open_places(&self, (place, grpc_place): Places, accepting: bool, runtime: &Handle) -> CoreResult<()> {
        // Both before either is opened: where the second cannot be listened on, nobody has come in by the first.
        let (place, grpc_place) =
            (place.map(Place::listener).transpose()?, grpc_place.map(Place::listener).transpose()?);
        let closed = self.closed.lock();
        if *closed || (place.is_some() && self.http.get().is_some()) {
            let why = if *closed { "this server was closed" } else { "this server listens already" };
            return Err(Error::new(if *closed { ErrorKind::Closed } else { ErrorKind::Config }, why));
        }
        if let Some(listener) = place {
            let http = HttpServer::open(listener, Arc::clone(&self.door), accepting, runtime)?;
            self.http.get_or_init(|| http);
        }
        if let Some(listener) = grpc_place {
            let grpc = HttpServer::open_grpc(listener, Arc::clone(&self.door), accepting, runtime)?;
            self.grpc.get_or_init(|| grpc);
        }
        Ok(())
    }

    fn listeners(&self) -> impl Iterator<Item = &HttpServer> {
        self.http.get().into_iter().chain(self.grpc.get())
    }

    fn served(&self, py: Python<'_>, index: usize) -> PyResult<Served> {
        self.roster.served(index).map_err(|error| to_python(py, &error))
    }

    /// True in a child that was forked after this server was made: its threads are the parent's.
    fn is_foreign(&self) -> bool {
        self.born != generation()
    }

    /// Says "not ready", and stops accepting.
    fn begin_close(&self) {
        self.door.service().begin_close();
        self.polls.close();
        self.listeners().for_each(HttpServer::begin_close);
    }

    fn closing(&self, drain: bool, limit: Duration) -> impl FnOnce() -> bool + Send + use<> {
        let first = !std::mem::replace(&mut *self.closed.lock(), true);
        let roster = Arc::clone(&self.roster);
        if first {
            self.begin_close();
        }
        let door = Arc::clone(&self.door);
        let connections = door.connection_count();
        move || {
            let end = Instant::now() + limit;
            let left = || end.saturating_duration_since(Instant::now());
            let endpoints: Vec<_> = roster.close().into_iter().map(|served| served.endpoint).collect();
            if !drain {
                for endpoint in &endpoints {
                    endpoint.close(false);
                }
            }
            // Whoever is connected may still be sending: the queues close when the connections have ended.
            let quiet = connections.wait_none(left());
            if !quiet {
                let message = format!("the server closes, and drain_timeout={limit:?} has passed");
                door.end_streams(&Error::new(ErrorKind::Closed, message));
                connections.wait_none(LAST_WORDS);
            }
            for endpoint in &endpoints {
                endpoint.close(drain);
            }
            let idle = endpoints.iter().all(|endpoint| endpoint.wait_idle(left()));
            for endpoint in &endpoints {
                // Whoever still waits does so in vain: the workers leave.
                endpoint.close(drain && idle);
                endpoint.set_ready(false);
            }
            quiet && idle
        }
    }
}

impl Drop for NativeServer {
    fn drop(&mut self) {
        if self.is_foreign() {
            return;
        }
        self.begin_close();
        for served in self.roster.close() {
            served.endpoint.close(true);
        }
    }
}

impl Place {
    fn listener(self) -> CoreResult<TcpListener> {
        match self {
            Self::Listener(descriptor) => Ok(inherited::listener(descriptor)),
            Self::Address((host, port)) => listen(resolve(&host, port)?),
        }
    }
}

fn shown(listener: &HttpServer) -> (String, u16) {
    let address = listener.address();
    (address.ip().to_string(), address.port())
}

impl Limits {
    fn into_settings(self) -> CoreResult<HttpSettings> {
        let time = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| Error::new(ErrorKind::Config, format!("{name} is no duration in seconds")))
        };
        Ok(HttpSettings {
            max_body: self.max_body,
            max_head: self.max_head,
            max_connections: self.max_connections,
            max_in_flight: self.max_in_flight,
            max_streams: self.max_streams,
            header_timeout: time("header_timeout", self.header_timeout)?,
            body_timeout: time("body_timeout", self.body_timeout)?,
            idle_timeout: time("idle_timeout", self.idle_timeout)?,
            server_timing: self.server_timing,
            dashboard: self.dashboard,
            keep_alive: time("keep_alive", self.keep_alive)?,
            compression: self.compression == "auto",
            streaming: true,
            stream_window: self.stream_window,
            stream_memory: self.stream_memory,
            // Python has refused what is none of them.
            slow_reader: SlowReader::from_name(&self.slow_reader).unwrap_or_default(),
            repository: RepositoryAccess::from_name(&self.repository).unwrap_or_default(),
        })
    }
}

impl Model {
    /// True where a batch that raises is split.
    pub(crate) fn isolates(&self) -> bool {
        self.policy.isolate
    }

    /// What a queue of it needs to know beside its specification.
    pub(crate) fn terms(&self) -> ModelTerms {
        ModelTerms {
            workers: self.workers,
            steps: self.steps,
            isolate: self.policy.isolate,
            max_size: self.policy.max_size,
            single_flight: self.policy.single_flight,
            passing: Passing::from_name(&self.passing),
        }
    }

    pub(crate) fn into_spec(self) -> CoreResult<(ModelSpec, BatchPolicy)> {
        let tensors = |tensors: Vec<Tensor>| {
            let each = tensors.iter().map(|(name, elements, axes)| TensorSpec::new(name, elements, axes));
            each.collect::<CoreResult<Vec<_>>>()
        };
        let mut policy = self.policy.into_core()?;
        policy.alone = self.alone;
        let spec = ModelSpec {
            name: self.name,
            version: self.version,
            inputs: tensors(self.inputs)?,
            outputs: tensors(self.outputs)?,
            task: Task::from_name(&self.task).ok_or_else(|| {
                let message = format!("task must be tensors, generate or embed, not '{}'", self.task);
                Error::new(ErrorKind::Config, message)
            })?,
        };
        if let Some(padding) = policy.budget.as_mut().and_then(|budget| budget.padding.as_mut()) {
            let open = |(at, input): (usize, &TensorSpec)| {
                if matches!(input.axes.first(), Some(None)) && at < 64 { 1 << at } else { 0 }
            };
            padding.columns = spec.inputs.iter().enumerate().map(open).sum();
        }
        Ok((spec, policy))
    }
}

fn resolve(host: &str, port: u16) -> CoreResult<SocketAddr> {
    let unknown = |why: String| Error::new(ErrorKind::Config, format!("host '{host}': {why}"));
    (host, port)
        .to_socket_addrs()
        .map_err(|error| unknown(error.to_string()))?
        .next()
        .ok_or_else(|| unknown("it has no address".to_owned()))
}
