//! One batch, from its rows to the answers of those who wait: a job that says which call comes next.
//!
//! The calls themselves are made elsewhere: by a loop in Python on a worker thread, by the event loop's own thread for an
//! inline function. No frame of Rust stands below a user's function on a worker thread, because Python before 3.14 ends
//! threads that it finds at exit by unwinding their stack, and a frame of Rust on it would end the process instead.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyException, PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::bridge::port::{Delivery, Port, Shared};
use super::convert::assemble::{self, Arguments, Input};
use super::convert::structure::Key;
use super::convert::{arrays, results};
use super::core::Counters;
use super::errors;
use super::flight;
use super::waiter::{Failure, Outcome, Results, Waiter};
use crate::batch::{Cut, Entry, Ran};
use crate::error::ErrorKind;
use crate::pipeline::Parts;
use crate::tensor::{DType, Shape, Spares, mask};

/// What becomes of a function's return value: answers for callers in Python, or columns for a door.
pub(crate) trait Form {
    /// The answers to a batch, or to a part of one.
    type Answers;

    /// What the function is called with for a part of the batch, given its columns.
    ///
    /// # Errors
    /// Those of Python.
    fn arguments<'py>(
        &self,
        _py: Python<'py>,
        arguments: Arguments<'py>,
        _part: (usize, usize),
    ) -> PyResult<Arguments<'py>> {
        Ok(arguments)
    }

    /// False once requests were answered that a second run would answer again.
    fn may_run_again(&self) -> bool {
        true
    }

    /// Takes what the function returned for `count` requests apart.
    fn split(&self, returned: &Bound<'_, PyAny>, count: usize) -> PyResult<Self::Answers>;

    /// Cuts answers back to the lengths that their rows had before they were filled up to `longest`.
    fn cut_back(&self, answers: Self::Answers, lengths: &[u32], longest: usize) -> Self::Answers;

    /// The same failure for `count` requests.
    fn fail(&self, py: Python<'_>, error: PyErr, count: usize) -> Self::Answers;

    /// Sees to it, at the end of the batch, that everybody is answered.
    fn end(&self, _py: Python<'_>) {}

    /// Puts the answers of two parts together.
    fn join(&self, py: Python<'_>, first: Self::Answers, second: Self::Answers) -> Self::Answers;
}

/// What a function is told of rows that were filled up.
#[derive(Debug, Clone, Copy, FromPyObject)]
pub(crate) struct Fillers(pub(crate) bool, pub(crate) bool);

/// How long the rows of a batch were before they were filled up, for a function that asks.
pub(crate) struct Filled {
    lengths: Vec<u32>,
    longest: usize,
    told: Fillers,
}

impl Filled {
    /// What there is to tell of a batch that was cut so.
    pub(crate) fn of(cut: &Cut, told: Fillers) -> Self {
        let longest = cut.padded_cost / cut.lengths.len().max(1) as u64;
        Self::new(cut.lengths.clone(), usize::try_from(longest).unwrap_or_default(), told)
    }

    /// What there is to tell of rows that were so long and are `longest` now.
    pub(crate) fn new(lengths: Vec<u32>, longest: usize, told: Fillers) -> Self {
        Self { lengths, longest, told }
    }

    /// Adds `mask` and `lengths` of the rows `from..to` to the keyword arguments.
    fn add<'py>(
        &self,
        py: Python<'py>,
        (from, to): (usize, usize),
        spares: &Arc<Spares>,
        keywords: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let told = self.told.0 || self.told.1;
        let Some(lengths) = self.lengths.get(from..to).filter(|lengths| told && !lengths.is_empty()) else {
            return Ok(keywords);
        };
        let keywords = keywords.unwrap_or_else(|| PyDict::new(py));
        let rows = to - from;
        if self.told.0 {
            let memory = mask(lengths, self.longest, spares);
            let shape = Shape::from_slice(&[self.longest]);
            keywords.set_item("mask", arrays::over_memory(py, DType::Bool, &shape, rows, memory)?)?;
        }
        if self.told.1 {
            let mut memory = spares.memory();
            for length in lengths {
                memory.extend(&i64::from(*length).to_ne_bytes());
            }
            keywords
                .set_item("lengths", arrays::over_memory(py, DType::Int64, &Shape::new(), rows, memory)?)?;
        }
        Ok(Some(keywords))
    }
}

/// A batch that is being run. Where a call raises, its halves come next, until only requests that fail alone have failed:
/// a batch of n takes at most log2(n) rounds.
pub(crate) struct Job<F: Form> {
    form: F,
    key: Key,
    /// What the function is given, or why it could not be made.
    input: PyResult<Input>,
    isolate: bool,
    filled: Filled,
    parts: Parts,
    /// The exception that split the part that runs now off a larger one.
    cause: Option<PyErr>,
    began: Instant,
    /// Time that the function had, all rounds together.
    busy: Duration,
    /// Calls of the function beyond the first.
    reruns: u32,
    answers: Option<F::Answers>,
    count: usize,
    ran: Ran,
}

impl<F: Form> Job<F> {
    /// A job for `count` requests.
    pub(crate) fn new(
        form: F,
        key: Key,
        input: PyResult<Input>,
        filled: Filled,
        isolate: bool,
        count: usize,
    ) -> Self {
        Self {
            form,
            key,
            input,
            isolate,
            filled,
            parts: Parts::new(count),
            cause: None,
            began: Instant::now(),
            busy: Duration::ZERO,
            reruns: 0,
            answers: None,
            count,
            ran: Ran::Unknown,
        }
    }

    /// Does one step; a panic in it fails whoever waits with `InternalError`, and ends the job.
    fn guarded<T>(&mut self, py: Python<'_>, otherwise: T, step: impl FnOnce(&mut Self) -> T) -> T {
        let stepped = catch_unwind(AssertUnwindSafe(|| step(&mut *self)));
        stepped.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().copied();
            let text =
                text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
            let error = errors::raised(py, ErrorKind::Internal, &format!("penstock panicked: {text}"));
            self.parts.stop();
            self.answers = Some(self.form.fail(py, error, self.count));
            otherwise
        })
    }

    /// What to call the function with next; `None` where the job is done.
    pub(crate) fn next<'py>(&mut self, py: Python<'py>, counters: &Counters) -> Option<Arguments<'py>> {
        self.guarded(py, None, |job| job.next_step(py, counters))
    }

    fn next_step<'py>(&mut self, py: Python<'py>, counters: &Counters) -> Option<Arguments<'py>> {
        while self.parts.next().is_some() {
            match self.arguments(py, counters) {
                Ok(Some(arguments)) => {
                    self.reruns += u32::from(!self.parts.is_whole());
                    self.began = Instant::now();
                    return Some(arguments);
                }
                // The function works in place on a batch too large to keep: to run it again would give wrong answers.
                Ok(None) => {
                    let error = self.cause.as_ref().map(|cause| cause.clone_ref(py));
                    self.fail(py, error.unwrap_or_else(|| errors::raised(py, ErrorKind::Model, "unknown")));
                }
                Err(error) => self.fail(py, error),
            }
        }
        None
    }

    fn arguments<'py>(&self, py: Python<'py>, counters: &Counters) -> PyResult<Option<Arguments<'py>>> {
        let input = self.input.as_ref().map_err(|error| error.clone_ref(py))?;
        let Range { start: from, end: to } = self.parts.now();
        let leaves = if self.parts.is_whole() {
            input.whole(py)?
        } else {
            counters.reruns.fetch_add(1, Ordering::Relaxed);
            let Some(leaves) = input.part(py, from, to)? else { return Ok(None) };
            leaves
        };
        let (arguments, keywords) = assemble::arguments(py, &self.key, &leaves)?;
        let keywords = self.filled.add(py, (from, to), input.spares(), keywords)?;
        self.form.arguments(py, (arguments, keywords), (from, to)).map(Some)
    }

    /// Takes what the function returned. The caller holds the only reference that it knows of.
    pub(crate) fn returned(&mut self, returned: &Bound<'_, PyAny>, counters: &Counters) {
        self.count_busy(counters);
        if self.parts.is_whole() {
            self.ran = Ran::Whole(self.busy);
        }
        let py = returned.py();
        self.guarded(py, (), |job| match job.form.split(returned, job.parts.now().len()) {
            Ok(answers) => {
                let lengths = job.filled.lengths.get(job.parts.now()).filter(|lengths| !lengths.is_empty());
                let answers = match lengths {
                    Some(lengths) => job.form.cut_back(answers, lengths, job.filled.longest),
                    None => answers,
                };
                job.add(py, answers);
            }
            Err(error) => job.split_or_fail(py, error),
        });
    }

    /// Takes what the function raised.
    pub(crate) fn raised(&mut self, py: Python<'_>, error: PyErr, counters: &Counters) {
        self.count_busy(counters);
        self.guarded(py, (), |job| job.split_or_fail(py, error));
    }

    /// Takes a failure that no smaller part of the batch would escape.
    pub(crate) fn failed(&mut self, py: Python<'_>, error: PyErr, counters: &Counters) {
        self.count_busy(counters);
        self.guarded(py, (), |job| job.fail(py, error));
    }

    /// What there is to learn from the batch.
    pub(crate) fn ran(&self) -> Ran {
        self.ran
    }

    /// Time that the function has had so far.
    pub(crate) fn busy(&self) -> Duration {
        self.busy
    }

    /// Calls of the function beyond the first, so far.
    pub(crate) fn reruns(&self) -> u32 {
        self.reruns
    }

    fn count_busy(&mut self, counters: &Counters) {
        let took = self.began.elapsed();
        self.busy += took;
        counters.count_busy(took);
    }

    /// The answers, once [`next`](Self::next) has said that the job is done.
    pub(crate) fn into_answers(self, py: Python<'_>) -> F::Answers {
        self.form.end(py);
        let missing = || {
            let error = errors::raised(py, ErrorKind::Internal, "a batch has no answers");
            self.form.fail(py, error, self.count)
        };
        self.answers.unwrap_or_else(missing)
    }

    fn split_or_fail(&mut self, py: Python<'_>, error: PyErr) {
        let rows = self.parts.now().len();
        if is_out_of_memory(py, &error) {
            self.ran = Ran::OutOfMemory(rows);
        }
        if rows == 1 || !self.isolate || !self.form.may_run_again() || !is_worth_splitting(py, &error) {
            self.parts.fail();
            return self.fail(py, error);
        }
        self.cause = Some(error);
        self.parts.split();
    }

    fn fail(&mut self, py: Python<'_>, error: PyErr) {
        let answers = self.form.fail(py, error, self.parts.now().len());
        self.add(py, answers);
    }

    fn add(&mut self, py: Python<'_>, answers: F::Answers) {
        self.answers = Some(match self.answers.take() {
            Some(before) => self.form.join(py, before, answers),
            None => answers,
        });
    }
}

/// Memory that ran out is the batch's fault, not a request's: Python's own word for it, and those of `PyTorch`, `CuPy` and `JAX`.
fn is_out_of_memory(py: Python<'_>, error: &PyErr) -> bool {
    if error.is_instance_of::<PyMemoryError>(py) {
        return true;
    }
    let class = error.get_type(py).name().map(|name| name.to_string()).unwrap_or_default();
    if class == "OutOfMemoryError" {
        return true;
    }
    let text = || error.value(py).str().map(|text| text.to_string()).unwrap_or_default();
    (error.is_instance_of::<PyRuntimeError>(py) || class == "XlaRuntimeError")
        && ["CUDA out of memory", "CUDA error: out of memory", "RESOURCE_EXHAUSTED: Out of memory"]
            .iter()
            .any(|words| text().contains(words))
}

/// An exception can be one request's fault; a wrong return value or a request to stop is the function's own.
fn is_worth_splitting(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py)
        && !matches!(errors::kind_of(error.value(py).as_any()), Some(ErrorKind::Output | ErrorKind::Internal))
}

/// Answers for callers in Python: one row for each.
pub(crate) struct Rows;

impl Form for Rows {
    type Answers = Results;

    fn split(&self, returned: &Bound<'_, PyAny>, count: usize) -> PyResult<Results> {
        results::split(returned, count)
    }

    /// A caller in Python gets its row as the function made it.
    fn cut_back(&self, answers: Results, _lengths: &[u32], _longest: usize) -> Results {
        answers
    }

    /// One exception for each request: what the function raised, wrapped unless it is Penstock's own word for it.
    fn fail(&self, py: Python<'_>, error: PyErr, count: usize) -> Results {
        let failure = Failure::of(py, error);
        if failure.kind != ErrorKind::Item {
            let failure = Arc::new(failure);
            return Results::Each((0..count).map(|_| Outcome::Failed(Arc::clone(&failure))).collect());
        }
        let refusals = (0..count).filter_map(|_| {
            let cause = failure.cause.as_ref()?.bind(py);
            let copy = results::copy_exception(cause).unwrap_or_else(|_| cause.clone());
            Some(Outcome::Refused(copy.unbind()))
        });
        Results::Each(refusals.collect())
    }

    fn join(&self, py: Python<'_>, first: Results, second: Results) -> Results {
        let mut outcomes = outcomes(py, first);
        outcomes.extend(self::outcomes(py, second));
        Results::Each(outcomes)
    }
}

/// What each request gets.
pub(crate) fn outcomes(py: Python<'_>, results: Results) -> Vec<Outcome> {
    match results {
        Results::Rows(rows) => rows.bind(py).iter().map(|row| Outcome::Value(row.unbind())).collect(),
        Results::Each(outcomes) => outcomes,
    }
}

/// Which rows answer which futures of one event loop.
type Answered = Vec<(usize, usize)>;

/// Gives every waiter its row: one delivery for each event loop.
pub(crate) fn hand_out(
    py: Python<'_>,
    entries: Vec<Entry<Waiter>>,
    results: Results,
    on: Option<&Bound<'_, Port>>,
) {
    let (entries, results) = flight::disembark(py, entries, results);
    let results = Arc::new(results);
    let mut deliveries: Vec<(Arc<Shared>, Answered)> = Vec::with_capacity(1);
    let capacity = entries.len();
    for (row, entry) in entries.into_iter().enumerate() {
        match entry.waiter {
            Waiter::Thread(parked, _) => parked.answer((Arc::clone(&results), row)),
            // Whoever shares an answer has been put into the place of the flight.
            Waiter::Shared(flight) => drop(flight),
            // Mostly all waiters are of one loop, and the first comparison is the last.
            Waiter::Future { port, slot, .. } => {
                let known = deliveries.iter().position(|(known, _)| Arc::ptr_eq(known, &port));
                let at = known.unwrap_or(deliveries.len());
                if known.is_none() {
                    deliveries.push((port, Vec::with_capacity(capacity)));
                }
                if let Some((_, rows)) = deliveries.get_mut(at) {
                    rows.push((slot, row));
                }
            }
        }
    }
    for (port, rows) in deliveries {
        if on.is_some_and(|on| Arc::ptr_eq(&on.get().shared, &port)) {
            if let Err(error) = port.answer(py, &results, &rows) {
                error.write_unraisable(py, None);
            }
        } else {
            port.deliver(Delivery::Rows { results: Arc::clone(&results), rows });
        }
    }
}
