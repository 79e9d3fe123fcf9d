//! Callers in Python who wait for a batch that is answered step by step.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::bridge::port::{Delivery, Shared};
use super::convert::structure::Key;
use super::convert::{assemble, results};
use super::core::{Core, Roll};
use super::errors;
use super::run::{self, Form, Rows};
use super::steps::{Ending, Joined, Kind, Passengers};
use super::waiter::{Outcome, Results, Waiter};
use crate::batch::{Attendance, Entry, GroupKey, Place, Seats};
use crate::error::ErrorKind;
use crate::flow::Bell;
use crate::metrics::LockCounts;

/// The callers of one batch.
pub(crate) struct Riders {
    core: Arc<Core>,
    group: Arc<GroupKey<Key>>,
    seats: Seats<Waiter>,
}

impl Riders {
    pub(crate) fn new(core: Arc<Core>, group: Arc<GroupKey<Key>>, entries: Vec<Entry<Waiter>>) -> Self {
        Self { core, group, seats: Seats::new(entries) }
    }

    fn answer(&self, py: Python<'_>, seats: impl Iterator<Item = usize>, outcomes: Vec<Outcome>) {
        let (entries, outcomes): (Vec<_>, Vec<_>) =
            seats.zip(outcomes).filter_map(|(seat, outcome)| Some((self.seats.take(seat)?, outcome))).unzip();
        let failed = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Value(_))).count();
        self.core.counters.failed.fetch_add(failed as u64, Ordering::Relaxed);
        run::hand_out(py, entries, Results::Each(outcomes), None);
    }
}

impl Passengers for Riders {
    fn kind(&self) -> Kind {
        Kind::Callers
    }

    fn step(&self, yielded: &Bound<'_, PyAny>, _live: &[Place]) -> PyResult<()> {
        let message = "values for callers in python are kept in python";
        Err(errors::raised(yielded.py(), ErrorKind::Internal, message))
    }

    fn end_steps(&self, py: Python<'_>, ended: Vec<(usize, Ending)>) {
        let seats: Vec<_> = ended.into_iter().map(|(seat, _)| seat).collect();
        self.fail(py, &seats, errors::raised(py, ErrorKind::Internal, "callers in python get values"));
    }

    fn finish(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>, owned: bool) -> PyResult<()> {
        let (seats, values): (Vec<_>, Vec<_>) = values.into_iter().unzip();
        let outcomes = if owned {
            values.into_iter().map(Outcome::Value).collect()
        } else {
            let count = values.len();
            let values = PyList::new(py, values)?.into_any();
            run::outcomes(py, results::split(&values, count)?)
        };
        self.answer(py, seats.into_iter(), outcomes);
        Ok(())
    }

    fn fail(&self, py: Python<'_>, seats: &[usize], error: PyErr) {
        let outcomes = run::outcomes(py, Rows.fail(py, error, seats.len()));
        self.answer(py, seats.iter().copied(), outcomes);
    }

    fn refuse(&self, py: Python<'_>, seat: usize, error: Py<PyAny>) {
        self.answer(py, std::iter::once(seat), vec![Outcome::Refused(error)]);
    }

    fn look(&self, py: Python<'_>, places: &mut [Place]) {
        let mut roll = Roll { py, core: &self.core };
        for place in places {
            let feed = self.feed(py, place.seat);
            let gone = self.seats.hold().get(place.seat).is_none_or(|waiter| roll.is_gone(waiter));
            place.gone = gone;
            if gone {
                if let Some(entry) = self.seats.take(place.seat) {
                    entry.waiter.forget();
                }
            } else if let Some(feed) = feed {
                let slow = feed.call_method0(py, intern!(py, "is_slow")).and_then(|slow| slow.is_truthy(py));
                place.slow = slow.unwrap_or(false);
            }
        }
    }

    fn outside(&self) -> usize {
        self.core.batcher.waiting_in(&self.group)
    }

    fn bell(&self) -> &Arc<Bell> {
        &self.core.bell
    }

    /// An inline function runs on the very loop that its readers are on.
    fn may_wait(&self) -> bool {
        !self.core.calling.inline
    }

    fn is_closing(&self) -> bool {
        self.core.hurried.load(Ordering::Relaxed)
    }

    fn locks(&self) -> &LockCounts {
        &self.core.locks
    }

    fn join(&self, py: Python<'_>, limit: usize) -> PyResult<Option<Joined>> {
        let core = &self.core;
        let Some(batch) = core.batcher.join(&self.group, limit, &mut Roll { py, core }) else {
            return Ok(None);
        };
        let count = batch.entries.len();
        // They are seated first: whatever goes wrong from here on, they are told.
        let first = self.seats.add(batch.entries);
        let columns = core
            .input(py, batch.rows, count, false)
            .and_then(|input| assemble::arguments(py, &self.group.key, &input.whole(py)?));
        Ok(self.board(py, (first, count), columns, Vec::new()))
    }

    fn feed(&self, py: Python<'_>, seat: usize) -> Option<Py<PyAny>> {
        let feed = |waiter: &Waiter| match waiter {
            Waiter::Future { feed, .. } => feed.as_ref().map(|feed| feed.clone_ref(py)),
            _ => None,
        };
        self.seats.look(seat, feed).flatten()
    }

    fn send(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>) {
        let mut deliveries: Vec<(Arc<Shared>, Vec<_>)> = Vec::with_capacity(1);
        for (seat, value) in values {
            let to = self.seats.look(seat, |waiter| match waiter {
                Waiter::Future { port, feed: Some(feed), .. } => Some((Arc::clone(port), feed.clone_ref(py))),
                _ => None,
            });
            let Some(Some((port, feed))) = to else { continue };
            match deliveries.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &port)) {
                Some((_, values)) => values.push((feed, value)),
                None => deliveries.push((port, vec![(feed, value)])),
            }
        }
        for (port, values) in deliveries {
            port.deliver(Delivery::Values(values));
        }
    }

    fn waiting(&self) -> Vec<usize> {
        self.seats.taken()
    }

    fn remaining(&self, seats: &[usize]) -> Option<f64> {
        let deadline = self.seats.earliest_deadline(seats)?;
        Some(deadline.since(self.core.batcher.now()).as_secs_f64())
    }
}
