//! What a batched function consists of, apart from its Python face.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use slab::Slab;
use smallvec::SmallVec;

use super::bridge::port::{Port, TickEnd};
use super::clock::NativeClock;
use super::convert::assemble::Input;
use super::convert::items::{self, Item, Leaf};
use super::convert::pricing::Pricing;
use super::convert::structure::{Key, Structures};
use super::deadline::{BatchDeadline, Running};
use super::errors;
use super::flight::Flights;
use super::records;
use super::riders::Riders;
use super::run::{self, Filled, Fillers, Job};
use super::steps::{Answering, Run};
use super::waiter::{Failure, Outcome, Results, Trace, Waiter, trace_of};
use crate::batch::{
    Attendance, BatchAccount, BatchStats, Batcher, Cut, Entry, History, Priority, Ran, Reason, Removed,
    Terms, Totals,
};
use crate::error::ErrorKind;
use crate::flow::Bell;
use crate::metrics::LockCounts;
use crate::tensor::Rows;

/// The terms of one call, as Python says them: its priority, its tenant, its time-out.
#[derive(FromPyObject)]
pub(crate) struct Asked(u8, Option<String>, f64);

impl Asked {
    /// A call on the usual terms.
    pub(crate) fn plain() -> Self {
        Self(1, None, -1.0)
    }

    /// Time until the answer must be there.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.2).ok()
    }

    /// The same without a time-out.
    fn undated(self) -> Self {
        Self(self.0, self.1, -1.0)
    }

    fn priority(&self) -> Priority {
        match self.0 {
            0 => Priority::High,
            2 => Priority::Low,
            _ => Priority::Normal,
        }
    }
}

/// A function, its batcher, and the Python objects that wait in it.
pub(crate) struct Core {
    pub(crate) batcher: Batcher<Key, Waiter>,
    pub(crate) function: Py<PyAny>,
    pub(crate) structures: Structures,
    pub(crate) locks: LockCounts,
    pub(crate) counters: Counters,
    pub(crate) history: History,
    pub(crate) calling: Calling,
    /// Rung where a batch may wait for it whose readers are all too slow.
    pub(crate) bell: Arc<Bell>,
    /// Set once the batcher is closed and nobody is waited for any more.
    pub(crate) hurried: AtomicBool,
    /// Says which trace whoever asks is in, where the process has traces.
    follow: OnceLock<Py<PyAny>>,
    objects: Mutex<Slab<Py<PyAny>>>,
    timer_set: AtomicBool,
    /// Threads that are in the function now: one that asks to wait for the function would wait for itself.
    running_in: Mutex<SmallVec<[ThreadId; 4]>>,
}

/// How items are taken and the function is called.
pub(crate) struct Calling {
    pub(crate) pricing: Pricing,
    /// What the function is told of rows that were filled up.
    pub(crate) fillers: Fillers,
    /// Split a batch that raises, so that only the guilty fail.
    pub(crate) isolate: bool,
    /// Run on the event loop instead of on worker threads.
    pub(crate) inline: bool,
    /// Identical inputs that are being computed, where they are computed once.
    pub(crate) flights: Option<Arc<Flights>>,
    /// Requests that a batch may have at a time, where the function is a generator and they come and go.
    pub(crate) largest_live: Option<usize>,
    /// The clock that a test moves, where it lives by one.
    pub(crate) clock: Option<Py<NativeClock>>,
}

/// What happened to requests after their batch was cut.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests that got an exception.
    pub(crate) failed: AtomicU64,
    /// Calls of the function beyond the first for a batch that raised.
    pub(crate) reruns: AtomicU64,
    /// Requests that were answered with what was being computed for another.
    pub(crate) shared: AtomicU64,
    /// Nanoseconds spent in the function.
    pub(crate) busy_nanos: AtomicU64,
    /// Worker processes that took the place of dead ones.
    pub(crate) restarts: AtomicU64,
}

impl Counters {
    /// These and the batcher's own counters, by name.
    pub(crate) fn shown<'py>(
        &self,
        py: Python<'py>,
        stats: &BatchStats,
        totals: &Totals,
        locks: &LockCounts,
    ) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        counters.set_item("requests", stats.requests)?;
        counters.set_item("batches", stats.batches)?;
        counters.set_item("mean_batch_size", stats.mean_size())?;
        counters.set_item("max_batch_size", stats.largest)?;
        counters.set_item("efficiency", stats.efficiency())?;
        let reasons = PyDict::new(py);
        for (reason, count) in Reason::ALL.iter().zip(stats.reasons).filter(|(_, count)| *count > 0) {
            reasons.set_item(reason.name(), count)?;
        }
        counters.set_item("reasons", reasons)?;
        counters.set_item("queued", stats.queued)?;
        counters.set_item("rejected", stats.rejected)?;
        counters.set_item("abandoned", stats.abandoned)?;
        counters.set_item("reruns", self.reruns.load(Ordering::Relaxed))?;
        let busy = Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed));
        counters.set_item("function_seconds", busy.as_secs_f64())?;
        counters.set_item("restarts", self.restarts.load(Ordering::Relaxed))?;
        counters.set_item("lock_acquisitions", locks.acquisitions())?;
        counters.set_item("lock_wait_seconds", locks.waited().as_secs_f64())?;
        records::count(&counters, stats, totals)?;
        Ok(counters)
    }

    /// Counts the time since a call of the function began.
    pub(crate) fn count_busy(&self, took: Duration) {
        let busy = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_nanos.fetch_add(busy, Ordering::Relaxed);
    }
}

/// A batch that was taken, and those who wait for it.
pub(crate) struct Taken {
    pub(crate) job: Job<Answering<run::Rows>>,
    /// Empty where they are answered step by step.
    entries: Vec<Entry<Waiter>>,
    pub(crate) account: BatchAccount,
}

impl Core {
    pub(crate) fn new(batcher: Batcher<Key, Waiter>, function: Py<PyAny>, calling: Calling) -> Self {
        Self {
            batcher,
            function,
            structures: Structures::new(),
            locks: LockCounts::new(),
            counters: Counters::default(),
            history: History::default(),
            calling,
            bell: Bell::new(),
            hurried: AtomicBool::new(false),
            follow: OnceLock::new(),
            objects: Mutex::default(),
            timer_set: AtomicBool::new(false),
            running_in: Mutex::default(),
        }
    }

    /// Adds a request to the queue.
    ///
    /// # Errors
    /// What [`Item::new`] and [`Batcher::submit`] say.
    pub(crate) fn submit<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
        asked: Asked,
        waiter: impl FnOnce() -> PyResult<Waiter>,
    ) -> PyResult<()> {
        let take = if self.calling.largest_live.is_some() { Item::whole } else { Item::new };
        let item = take(&self.structures, arguments, keywords, &self.calling.pricing)?;
        let cost = self.calling.pricing.cost(&item.leaves, arguments, keywords)?;
        let waiter = waiter()?;
        // A stream has its own values at its own pace.
        let streamed = matches!(waiter, Waiter::Future { feed: Some(_), .. });
        let Some(flights) = self.calling.flights.as_ref().filter(|_| !streamed) else {
            return self.queue(py, &item, cost, asked, waiter);
        };
        let Some(input) = flights.input(&item) else { return self.queue(py, &item, cost, asked, waiter) };
        match flights.board(py, &input, waiter) {
            Ok(()) => {
                self.counters.shared.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(waiter) => {
                let flight = flights.prepare(input, waiter);
                // Each waiter has a deadline of its own and leaves by itself; the flight ends with the last of them.
                self.queue(py, &item, cost, asked.undated(), Waiter::Shared(Arc::clone(&flight)))?;
                flights.depart(flight);
                Ok(())
            }
        }
    }

    fn queue(
        &self,
        py: Python<'_>,
        item: &Item<'_>,
        cost: u32,
        asked: Asked,
        waiter: Waiter,
    ) -> PyResult<()> {
        let objects = self.keep_objects(&item.leaves);
        let batcher = &self.batcher;
        let deadline = asked.timeout().map(|timeout| batcher.now() + timeout);
        let terms = Terms {
            priority: asked.priority(),
            deadline,
            tenant: asked.1.map(|name| batcher.tenant(&name)).unwrap_or_default(),
            cost,
            ..Terms::default()
        };
        let write = |rows: &mut _| items::write_row(rows, &item.leaves, &objects);
        let admitted = batcher.submit(&item.key, terms, waiter, write, &mut Roll { py, core: self });
        if admitted.is_err() {
            self.drop_objects(&objects);
        }
        self.bell.ring();
        admitted.map_err(|error| errors::to_python(py, &error))
    }

    /// Asks callers from here on which trace they are in, where the process has set traces up by now.
    ///
    /// # Errors
    /// Those of Python.
    pub(crate) fn follow(&self, py: Python<'_>) -> PyResult<()> {
        let follower = py.import(intern!(py, "penstock._scope"))?.call_method0(intern!(py, "follower"))?;
        if !follower.is_none() {
            self.follow.get_or_init(|| follower.unbind());
        }
        Ok(())
    }

    /// The trace that whoever calls this is in, where anybody has set traces up.
    ///
    /// # Errors
    /// Those of Python.
    pub(crate) fn trace(&self, py: Python<'_>) -> PyResult<Trace> {
        let Some(follow) = self.follow.get() else { return Ok(None) };
        Ok(trace_of(follow.call0(py)?.extract(py)?))
    }

    /// True where this very thread is in the function.
    pub(crate) fn runs_here(&self) -> bool {
        self.running_in.lock().contains(&std::thread::current().id())
    }

    fn keep_objects(&self, leaves: &[Leaf<'_>]) -> SmallVec<[u64; 4]> {
        let kept = leaves.iter().filter_map(|leaf| match leaf {
            Leaf::Object(object) => Some(self.objects.lock().insert(object.clone().unbind()) as u64),
            _ => None,
        });
        kept.collect()
    }

    /// The object that a number stands for; it is let go of.
    pub(crate) fn take_object(&self, number: u64) -> Option<Py<PyAny>> {
        self.objects.lock().try_remove(usize::try_from(number).ok()?)
    }

    fn drop_objects(&self, numbers: &[u64]) {
        for number in numbers {
            drop(self.take_object(*number));
        }
    }

    /// Takes one batch, if one may be taken.
    pub(crate) fn take(self: &Arc<Self>, py: Python<'_>) -> Option<Taken> {
        let batch = self.batcher.take(&mut Roll { py, core: self })?;
        self.running_in.lock().push(std::thread::current().id());
        let count = batch.entries.len();
        let mut account = BatchAccount::open(count, batch.reason.name(), batch.cut);
        account.add_requests(&batch.entries);
        if self.follow.get().is_some() {
            batch
                .entries
                .iter()
                .filter_map(|entry| entry.waiter.trace())
                .for_each(|trace| account.trace.add(&trace));
            account.trace.close(false);
        }
        let isolate = self.calling.isolate;
        let input = self.input(py, batch.rows, count, isolate);
        let filled = Filled::of(&account.cut, self.calling.fillers);
        let key = batch.group.key.clone();
        let (form, entries) = match self.calling.largest_live {
            None => (Answering::Whole(run::Rows), batch.entries),
            Some(largest) => {
                let riders = Riders::new(Arc::clone(self), batch.group, batch.entries);
                (Answering::Steps(Run::new(Box::new(riders), largest, Vec::new())), Vec::new())
            }
        };
        Some(Taken { job: Job::new(form, key, input, filled, isolate, count), entries, account })
    }

    /// The columns of a batch; `repeatable` keeps what it takes to run parts of it again.
    pub(crate) fn input(
        &self,
        py: Python<'_>,
        rows: Rows,
        count: usize,
        repeatable: bool,
    ) -> PyResult<Input> {
        let objects = |number| self.take_object(number);
        let no_texts = |_, _: &_, _: &[usize]| {
            Err(errors::raised(py, ErrorKind::Internal, "texts come through the doors alone"))
        };
        Input::new(py, rows, count, self.batcher.spares(), repeatable, objects, no_texts)
    }

    /// Hands the answers of a job out; waiters of the loop `on`, whose thread this is, are answered at once.
    pub(crate) fn finish(&self, py: Python<'_>, taken: Taken, on: Option<&Bound<'_, Port>>) {
        let mut account = taken.account;
        let (busy, reruns) = (taken.job.busy(), taken.job.reruns());
        account.ran = self.ran(taken.job.ran(), &account.cut);
        match taken.job.into_answers(py) {
            Some(results) => {
                account.failed = self.count_failed(&results);
                run::hand_out(py, taken.entries, results, on);
            }
            // As long as its requests wanted it to take: that says nothing of the next batch.
            None => account.ran = Ran::Unknown,
        }
        let here = std::thread::current().id();
        self.running_in.lock().retain(|thread| *thread != here);
        // The lock is held until here: nobody has seen an answer yet.
        records::close(&mut account, busy, reruns);
        let (number, ran) = (account.cut.number, account.ran);
        self.history.keep(&Arc::new(account));
        self.batcher.finish(number, ran);
    }

    fn count_failed(&self, results: &Results) -> usize {
        let Results::Each(outcomes) = results else { return 0 };
        let failed = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Value(_))).count();
        self.counters.failed.fetch_add(failed as u64, Ordering::Relaxed);
        failed
    }

    /// Runs one batch in this thread, if one may be taken; answers whether there was one.
    ///
    /// # Errors
    /// `KeyboardInterrupt` and `SystemExit`, where the function raised them: they are for this thread too.
    pub(crate) fn run_here(self: &Arc<Self>, py: Python<'_>, on: Option<&Bound<'_, Port>>) -> PyResult<bool> {
        let Some(mut taken) = self.take(py) else { return Ok(false) };
        let mut stop = None;
        let deadline = BatchDeadline::of(self.batcher.clock(), taken.account.deadline);
        let running = Running::enter(py, deadline);
        while let Some((arguments, keywords)) = taken.job.next(py, &self.counters) {
            taken.account.call();
            match self.function.bind(py).call(arguments, keywords.as_ref()) {
                Ok(returned) => taken.job.returned(&returned, &self.counters),
                Err(error) => {
                    if is_request_to_stop(py, &error) {
                        stop = Some(error.clone_ref(py));
                    }
                    taken.job.raised(py, error, &self.counters);
                }
            }
        }
        let left = running.and_then(Running::leave);
        self.finish(py, taken, on);
        left?;
        stop.map_or(Ok(true), Err)
    }

    /// Runs everything that may run now on the loop's own thread, and comes back when a window ends.
    fn run_inline(self: &Arc<Self>, py: Python<'_>, port: &Bound<'_, Port>) -> PyResult<()> {
        self.batcher.release();
        while self.run_here(py, Some(port))? {}
        let Some(wait) = self.batcher.look_again_in() else { return Ok(()) };
        if self.timer_set.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let alarm = Alarm { core: Arc::clone(self), port: port.clone().unbind() };
        let set = Bound::new(py, alarm).and_then(|alarm| self.call_later(port, wait, alarm.into_any()));
        set.inspect_err(|_| self.timer_set.store(false, Ordering::Relaxed))
    }

    /// Calls back on the loop after `wait`, by whichever clock.
    fn call_later(&self, port: &Bound<'_, Port>, wait: Duration, callback: Bound<'_, PyAny>) -> PyResult<()> {
        let py = port.py();
        let Some(clock) = &self.calling.clock else { return port.get().call_later(py, wait, callback) };
        let Some(event_loop) = port.get().event_loop(py) else { return Ok(()) };
        let asked = (event_loop, wait.as_secs_f64(), callback);
        clock.bind(py).call_method1("_call_later", asked).map(drop)
    }

    /// What came of a batch. By a clock that a test moves, functions take as long as the test says.
    fn ran(&self, ran: Ran, cut: &Cut) -> Ran {
        match ran {
            Ran::Whole(_) if self.calling.clock.is_some() => Ran::Whole(self.batcher.now().since(cut.taken)),
            ran => ran,
        }
    }
}

fn is_request_to_stop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

impl TickEnd for Core {
    fn end_tick(self: Arc<Self>, py: Python<'_>, port: &Bound<'_, Port>) -> PyResult<()> {
        if self.calling.inline {
            return self.run_inline(py, port);
        }
        self.batcher.release();
        Ok(())
    }
}

/// Comes back to an inline batcher when a window ends.
#[pyclass(frozen, module = "penstock._native")]
struct Alarm {
    core: Arc<Core>,
    port: Py<Port>,
}

#[pymethods]
impl Alarm {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.core.timer_set.store(false, Ordering::Relaxed);
        self.core.run_inline(py, self.port.bind(py))
    }
}

/// Who is still there, asked with the lock held.
pub(crate) struct Roll<'a, 'py> {
    pub(crate) py: Python<'py>,
    pub(crate) core: &'a Core,
}

impl Attendance<Waiter> for Roll<'_, '_> {
    fn is_gone(&mut self, waiter: &Waiter) -> bool {
        match waiter {
            Waiter::Future { port, slot, feed, .. } => {
                port.is_done(self.py, *slot) || feed.as_ref().is_some_and(|feed| has_left(self.py, feed))
            }
            Waiter::Thread(parked, _) => parked.has_left(),
            Waiter::Shared(flight) => flight.is_deserted(|waiter| self.is_gone(waiter)),
        }
    }

    fn expire(&mut self, removed: Removed<Waiter>) {
        self.core.drop_objects(&removed.objects);
        let message = "the request could not be answered before its deadline".to_owned();
        let failure = Arc::new(Failure { kind: ErrorKind::DeadlineExceeded, message, cause: None });
        let outcomes = removed.entries.iter().map(|_| Outcome::Failed(Arc::clone(&failure))).collect();
        run::hand_out(self.py, removed.entries, Results::Each(outcomes), None);
    }

    fn forget(&mut self, removed: Removed<Waiter>) {
        self.core.drop_objects(&removed.objects);
        for entry in removed.entries {
            entry.waiter.forget();
        }
    }
}

/// True where the reader of a stream has left it.
fn has_left(py: Python<'_>, feed: &Py<PyAny>) -> bool {
    feed.bind(py).getattr(intern!(py, "left")).and_then(|left| left.is_truthy()).unwrap_or(true)
}
