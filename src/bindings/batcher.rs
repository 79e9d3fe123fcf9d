//! The native half of `penstock.Batcher`: thin classes over [`Core`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::bridge::lifecycle::generation;
use super::bridge::lock;
use super::bridge::port::{self, Port};
use super::bridge::stock;
use super::clock::NativeClock;
use super::convert::assemble::NextCall;
use super::core::{Asked, Calling, Core, Taken};
use super::deadline::BatchDeadline;
use super::errors::{raised, to_python};
use super::flight::Flights;
use super::policy::Policy;
use super::recording::NativeRecording;
use super::records;
use super::run::{Fillers, hand_out};
use super::scope::BatchScope;
use super::waiter::{Failure, Outcome, Parked, Results, SIGNAL_CHECK, Waiter};
use crate::batch::{Batcher, Removed, Turn};
use crate::error::ErrorKind;
use crate::flow::{Moment, TimeSource};
use crate::metrics::LockCounts;

/// The native half of `penstock.Batcher`, which documents it.
#[pyclass(frozen, subclass, module = "penstock._native")]
pub(crate) struct NativeBatcher {
    core: Arc<Core>,
    recent: Mutex<Option<Py<Port>>>,
    /// Starts the worker threads; `None` for an inline batcher.
    start: Option<Py<PyAny>>,
    /// The generation in which its threads were started; 0 before.
    started: AtomicU64,
}

#[pymethods]
impl NativeBatcher {
    #[new]
    #[pyo3(signature = (function, start, *, policy, workers, fillers, steps, clock = None))]
    #[allow(clippy::too_many_arguments, reason = "keywords, called from one place")]
    fn new(
        py: Python<'_>,
        function: Py<PyAny>,
        start: Option<Py<PyAny>>,
        mut policy: Policy,
        workers: usize,
        fillers: Fillers,
        steps: bool,
        clock: Option<Py<NativeClock>>,
    ) -> PyResult<Self> {
        let largest_live = steps.then_some(policy.max_size);
        let (isolate, pricing) = (policy.isolate, policy.pricing());
        let flights = policy.single_flight.then(|| Flights::new(policy.max_queue));
        let time = clock.as_ref().map_or_else(TimeSource::system, |clock| clock.get().source());
        let batcher = policy.into_core().and_then(|policy| Batcher::with(policy, workers, time));
        let batcher = batcher.map_err(|error| to_python(py, &error))?;
        let inline = start.is_none();
        let calling = Calling { pricing, fillers, isolate, inline, flights, largest_live, clock };
        let core = Arc::new(Core::new(batcher, function, calling));
        Ok(Self { core, recent: Mutex::new(None), start, started: AtomicU64::new(0) })
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::submit(slf, args, kwargs, Asked::plain(), None)
    }

    /// A future for one call. What is asked is the priority, 0, 1 or 2 for high, normal or low, the tenant, and the seconds
    /// until the answer must be there; negative for none. A `feed` takes the values of every step.
    #[pyo3(signature = (args, kwargs, asked, feed = None))]
    fn submit<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        asked: Asked,
        feed: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.ensure_started(py)?;
        let port = Port::current(py, &this.recent)?;
        let mut made = None;
        let admitted = this.core.submit(py, args, kwargs, asked, || {
            let (future, slot) = port.get().new_future(py)?;
            made = Some((future, slot));
            let trace = this.core.trace(py)?;
            Ok(Waiter::Future { port: Arc::clone(&port.get().shared), slot, feed, trace })
        });
        match (admitted, made) {
            (Ok(()), Some((future, _))) => {
                port.get().touch(py, &this.core)?;
                Ok(future)
            }
            (Err(error), Some((_, slot))) => {
                port.get().shared.forget(slot);
                Err(error)
            }
            (Err(error), None) => Err(error),
            (Ok(()), None) => Err(raised(py, ErrorKind::Internal, "a request has no future")),
        }
    }

    /// As `submit`; blocks until the call is answered.
    fn submit_blocking<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        asked: Asked,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.ensure_started(py)?;
        let deadline = asked.timeout().map(|timeout| this.core.batcher.now() + timeout);
        let parked = Arc::new(Parked::default());
        let waiter = || Ok(Waiter::Thread(Arc::clone(&parked), this.core.trace(py)?));
        this.core.submit(py, args, kwargs, asked, waiter)?;
        // A thread has no tick: what it sends may leave at once.
        this.core.batcher.release();
        let answer = this.wait_for(py, &parked, deadline);
        if answer.is_err() {
            parked.leave();
        }
        let (results, row) = answer?;
        results.get(py, row)?.map_err(PyErr::from_value)
    }

    /// Has a batch that waits for its readers look at them.
    fn ring(&self) {
        self.core.bell.ring();
    }

    /// Accepts nothing more; without `drain` whoever waits gets `Closed`. Does not wait.
    fn begin_close(&self, py: Python<'_>, drain: bool) -> PyResult<()> {
        let left = self.core.batcher.close(drain);
        self.fail_closed(py, left);
        if !drain {
            self.core.hurried.store(true, Ordering::SeqCst);
            self.core.bell.ring();
        }
        if self.core.calling.inline {
            let port = port::running_loop(py)?.and_then(|_| Port::current(py, &self.recent).ok());
            while self.core.run_here(py, port.as_ref())? {}
        }
        Ok(())
    }

    /// Blocks until nothing waits and nothing runs, at most `limit` seconds; answers whether that came.
    fn wait_idle(&self, py: Python<'_>, limit: f64) -> PyResult<bool> {
        let end = Instant::now() + Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX / 4);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let core = &self.core;
            let idle =
                lock::without(py, &LockCounts::new(), || core.batcher.wait_idle(left.min(SIGNAL_CHECK)));
            py.check_signals()?;
            if idle || left.is_zero() {
                return Ok(idle);
            }
        }
    }

    /// True where this very thread is in the function.
    fn runs_here(&self) -> bool {
        self.core.runs_here()
    }

    /// As `wait_idle`, awaitable.
    fn wait_idle_async<'py>(&self, py: Python<'py>, limit: f64) -> PyResult<Bound<'py, PyAny>> {
        let core = Arc::clone(&self.core);
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::from_hours(8760));
        stock::blocking(py, move || core.batcher.wait_idle(limit))
    }

    /// The function is part of a cycle where it is a method of the object that holds the batcher. Work in progress keeps
    /// everything: only an idle batcher shows the collector what it holds.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.core.batcher.is_idle() { visit.call(&self.core.function) } else { Ok(()) }
    }

    fn __clear__(&self) {
        drop(self.core.batcher.close(true));
    }

    /// Writes what comes and how long the function takes into a file, which replaces one of that name.
    #[allow(clippy::needless_pass_by_value, reason = "a path comes from Python by value")]
    fn begin_record(&self, py: Python<'_>, path: PathBuf) -> PyResult<NativeRecording> {
        let recorder = self.core.batcher.record(&path).map_err(|error| to_python(py, &error))?;
        Ok(NativeRecording::new(recorder))
    }

    /// True once closing has begun.
    #[getter]
    fn closed(&self) -> bool {
        self.core.batcher.is_closed()
    }

    /// Counters by name.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.core.batcher.stats();
        let counters = self.core.counters.shown(py, &stats, &self.core.history.totals(), &self.core.locks)?;
        counters.set_item("running", self.core.batcher.running())?;
        counters.set_item("failed", self.core.counters.failed.load(Ordering::Relaxed))?;
        counters.set_item("shared", self.core.counters.shared.load(Ordering::Relaxed))?;
        Ok(counters)
    }

    /// What there is to say of the `last` batches.
    fn explain_batches<'py>(&self, py: Python<'py>, last: usize) -> PyResult<Bound<'py, PyList>> {
        let core = &self.core;
        records::shown(py, &core.history.last(last, |_| true), core.batcher.clock())
    }
}

impl NativeBatcher {
    /// Starts the threads on first use; refuses to go on in a child that was forked after that.
    fn ensure_started(&self, py: Python<'_>) -> PyResult<()> {
        let now = generation();
        match self.started.load(Ordering::Relaxed) {
            started if started == now => Ok(()),
            0 => {
                self.started.store(now, Ordering::Relaxed);
                self.core.follow(py).inspect_err(|_| self.started.store(0, Ordering::Relaxed))?;
                let Some(start) = &self.start else {
                    return Ok(());
                };
                let worker = Worker::new(Arc::clone(&self.core));
                let started = start.bind(py).call1((worker,)).map(drop);
                // The next call says the same again.
                started.inspect_err(|_| self.started.store(0, Ordering::Relaxed))
            }
            _ => Err(raised(
                py,
                ErrorKind::Closed,
                "this batcher was used before a fork and its threads are not in this process: make it after the fork",
            )),
        }
    }

    fn wait_for(
        &self,
        py: Python<'_>,
        parked: &Parked,
        deadline: Option<Moment>,
    ) -> PyResult<(Arc<Results>, usize)> {
        loop {
            if self.core.calling.inline {
                self.core.batcher.release();
                while self.core.run_here(py, None)? {}
            }
            if let Some(answer) = parked.take() {
                return Ok(answer);
            }
            let left = deadline.map(|deadline| deadline.since(self.core.batcher.now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(raised(
                    py,
                    ErrorKind::DeadlineExceeded,
                    "no answer came within the timeout of the call",
                ));
            }
            let window = if self.core.calling.inline { self.core.batcher.look_again_in() } else { None };
            let limit = SIGNAL_CHECK.min(left.unwrap_or(SIGNAL_CHECK)).min(window.unwrap_or(SIGNAL_CHECK));
            lock::without(py, &LockCounts::new(), || parked.wait(limit));
            py.check_signals()?;
        }
    }

    fn fail_closed(&self, py: Python<'_>, left: Removed<Waiter>) {
        let message = "the batcher was closed before this request was run".to_owned();
        let failure = Arc::new(Failure { kind: ErrorKind::Closed, message, cause: None });
        let outcomes = left.entries.iter().map(|_| Outcome::Failed(Arc::clone(&failure))).collect();
        for number in left.objects {
            drop(self.core.take_object(number));
        }
        hand_out(py, left.entries, Results::Each(outcomes), None);
    }
}

impl Drop for NativeBatcher {
    /// What waits is still answered: `await batched(f)(x)` drops the batcher before its future is done.
    fn drop(&mut self) {
        // In a forked child its threads do not exist, and what they sleep on is theirs.
        let started = self.started.load(Ordering::Relaxed);
        if started == 0 || started == generation() {
            let left = self.core.batcher.close(true);
            debug_assert!(left.entries.is_empty());
        }
    }
}

/// One worker thread's side of a batcher. A loop in Python waits, asks what to call the function with, calls it, and says
/// what came of it.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Worker {
    core: Arc<Core>,
    taken: Mutex<Option<Taken>>,
}

impl Worker {
    fn new(core: Arc<Core>) -> Self {
        Self { core, taken: Mutex::new(None) }
    }
}

#[pymethods]
impl Worker {
    /// A worker of the same batcher, for another thread.
    fn another(&self) -> Self {
        Self::new(Arc::clone(&self.core))
    }

    /// Gives the interpreter lock back until there is a batch; false where none will come any more.
    fn wait(&self, py: Python<'_>) -> bool {
        let core = &self.core;
        while lock::without(py, &core.locks, || core.batcher.wait()) == Turn::Work {
            let taken = core.take(py);
            if taken.is_some() {
                *self.taken.lock() = taken;
                return true;
            }
        }
        false
    }

    /// When the first request of its batch must be answered; `None` where none of them says so.
    fn deadline(&self) -> Option<BatchDeadline> {
        let at = self.taken.lock().as_ref()?.account.deadline;
        BatchDeadline::of(self.core.batcher.clock(), at)
    }

    /// As `ServedWorker.scope`.
    fn scope(&self) -> Option<BatchScope> {
        BatchScope::of(&self.taken.lock().as_ref()?.account)
    }

    /// The function and the arguments of its next call, or `None` where the batch is done and its answers are out. The
    /// thread must not hold the function while it waits: the collector could not see that nobody else does.
    fn next<'py>(&self, py: Python<'py>) -> Option<NextCall<'py>> {
        let mut taken = self.taken.lock().take()?;
        let next = taken.job.next(py, &self.core.counters);
        match next {
            Some(_) => {
                taken.account.call();
                *self.taken.lock() = Some(taken);
            }
            None => self.core.finish(py, taken, None),
        }
        next.map(|(arguments, keywords)| (self.core.function.clone_ref(py), arguments, keywords))
    }

    /// Takes what the function returned.
    fn returned(&self, value: &Bound<'_, PyAny>) {
        let taken = self.taken.lock().take();
        if let Some(mut taken) = taken {
            taken.job.returned(value, &self.core.counters);
            *self.taken.lock() = Some(taken);
        }
    }

    /// Takes a failure that no smaller part of the batch would escape.
    fn failed(&self, error: Bound<'_, PyAny>) {
        let taken = self.taken.lock().take();
        if let Some(mut taken) = taken {
            let py = error.py();
            taken.job.failed(py, PyErr::from_value(error), &self.core.counters);
            *self.taken.lock() = Some(taken);
        }
    }

    /// Counts a worker process that took the place of a dead one.
    fn count_restart(&self) {
        self.core.counters.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what the function raised.
    fn raised(&self, error: Bound<'_, PyAny>) {
        let taken = self.taken.lock().take();
        if let Some(mut taken) = taken {
            let py = error.py();
            taken.job.raised(py, PyErr::from_value(error), &self.core.counters);
            *self.taken.lock() = Some(taken);
        }
    }
}
