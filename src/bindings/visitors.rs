//! Requests that came through a door and are answered step by step.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::convert::assemble;
use super::errors;
use super::run::Form;
use super::served::Columns;
use super::steps::{Joined, Passengers, Seats};
use crate::batch::{Entry, GroupKey, Ran};
use crate::error::{ErrorKind, Result as CoreResult};
use crate::flow::Clock;
use crate::pipeline::{AnswerRow, BatchAccount, Endpoint, Finished, Reply, Said};

/// The requests of one batch.
pub(crate) struct Visitors {
    endpoint: Arc<Endpoint>,
    columns: Columns,
    group: Arc<GroupKey<()>>,
    seats: Seats<Reply>,
    account: BatchAccount,
}

impl Visitors {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        columns: Columns,
        group: Arc<GroupKey<()>>,
        entries: Vec<Entry<Reply>>,
        account: BatchAccount,
    ) -> Self {
        Self { endpoint, columns, group, seats: Seats::new(entries), account }
    }

    fn answer(&self, seats: impl Iterator<Item = usize>, rows: Vec<CoreResult<AnswerRow>>) {
        let (entries, rows) = seats
            .zip(rows)
            .filter_map(|(seat, row)| Some((self.seats.take(seat)?, row.map(Said::Row))))
            .unzip();
        let mut account = self.account.clone();
        account.close(account.taken.elapsed());
        self.endpoint.answer(Finished { entries, rows, account, ran: Ran::Unknown });
    }

    /// The answer that a value is: an output as it is, or several by name.
    fn row(&self, value: &Bound<'_, PyAny>) -> PyResult<Vec<CoreResult<AnswerRow>>> {
        let py = value.py();
        let rows = match value.cast::<PyDict>() {
            Ok(outputs) => {
                let rows = PyDict::new(py);
                for (name, output) in outputs {
                    rows.set_item(name, PyList::new(py, [output])?)?;
                }
                rows.into_any()
            }
            Err(_) => PyList::new(py, [value])?.into_any(),
        };
        self.columns.split(&rows, 1)
    }
}

impl Passengers for Visitors {
    /// Values that are `owned` are those of all steps: a request that nobody streams is answered with the last of them.
    fn finish(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>, owned: bool) -> PyResult<()> {
        let mut seats = Vec::with_capacity(values.len());
        let mut rows = Vec::with_capacity(values.len());
        for (seat, value) in values {
            let value = value.into_bound(py);
            let last = if owned {
                value.cast::<PyList>().ok().and_then(|steps| steps.iter().last())
            } else {
                Some(value)
            };
            let row = match last {
                Some(value) => self.row(&value),
                None => Err(errors::raised(py, ErrorKind::Output, "a request was finished without a value")),
            };
            rows.extend(row.unwrap_or_else(|error| self.columns.fail(py, error, 1)));
            seats.push(seat);
        }
        self.answer(seats.into_iter(), rows);
        Ok(())
    }

    fn fail(&self, py: Python<'_>, seats: &[usize], error: PyErr) {
        let rows = self.columns.fail(py, error, seats.len());
        self.answer(seats.iter().copied(), rows);
    }

    fn refuse(&self, py: Python<'_>, seat: usize, error: Py<PyAny>) {
        self.fail(py, &[seat], PyErr::from_value(error.into_bound(py)));
    }

    fn is_gone(&self, _py: Python<'_>, seat: usize) -> bool {
        let gone = self.seats.look(seat, Reply::is_gone).unwrap_or(true);
        if gone {
            drop(self.seats.take(seat));
        }
        gone
    }

    fn join(&self, py: Python<'_>, limit: usize) -> PyResult<Option<Joined>> {
        let endpoint = &self.endpoint;
        let Some(batch) = endpoint.join(&self.group, limit) else { return Ok(None) };
        let count = batch.entries.len();
        // They are seated first: whatever goes wrong from here on, they are told.
        let first = self.seats.add(batch.entries);
        let columns = self
            .columns
            .input(py, batch.rows, count, false)
            .and_then(|input| assemble::arguments(py, &None, &input.whole(py)?));
        Ok(self.board(py, (first, count), columns, batch.cut.lengths))
    }

    fn feed(&self, _py: Python<'_>, _seat: usize) -> Option<Py<PyAny>> {
        None
    }

    fn send(&self, _py: Python<'_>, _values: Vec<(usize, Py<PyAny>)>) {}

    fn remaining(&self, seats: &[usize]) -> Option<f64> {
        let deadline = self.seats.earliest_deadline(seats)?;
        Some(deadline.since(self.endpoint.clock().now()).as_secs_f64())
    }

    fn waiting(&self) -> Vec<usize> {
        self.seats.taken()
    }
}
