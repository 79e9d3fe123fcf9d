//! The native half of `penstock.ModelCache`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::acquire::{Acquiring, Counter};
use super::desk::Desk;
use super::operation::{End, NativeOperation};
use super::records;
use super::settings::{Settings, Spec, seconds};
use super::work::LoadDesk;
use crate::bindings::bridge::lifecycle::generation;
use crate::bindings::bridge::lock;
use crate::bindings::clock::NativeClock;
use crate::bindings::errors::{raised, to_python};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::flow::{Priority, TimeSource};
use crate::metrics::LockCounts;
use crate::models::{Cache, Cause, Loader, ModelId};
use crate::runtime;

/// The native half of `penstock.ModelCache`, which documents it.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeModelCache {
    counter: Arc<Counter>,
    /// Starts the thread that loads.
    start: Py<PyAny>,
    /// The generation in which that was started; 0 before.
    started: AtomicU64,
    closing: Mutex<Option<Arc<End>>>,
}

#[pymethods]
impl NativeModelCache {
    #[new]
    #[pyo3(signature = (settings, start, clock = None))]
    fn new(
        py: Python<'_>,
        settings: Settings,
        start: Py<PyAny>,
        clock: Option<&Bound<'_, NativeClock>>,
    ) -> PyResult<Self> {
        let time = clock.map_or_else(TimeSource::system, |clock| clock.get().source());
        let desk = Arc::new(Desk::default());
        let loader = Arc::clone(&desk) as Arc<dyn Loader>;
        let cache = settings
            .into_core()
            .and_then(|settings| Cache::new(settings, loader, time))
            .map_err(|error| to_python(py, &error))?;
        let counter = Arc::new(Counter { cache, desk, recent: Mutex::new(None) });
        Ok(Self { counter, start, started: AtomicU64::new(0), closing: Mutex::new(None) })
    }

    /// Registers a model, or replaces it; answers the number that it goes by.
    fn register(&self, py: Python<'_>, spec: Spec) -> PyResult<u32> {
        let named = (Arc::from(spec.name.as_str()), Arc::from(spec.version.as_str()));
        let made = spec.into_core().and_then(|spec| self.counter.cache.register(spec));
        let model = made.map_err(|error| to_python(py, &error))?;
        self.counter.desk.name(model, named);
        Ok(model.0)
    }

    /// As `register`, but what is loaded goes on serving until a reload takes its place.
    fn amend(&self, py: Python<'_>, spec: Spec) -> PyResult<u32> {
        let named = (Arc::from(spec.name.as_str()), Arc::from(spec.version.as_str()));
        let made = spec.into_core().and_then(|spec| self.counter.cache.amend(spec));
        let model = made.map_err(|error| to_python(py, &error))?;
        self.counter.desk.name(model, named);
        Ok(model.0)
    }

    /// Takes a model out: what is loaded of it leaves as soon as nobody uses it.
    fn remove(&self, py: Python<'_>, reference: &str) -> PyResult<()> {
        self.counter.cache.remove(self.find(py, reference)?);
        Ok(())
    }

    /// A model that is to be used. `priority` is 0, 1 or 2 for high, normal or low; a negative time-out is none.
    fn acquire(
        &self,
        py: Python<'_>,
        reference: &str,
        priority: &str,
        timeout: Option<f64>,
        session: Option<&str>,
    ) -> PyResult<Acquiring> {
        self.ensure_started(py)?;
        let model = self.find(py, reference)?;
        let priority = priority_of(py, priority)?;
        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let session = session.map(Box::from);
        Ok(Acquiring::new(Arc::clone(&self.counter), model, priority, timeout, session))
    }

    /// Loads models before they are asked for.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn preload(
        &self,
        py: Python<'_>,
        references: Vec<String>,
        priority: &str,
        at_start: bool,
    ) -> PyResult<NativeOperation> {
        self.ensure_started(py)?;
        let models: Vec<ModelId> =
            references.iter().map(|reference| self.find(py, reference)).collect::<PyResult<_>>()?;
        let cause = if at_start { Cause::Start } else { Cause::Preload };
        let priority = priority_of(py, priority)?;
        Ok(NativeOperation::of(self.counter.cache.preload(&models, cause, priority)))
    }

    fn pin(&self, py: Python<'_>, reference: &str, pinned: bool) -> PyResult<()> {
        let model = self.find(py, reference)?;
        self.counter.cache.pin(model, pinned).map_err(|error| to_python(py, &error))
    }

    /// Unloads a model as soon as nobody uses it. `drain` is how long that may take in seconds before it counts as late.
    fn unload(
        &self,
        py: Python<'_>,
        reference: &str,
        dependents: bool,
        drain: Option<f64>,
    ) -> PyResult<NativeOperation> {
        self.ensure_started(py)?;
        let model = self.find(py, reference)?;
        let drain = drain.map(|drain| seconds("drain", drain)).transpose();
        let drain = drain.map_err(|error| to_python(py, &error))?;
        let cache = &self.counter.cache;
        Ok(NativeOperation::start(|told| cache.unload(model, dependents, drain, told)))
    }

    /// Loads a model anew, and then lets the old one go.
    fn reload(&self, py: Python<'_>, reference: &str) -> PyResult<NativeOperation> {
        self.ensure_started(py)?;
        let model = self.find(py, reference)?;
        Ok(NativeOperation::of(self.counter.cache.reload(model)))
    }

    /// Lets a name stand for a model.
    fn alias(&self, py: Python<'_>, name: &str, target: &str) -> PyResult<NativeOperation> {
        self.ensure_started(py)?;
        let preload = self.counter.cache.alias(name, target).map_err(|error| to_python(py, &error))?;
        Ok(NativeOperation::of(preload))
    }

    /// One dictionary for each model.
    fn index<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for row in self.counter.cache.index() {
            list.append(records::index_row(py, &row)?)?;
        }
        Ok(list)
    }

    /// Counters by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        records::stats(py, &self.counter.cache.stats())
    }

    /// What so much memory would have made of what was asked for of late.
    fn what_if<'py>(&self, py: Python<'py>, memory: u64) -> PyResult<Bound<'py, PyDict>> {
        let cache = &self.counter.cache;
        let locks = LockCounts::new();
        let what_if = lock::without(py, &locks, || cache.what_if(memory));
        records::what_if(py, &what_if)
    }

    /// How far a model is.
    fn progress<'py>(&self, py: Python<'py>, reference: &str) -> PyResult<Bound<'py, PyDict>> {
        let model = self.find(py, reference)?;
        records::progress(py, &self.counter.cache.progress(model))
    }

    /// A number that moves with every change of a state or of progress.
    fn version(&self) -> u64 {
        *self.counter.cache.changes().borrow()
    }

    /// Something that ends when that number is another than this.
    fn changed(&self, py: Python<'_>, seen: u64) -> PyResult<NativeOperation> {
        let mut changes = self.counter.cache.changes();
        let mut spawned = Ok(());
        let operation = NativeOperation::start(|told| {
            spawned = runtime::spawn(async move {
                // A cache that is gone has changed for the last time.
                let _ = changes.wait_for(|now| *now != seen).await;
                told(Ok(()));
            });
        });
        spawned.map_err(|error| to_python(py, &error))?;
        Ok(operation)
    }

    /// Admits nothing more, lets what is in use be used to its end, and unloads everything.
    fn begin_close(&self) -> NativeOperation {
        let mut closing = self.closing.lock();
        if let Some(end) = closing.as_ref() {
            return NativeOperation::ending(end);
        }
        let operation = NativeOperation::start(|told| self.close(told));
        *closing = Some(operation.end());
        operation
    }

    /// True once closing has begun.
    #[getter]
    fn closed(&self) -> bool {
        self.closing.lock().is_some()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.start)
    }
}

impl NativeModelCache {
    /// The cache itself, for servers.
    #[allow(dead_code, reason = "the server takes it")]
    pub(crate) fn cache(&self, py: Python<'_>) -> PyResult<Cache> {
        self.ensure_started(py)?;
        Ok(self.counter.cache.clone())
    }

    fn find(&self, py: Python<'_>, reference: &str) -> PyResult<ModelId> {
        self.counter.cache.find(reference).map_err(|error| to_python(py, &error))
    }

    fn close(&self, told: Box<dyn FnOnce(CoreResult<()>) + Send>) {
        let desk = Arc::clone(&self.counter.desk);
        self.counter.cache.close(Box::new(move || {
            desk.close();
            told(Ok(()));
        }));
    }

    /// Starts the thread on first use; refuses to go on in a child that was forked after that.
    fn ensure_started(&self, py: Python<'_>) -> PyResult<()> {
        let now = generation();
        match self.started.load(Ordering::Relaxed) {
            started if started == now => Ok(()),
            0 => {
                let handle = runtime::handle().map_err(|error| to_python(py, &error))?;
                self.started.store(now, Ordering::Relaxed);
                let desk = LoadDesk::new(Arc::clone(&self.counter.desk), self.counter.cache.clone());
                let started = self.start.bind(py).call1((desk,)).map(drop);
                // The next call says the same again.
                started.inspect_err(|_| self.started.store(0, Ordering::Relaxed))?;
                self.counter.cache.keep(&handle);
                Ok(())
            }
            _ => {
                let text = "this model cache was used before a fork and its threads are not in this process: make it \
                            after the fork";
                Err(to_python(py, &Error::new(ErrorKind::Closed, text)))
            }
        }
    }
}

impl Drop for NativeModelCache {
    fn drop(&mut self) {
        // In a forked child its threads do not exist.
        if self.started.load(Ordering::Relaxed) == generation() && self.closing.lock().is_none() {
            self.close(Box::new(|_| ()));
        }
    }
}

fn priority_of(py: Python<'_>, name: &str) -> PyResult<Priority> {
    Priority::from_name(name).ok_or_else(|| {
        let text = format!("priority must be one of 'high', 'normal', 'low', not {name:?}");
        raised(py, ErrorKind::Config, &text)
    })
}
