//! One batch, from its rows to the answers of those who wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::bridge::port::{Delivery, Port, Shared};
use super::convert::assemble::{self, Input, Leaves};
use super::convert::results;
use super::convert::structure::Key;
use super::core::{Core, Counters};
use super::errors;
use super::waiter::{Failure, Outcome, Results, Waiter};
use crate::batch::{Batch, Entry};
use crate::error::ErrorKind;

/// Runs a batch and hands its answers out; waiters of the loop `on`, whose thread this is, are answered at once.
pub(crate) fn run(py: Python<'_>, core: &Core, batch: Batch<Key, Waiter>, on: Option<&Bound<'_, Port>>) {
    let count = batch.entries.len();
    let call =
        Call { function: &core.function, counters: &core.counters, isolate: core.isolate, form: &Rows };
    let objects = |number| core.take_object(number);
    let no_texts = |_, _: &_, _: &[usize]| {
        Err(errors::raised(py, ErrorKind::Internal, "texts come through the doors alone"))
    };
    let spares = core.batcher.spares();
    let results = match Input::new(py, batch.rows, count, spares, core.isolate, objects, no_texts) {
        Ok(input) => call.batch(py, &batch.group.key, &input, count),
        Err(error) => Rows.fail(py, error, count),
    };
    if let Results::Each(outcomes) = &results {
        let failed = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Value(_))).count();
        core.counters.failed.fetch_add(failed as u64, Ordering::Relaxed);
    }
    hand_out(py, batch.entries, &Arc::new(results), on);
}

/// What becomes of a function's return value: answers for callers in Python, or columns for a door.
pub(crate) trait Form {
    /// The answers to a batch, or to a part of one.
    type Answers;

    /// Takes what the function returned for `count` requests apart.
    fn split(&self, returned: Bound<'_, PyAny>, count: usize) -> PyResult<Self::Answers>;

    /// The same failure for `count` requests.
    fn fail(&self, py: Python<'_>, error: PyErr, count: usize) -> Self::Answers;

    /// Puts the answers of two parts together.
    fn join(&self, py: Python<'_>, first: Self::Answers, second: Self::Answers) -> Self::Answers;
}

/// How a batch is run.
pub(crate) struct Call<'a, F: Form> {
    pub(crate) function: &'a Py<PyAny>,
    pub(crate) counters: &'a Counters,
    pub(crate) isolate: bool,
    pub(crate) form: &'a F,
}

impl<F: Form> Call<'_, F> {
    /// Calls the function; where it raises, with halves of the batch, until only requests that fail alone have failed.
    /// A batch of n takes at most log2(n) rounds.
    pub(crate) fn batch<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        input: &Input<'py>,
        count: usize,
    ) -> F::Answers {
        match input.whole().and_then(|leaves| self.once(py, key, leaves, count)) {
            Ok(answers) => answers,
            Err(error) => self.split(py, key, input, (0, count), error),
        }
    }

    /// Answers rows `from..to`, which together raised `error`.
    fn split<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        input: &Input<'py>,
        (from, to): (usize, usize),
        error: PyErr,
    ) -> F::Answers {
        if to - from == 1 || !self.isolate || !is_worth_splitting(py, &error) {
            return self.form.fail(py, error, to - from);
        }
        let half = |from: usize, to: usize| match input.part(from, to) {
            Ok(Some(part)) => {
                self.counters.reruns.fetch_add(1, Ordering::Relaxed);
                match self.once(py, key, part, to - from) {
                    Ok(answers) => answers,
                    Err(error) => self.split(py, key, input, (from, to), error),
                }
            }
            // The function works in place on a batch too large to keep: to run it again would give wrong answers.
            Ok(None) => self.form.fail(py, error.clone_ref(py), to - from),
            Err(error) => self.form.fail(py, error, to - from),
        };
        let middle = usize::midpoint(from, to);
        let (first, second) = (half(from, middle), half(middle, to));
        self.form.join(py, first, second)
    }

    fn once<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        leaves: Leaves<'py>,
        count: usize,
    ) -> PyResult<F::Answers> {
        let start = Instant::now();
        let returned = assemble::call(self.function.bind(py), key, &leaves);
        let busy = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counters.busy_nanos.fetch_add(busy, Ordering::Relaxed);
        drop(leaves);
        self.form.split(returned?, count)
    }
}

/// An exception can be one request's fault; a wrong return value or a request to stop is the function's own.
fn is_worth_splitting(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py)
        && errors::kind_of(error.value(py).as_any()) != Some(ErrorKind::Output)
}

/// Answers for callers in Python: one row for each.
struct Rows;

impl Form for Rows {
    type Answers = Results;

    fn split(&self, returned: Bound<'_, PyAny>, count: usize) -> PyResult<Results> {
        results::split(returned, count)
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

fn outcomes(py: Python<'_>, results: Results) -> Vec<Outcome> {
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
    results: &Arc<Results>,
    on: Option<&Bound<'_, Port>>,
) {
    let mut deliveries: Vec<(Arc<Shared>, Answered)> = Vec::with_capacity(1);
    let capacity = entries.len();
    for (row, entry) in entries.into_iter().enumerate() {
        match entry.waiter {
            Waiter::Thread(parked) => parked.answer(Arc::clone(results), row),
            // Mostly all waiters are of one loop, and the first comparison is the last.
            Waiter::Future { port, slot } => {
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
            if let Err(error) = port.answer(py, results, &rows) {
                error.write_unraisable(py, None);
            }
        } else {
            port.deliver(Delivery { results: Arc::clone(results), rows });
        }
    }
}
