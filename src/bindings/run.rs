//! One batch, from its rows to the answers of those who wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::bridge::port::{Delivery, Port, Shared};
use super::convert::assemble::{self, Leaves};
use super::convert::results;
use super::convert::structure::Key;
use super::core::Core;
use super::errors;
use super::waiter::{Failure, Outcome, Results, Waiter};
use crate::batch::{Batch, Entry};
use crate::error::ErrorKind;

/// Runs a batch and hands its answers out; waiters of the loop `on`, whose thread this is, are answered at once.
pub(crate) fn run(
    py: Python<'_>,
    core: &Core,
    batch: Batch<Key, Waiter>,
    on: Option<&Bound<'_, Port>>,
) {
    let count = batch.entries.len();
    let results = assemble::leaves(py, batch.rows, count, |number| core.take_object(number))
        .map(|leaves| call_function(py, core, &batch.group.key, leaves, count))
        .unwrap_or_else(|error| Results::Each(fail_all(py, error, count)));
    if let Results::Each(outcomes) = &results {
        let failed = outcomes
            .iter()
            .filter(|outcome| !matches!(outcome, Outcome::Value(_)))
            .count();
        core.counters
            .failed
            .fetch_add(failed as u64, Ordering::Relaxed);
    }
    hand_out(py, batch.entries, Arc::new(results), on);
}

fn call_function<'py>(
    py: Python<'py>,
    core: &Core,
    key: &Key,
    leaves: Leaves<'py>,
    count: usize,
) -> Results {
    match call_once(py, core, key, &leaves, count) {
        Ok(results) => results,
        Err(error) if count > 1 && core.isolate && is_worth_splitting(py, &error) => {
            let mut outcomes = Vec::with_capacity(count);
            isolate(py, core, key, &leaves, count, &mut outcomes);
            Results::Each(outcomes)
        }
        Err(error) => Results::Each(fail_all(py, error, count)),
    }
}

fn call_once<'py>(
    py: Python<'py>,
    core: &Core,
    key: &Key,
    leaves: &Leaves<'py>,
    count: usize,
) -> PyResult<Results> {
    let start = Instant::now();
    let returned = assemble::call(core.function.bind(py), key, leaves);
    let busy = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    core.counters.busy_nanos.fetch_add(busy, Ordering::Relaxed);
    results::split(returned?, count)
}

/// Calls the function for either half, and for their halves, until only requests that fail alone have failed.
fn isolate<'py>(
    py: Python<'py>,
    core: &Core,
    key: &Key,
    leaves: &Leaves<'py>,
    count: usize,
    outcomes: &mut Vec<Outcome>,
) {
    let middle = count / 2;
    for (from, to) in [(0, middle), (middle, count)] {
        let size = to - from;
        core.counters.reruns.fetch_add(1, Ordering::Relaxed);
        let half = assemble::part(leaves, from, to);
        let done = half.and_then(|half| match call_once(py, core, key, &half, size) {
            Err(error) if size > 1 && is_worth_splitting(py, &error) => {
                isolate(py, core, key, &half, size, outcomes);
                Ok(None)
            }
            other => other.map(Some),
        });
        match done {
            Ok(None) => {}
            Ok(Some(Results::Each(each))) => outcomes.extend(each),
            Ok(Some(Results::Rows(rows))) => outcomes.extend(values(rows.bind(py))),
            Err(error) => outcomes.extend(fail_all(py, error, size)),
        }
    }
}

/// An exception can be one request's fault; a wrong return value or a request to stop is the function's own.
fn is_worth_splitting(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<pyo3::exceptions::PyException>(py)
        && errors::kind_of(error.value(py).as_any()) != Some(ErrorKind::Output)
}

fn values(rows: &Bound<'_, PyList>) -> Vec<Outcome> {
    rows.iter()
        .map(|row| Outcome::Value(row.unbind()))
        .collect()
}

/// One exception for each request: what the function raised, wrapped unless it is Penstock's own word for it.
fn fail_all(py: Python<'_>, error: PyErr, count: usize) -> Vec<Outcome> {
    let value = error.into_value(py).into_bound(py).into_any();
    match errors::kind_of(&value) {
        Some(ErrorKind::Item) => (0..count)
            .map(|_| results::copy_exception(&value).unwrap_or_else(|_| value.clone()))
            .map(|exception| Outcome::Refused(exception.unbind()))
            .collect(),
        known => {
            let text = value.str().map(|text| text.to_string()).unwrap_or_default();
            let (kind, message, cause) = match known {
                Some(ErrorKind::Output) => (ErrorKind::Output, text, None),
                _ => {
                    let class = value
                        .get_type()
                        .name()
                        .map(|name| name.to_string())
                        .unwrap_or_default();
                    let message = format!("the function raised {class}: {text}");
                    (ErrorKind::Model, message, Some(value.unbind()))
                }
            };
            let failure = Arc::new(Failure {
                kind,
                message,
                cause,
            });
            (0..count)
                .map(|_| Outcome::Failed(Arc::clone(&failure)))
                .collect()
        }
    }
}

/// Gives every waiter its row: one delivery for each event loop.
pub(crate) fn hand_out(
    py: Python<'_>,
    entries: Vec<Entry<Waiter>>,
    results: Arc<Results>,
    on: Option<&Bound<'_, Port>>,
) {
    let mut deliveries: Vec<(Arc<Shared>, Vec<(usize, usize)>)> = Vec::new();
    let capacity = entries.len();
    for (row, entry) in entries.into_iter().enumerate() {
        match entry.waiter {
            Waiter::Thread(parked) => parked.answer(Arc::clone(&results), row),
            Waiter::Future { port, slot } => match deliveries.last_mut() {
                Some((last, rows)) if Arc::ptr_eq(last, &port) => rows.push((slot, row)),
                _ => match deliveries
                    .iter_mut()
                    .find(|(known, _)| Arc::ptr_eq(known, &port))
                {
                    Some((_, rows)) => rows.push((slot, row)),
                    None => {
                        let mut rows = Vec::with_capacity(capacity);
                        rows.push((slot, row));
                        deliveries.push((port, rows));
                    }
                },
            },
        }
    }
    for (port, rows) in deliveries {
        if on.is_some_and(|on| Arc::ptr_eq(&on.get().shared, &port)) {
            if let Err(error) = port.answer(py, &results, &rows) {
                error.write_unraisable(py, None);
            }
        } else {
            port.deliver(Delivery {
                results: Arc::clone(&results),
                rows,
            });
        }
    }
}
