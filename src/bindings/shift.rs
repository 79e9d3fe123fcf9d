//! The workers of one load of a served model: they come, take batches of a queue that outlives them, and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::bridge::lifecycle::generation;
use super::bridge::lock;
use super::client::NativeClient;
use super::core::Counters;
use super::errors::to_python;
use super::onnx::NativeOnnx;
use super::processes::Start;
use super::remote::{self, RemoteTerms};
use super::remote_text::{self, TextTerms};
use super::run::Fillers;
use super::served::ServedWorker;
use crate::batch::Shift;
use crate::gateway::{Pools, Relayed};
use crate::metrics::LockCounts;
use crate::pipeline::{Computers, Endpoint, GraphComputer, Processes, Tally};

/// A model that is served, and what is known of it whichever load of it there is.
#[derive(Clone)]
pub(crate) struct Served {
    /// What metrics and statistics call it.
    pub(crate) label: String,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) isolate: bool,
    pub(crate) max_size: usize,
    /// The worker processes of every load.
    pub(crate) processes: Arc<Mutex<Vec<Arc<Processes>>>>,
    /// The connections of all remote models of its server.
    pub(crate) pools: Arc<Pools>,
}

impl Served {
    /// The numbers of its worker processes that run now.
    pub(crate) fn process_numbers(&self) -> Vec<u32> {
        self.processes.lock().iter().flat_map(|processes| processes.process_numbers()).collect()
    }

    /// Waits for its worker processes to end, and kills those that have not by then.
    pub(crate) fn end_processes(&self, by: Instant) {
        let all = std::mem::take(&mut *self.processes.lock());
        for processes in all {
            processes.end(by.saturating_duration_since(Instant::now()));
        }
    }
}

/// The workers of one load of a model.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeShift {
    served: Served,
    shift: Arc<Shift>,
    /// Those of this load, where they are processes.
    processes: Mutex<Option<Arc<Processes>>>,
    /// Those of this load, where they are threads that need no interpreter.
    computers: Mutex<Option<Computers>>,
    /// What carries the batches of this load, where the model is on another server.
    relayed: Mutex<Option<Relayed>>,
    born: u64,
}

impl NativeShift {
    pub(crate) fn new(served: Served) -> Self {
        Self {
            served,
            shift: Arc::default(),
            processes: Mutex::default(),
            computers: Mutex::default(),
            relayed: Mutex::default(),
            born: generation(),
        }
    }

    fn processes(&self) -> Option<Arc<Processes>> {
        self.processes.lock().clone()
    }
}

#[pymethods]
impl NativeShift {
    /// A worker thread's side, which calls `function`; `fillers` says whether it wants to be told of a mask, and of lengths;
    /// `steps` that it is a generator over a batch.
    fn worker(&self, function: Py<PyAny>, fillers: Fillers, steps: bool) -> ServedWorker {
        let served = &self.served;
        if steps {
            served.endpoint.set_stepwise();
        }
        let largest_live = steps.then_some(served.max_size);
        ServedWorker::new(
            (Arc::clone(&served.endpoint), Arc::clone(&self.shift)),
            function,
            Arc::clone(&served.counters),
            served.isolate,
            fillers,
            largest_live,
        )
    }

    /// Begins to start `count` worker processes.
    fn start_processes(&self, py: Python<'_>, start: Start, count: usize) -> PyResult<()> {
        let tally: Arc<dyn Tally> = Arc::clone(&self.served.counters) as _;
        let ends = (Arc::clone(&self.served.endpoint), Arc::clone(&self.shift));
        let started = Processes::start(ends, start.into(), count, &tally);
        let started = Arc::new(started.map_err(|error| to_python(py, &error))?);
        self.served.processes.lock().push(Arc::clone(&started));
        *self.processes.lock() = Some(started);
        Ok(())
    }

    /// Waits until its worker processes have loaded the model, for at most `limit` seconds; answers whether that came.
    fn wait_processes(&self, py: Python<'_>, limit: f64) -> PyResult<bool> {
        let Some(processes) = self.processes() else { return Ok(true) };
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::ZERO);
        let ready = lock::without(py, &LockCounts::new(), || processes.wait_ready(limit));
        py.check_signals()?;
        ready.map_err(|error| to_python(py, &error))
    }

    /// The numbers of its worker processes that run now.
    fn process_numbers(&self) -> Vec<u32> {
        self.processes().map(|processes| processes.process_numbers()).unwrap_or_default()
    }

    /// Starts a thread for each session of `graph`, which compute the model's answers without the interpreter.
    fn start_onnx(&self, py: Python<'_>, graph: &NativeOnnx) -> PyResult<()> {
        let served = &self.served;
        let computer = GraphComputer::new(graph.served(py)?, &served.endpoint.spec);
        let tally: Arc<dyn Tally> = Arc::clone(&served.counters) as _;
        let ends = (Arc::clone(&served.endpoint), Arc::clone(&self.shift));
        let started =
            computer.and_then(|computer| Computers::start(ends, computer.each(), served.isolate, &tally));
        *self.computers.lock() = Some(started.map_err(|error| to_python(py, &error))?);
        Ok(())
    }

    /// Waits for the threads of a graph to end, once the shift has, for at most `limit` seconds; answers whether they did.
    fn end_onnx(&self, py: Python<'_>, limit: f64) -> bool {
        if self.born != generation() {
            return true;
        }
        let Some(computers) = self.computers.lock().take() else { return true };
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX);
        lock::without(py, &LockCounts::new(), || computers.end(limit))
    }

    /// Has the batches go to another server, over the connections of `client`.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn start_remote(&self, py: Python<'_>, client: &NativeClient, terms: RemoteTerms) -> PyResult<()> {
        let started = remote::start(py, &self.served, &self.shift, client, terms)?;
        *self.relayed.lock() = Some(started);
        Ok(())
    }

    /// As `start_remote`, for a model of text or of vectors of texts.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn start_text(&self, py: Python<'_>, client: &NativeClient, terms: TextTerms) -> PyResult<()> {
        let started = remote_text::start(py, &self.served, &self.shift, client, terms)?;
        *self.relayed.lock() = Some(started);
        Ok(())
    }

    /// Waits for what is under way to another server, once the shift has ended, for at most `limit` seconds; what is not
    /// answered by then is given up. Answers whether all was.
    fn end_remote(&self, py: Python<'_>, limit: f64) -> bool {
        let Some(relayed) = self.relayed.lock().take() else { return true };
        if self.born != generation() {
            std::mem::forget(relayed);
            return true;
        }
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX);
        lock::without(py, &LockCounts::new(), || relayed.end(limit))
    }

    /// Says that its workers are there: the model is ready. They take nothing yet.
    fn announce(&self) {
        self.served.endpoint.announce_shift(&self.shift);
    }

    /// Lets its workers take batches.
    fn begin(&self) {
        self.served.endpoint.begin_shift(&self.shift);
    }

    /// Has its workers finish what they run and take nothing more. Safe to call twice.
    fn end(&self) {
        self.served.endpoint.end_shift(&self.shift);
    }

    /// Waits for its worker processes to end, once the shift has, and kills those that have not after `limit` seconds.
    fn end_processes(&self, py: Python<'_>, limit: f64) {
        if self.born != generation() {
            return;
        }
        let Some(processes) = self.processes.lock().take() else { return };
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX);
        lock::without(py, &LockCounts::new(), || processes.end(limit));
        self.served.processes.lock().retain(|one| !Arc::ptr_eq(one, &processes));
    }
}
