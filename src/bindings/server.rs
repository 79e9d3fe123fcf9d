//! The native half of `penstock.Server`: endpoints, a door, and how they close.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::bridge::lifecycle::generation;
use super::bridge::{lock, stock};
use super::core::Counters;
use super::errors::{raised, to_python};
use super::journal::NativeJournal;
use super::served::ServedWorker;
use crate::batch::{BatchPolicy, Dispatch};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::metrics::{LockCounts, Registry};
use crate::pipeline::{Endpoint, ModelSpec};
use crate::runtime;
use crate::serve::{HttpServer, HttpSettings, Service};
use crate::tensor::TensorSpec;

/// A name, an element type and the axes of one row.
type Tensor = (String, String, Vec<i64>);

/// What a server needs to know of a model.
#[derive(FromPyObject)]
pub(crate) struct Model {
    name: String,
    version: String,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    max_batch_size: usize,
    min_batch_size: usize,
    max_wait: f64,
    window: bool,
    max_queue: usize,
    isolate: bool,
}

/// The native half of `penstock.Server`, which documents it.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeServer {
    endpoints: Vec<Served>,
    http: HttpServer,
    service: Arc<Service>,
    born: u64,
    closed: Mutex<bool>,
}

struct Served {
    endpoint: Arc<Endpoint>,
    counters: Arc<Counters>,
    isolate: bool,
}

#[pymethods]
impl NativeServer {
    /// Opens the door; every model says "not ready" until `set_ready`.
    #[new]
    #[pyo3(signature = (models, *, host, port, max_body, header_timeout, journal))]
    fn new(
        py: Python<'_>,
        models: Vec<Model>,
        host: &str,
        port: u16,
        max_body: usize,
        header_timeout: f64,
        journal: Option<PyRef<'_, NativeJournal>>,
    ) -> PyResult<Self> {
        let header_timeout = Duration::try_from_secs_f64(header_timeout)
            .map_err(|_| raised(py, ErrorKind::Config, "header_timeout is no duration in seconds"))?;
        let settings = HttpSettings {
            max_body,
            header_timeout,
            access_log: journal.map(|journal| journal.access_log()),
        };
        Self::open(models, host, port, settings).map_err(|error| to_python(py, &error))
    }

    /// A worker thread's side of model `index`, which calls `function`.
    fn worker(&self, py: Python<'_>, index: usize, function: Py<PyAny>) -> PyResult<ServedWorker> {
        let served = self.endpoints.get(index).ok_or_else(|| {
            raised(py, ErrorKind::Internal, "a worker was asked for a model that is not served")
        })?;
        let counters = Arc::clone(&served.counters);
        Ok(ServedWorker::new(Arc::clone(&served.endpoint), function, counters, served.isolate))
    }

    /// Says that model `index` can answer.
    fn set_ready(&self, index: usize) {
        if let Some(served) = self.endpoints.get(index) {
            served.endpoint.set_ready(true);
        }
    }

    /// Host and port that it listens on.
    #[getter]
    fn address(&self) -> (String, u16) {
        let address = self.http.address();
        (address.ip().to_string(), address.port())
    }

    /// True where every model can answer.
    #[getter]
    fn ready(&self) -> bool {
        self.service.is_ready()
    }

    /// Connections that are open.
    #[getter]
    fn connections(&self) -> usize {
        self.http.connections()
    }

    /// The text of every metric.
    fn metrics(&self) -> String {
        self.service.metrics()
    }

    /// Counters of every model, by its name.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for served in &self.endpoints {
            let stats = served.endpoint.stats();
            let counters = served.counters.shown(py, &stats, &served.endpoint.locks)?;
            all.set_item(&served.endpoint.spec.name, counters)?;
        }
        Ok(all)
    }

    /// Stops accepting, answers what was accepted (or refuses what waits, without `drain`), at most `limit` seconds;
    /// answers whether all of it ended in time. Safe to call twice.
    fn close(&self, py: Python<'_>, drain: bool, limit: f64) -> bool {
        if self.is_foreign() {
            return true;
        }
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::from_secs(365 * 86400));
        let closing = self.closing(drain, limit);
        lock::without(py, &LockCounts::new(), closing)
    }

    /// As `close`, awaitable.
    fn close_async<'py>(&self, py: Python<'py>, drain: bool, limit: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::from_secs(365 * 86400));
        stock::blocking(py, self.closing(drain, limit))
    }
}

impl NativeServer {
    fn open(models: Vec<Model>, host: &str, port: u16, settings: HttpSettings) -> CoreResult<Self> {
        let runtime = runtime::handle()?;
        let registry = Arc::new(Registry::new());
        let mut endpoints = Vec::with_capacity(models.len());
        for model in models {
            let isolate = model.isolate;
            let (spec, policy) = model.into_spec()?;
            let metrics = registry.model(&spec.name);
            let endpoint = Endpoint::open(spec, policy, metrics, &runtime)?;
            endpoints.push(Served { endpoint, counters: Arc::default(), isolate });
        }
        let served = endpoints.iter().map(|served| Arc::clone(&served.endpoint)).collect();
        let service = Service::new(served, registry)?;
        let address = resolve(host, port)?;
        let http = HttpServer::open(address, Arc::clone(&service), settings, &runtime)?;
        Ok(Self { endpoints, http, service, born: generation(), closed: Mutex::new(false) })
    }

    /// True in a child that was forked after this server was made: its threads are the parent's.
    fn is_foreign(&self) -> bool {
        self.born != generation()
    }

    fn closing(&self, drain: bool, limit: Duration) -> impl FnOnce() -> bool + Send + use<> {
        let first = !std::mem::replace(&mut *self.closed.lock(), true);
        let endpoints: Vec<_> = self.endpoints.iter().map(|served| Arc::clone(&served.endpoint)).collect();
        if first {
            self.http.begin_close();
        }
        let connections = self.http.connection_count();
        move || {
            let end = Instant::now() + limit;
            let left = || end.saturating_duration_since(Instant::now());
            if !drain {
                for endpoint in &endpoints {
                    endpoint.close(false);
                }
            }
            // Whoever is connected may still be sending: the queues close when the connections have ended.
            let quiet = connections.wait_none(left());
            for endpoint in &endpoints {
                endpoint.close(drain);
            }
            let idle = endpoints.iter().all(|endpoint| endpoint.wait_idle(left()));
            for endpoint in &endpoints {
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
        self.http.begin_close();
        for served in &self.endpoints {
            served.endpoint.close(true);
        }
    }
}

impl Model {
    fn into_spec(self) -> CoreResult<(ModelSpec, BatchPolicy)> {
        let tensors = |tensors: Vec<Tensor>| {
            let each = tensors.iter().map(|(name, elements, axes)| TensorSpec::new(name, elements, axes));
            each.collect::<CoreResult<Vec<_>>>()
        };
        let max_wait = Duration::try_from_secs_f64(self.max_wait)
            .map_err(|_| Error::new(ErrorKind::Config, "max_wait is no duration in seconds"))?;
        let policy = BatchPolicy {
            min_size: self.min_batch_size,
            max_size: self.max_batch_size,
            max_wait,
            dispatch: if self.window { Dispatch::Window } else { Dispatch::Tick },
            max_queue: self.max_queue,
        };
        let spec = ModelSpec {
            name: self.name,
            version: self.version,
            inputs: tensors(self.inputs)?,
            outputs: tensors(self.outputs)?,
        };
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
