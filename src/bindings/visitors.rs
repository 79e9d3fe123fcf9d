//! Requests that came through a door and are answered step by step.

use std::sync::Arc;
use std::task::Waker;

use ahash::AHashMap;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::convert::{assemble, results};
use super::errors;
use super::run::Form;
use super::served::Columns;
use super::steps::{Ending, Joined, Kind, Passengers};
use super::texts;
use crate::batch::{Entry, GroupKey, Place, Ran, Seats, Shift};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::flow::{Bell, Clock};
use crate::metrics::LockCounts;
use crate::pipeline::{AnswerRow, BatchAccount, Endpoint, Finished, Piece, Reply, Said, Speaker, Task};

/// The requests of one batch.
pub(crate) struct Visitors {
    endpoint: Arc<Endpoint>,
    /// Of the worker that runs them: once it is over, nobody joins them.
    shift: Arc<Shift>,
    columns: Columns,
    group: Arc<GroupKey<()>>,
    seats: Seats<Reply>,
    /// The last step of those who want no other.
    last: Mutex<AHashMap<usize, Py<PyAny>>>,
    account: BatchAccount,
}

impl Visitors {
    pub(crate) fn new(
        (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
        columns: Columns,
        group: Arc<GroupKey<()>>,
        entries: Vec<Entry<Reply>>,
        account: BatchAccount,
    ) -> Self {
        Self { endpoint, shift, columns, group, seats: Seats::new(entries), last: Mutex::default(), account }
    }

    fn answer(&self, seats: impl Iterator<Item = usize>, words: Vec<CoreResult<Said>>) {
        let (entries, rows): (Vec<_>, Vec<_>) =
            seats.zip(words).filter_map(|(seat, word)| Some((self.seats.take(seat)?, word))).unzip();
        if entries.is_empty() {
            return;
        }
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

impl Visitors {
    fn say_texts(&self, yielded: &Bound<'_, PyAny>, live: &[Place]) -> PyResult<()> {
        let py = yielded.py();
        let values = texts::values_of(yielded, live)?;
        let mut sleepers = Vec::new();
        let mut others = Vec::new();
        {
            let seats = self.seats.hold();
            for (place, value) in values {
                let Some(speaker) = seats.get(place.seat).and_then(Reply::speaker) else { continue };
                match texts::say(speaker, &value) {
                    Ok(sleeper) => sleepers.extend(sleeper),
                    Err(error) => others.push((place.seat, value, error)),
                }
            }
        }
        self.endpoint.wake(sleepers);
        let refusal = errors::class(py, ErrorKind::Item)?;
        for (seat, value, error) in others {
            let is_refusal = value.is_instance(&refusal)?;
            self.fail(py, &[seat], if is_refusal { PyErr::from_value(value) } else { error });
        }
        Ok(())
    }

    /// Rows go to those who want them at once; of the others the last is kept.
    fn say_rows(&self, yielded: &Bound<'_, PyAny>, live: &[Place]) -> PyResult<()> {
        let py = yielded.py();
        let (places, values) = match yielded.cast::<PyDict>() {
            Ok(values) => {
                let places = values.keys().iter().map(|index| texts::place_of(&index, live));
                (places.collect::<PyResult<Vec<_>>>()?, values.values().into_any())
            }
            Err(_) => (live.to_vec(), yielded.clone()),
        };
        let rows = if places.is_empty() {
            PyList::empty(py)
        } else {
            results::rows(&values, places.len(), "the function's step")?
        };
        let refusal = errors::class(py, ErrorKind::Item)?;
        let mut sleepers = Vec::new();
        for (place, value) in places.into_iter().zip(rows) {
            if value.is_instance(&refusal)? {
                self.fail(py, &[place.seat], PyErr::from_value(value));
            } else if self.seats.look(place.seat, |reply| reply.speaker().is_some()).unwrap_or(false) {
                sleepers.extend(self.say_row(place.seat, &value));
            } else {
                self.last.lock().insert(place.seat, value.unbind());
            }
        }
        self.endpoint.wake(sleepers);
        Ok(())
    }

    fn say_row(&self, seat: usize, value: &Bound<'_, PyAny>) -> Option<Waker> {
        match self.row(value).map(|mut rows| rows.pop()) {
            Ok(Some(Ok(row))) => {
                self.seats.look(seat, |reply| reply.speaker()?.say(Piece::Row(row))).flatten()
            }
            Ok(Some(Err(error))) => {
                self.answer(std::iter::once(seat), vec![Err(error)]);
                None
            }
            Ok(None) => None,
            Err(error) => {
                self.fail(value.py(), &[seat], error);
                None
            }
        }
    }

    /// The last word for a request: what it is finished with, or else the last of its steps.
    fn last_word(&self, py: Python<'_>, seat: usize, value: Option<Bound<'_, PyAny>>) -> CoreResult<Said> {
        let last = self.last.lock().remove(&seat);
        let silent = self.seats.look(seat, |reply| reply.speaker().map(|speaker| !speaker.has_spoken()));
        if silent.flatten() == Some(false) {
            // Its reader has had the values of the steps.
            return Ok(Said::Finish { reason: None, prompt_tokens: None });
        }
        let row = match value.or_else(|| last.map(|last| last.into_bound(py))) {
            Some(value) => self.row(&value),
            None => Err(errors::raised(py, ErrorKind::Output, "a request was finished without a value")),
        };
        let mut rows = row.unwrap_or_else(|error| self.columns.fail(py, error, 1));
        let missing = || Err(Error::new(ErrorKind::Internal, "a value has no row"));
        rows.pop().unwrap_or_else(missing).map(Said::Row)
    }
}

impl Passengers for Visitors {
    fn kind(&self) -> Kind {
        if self.endpoint.spec.task == Task::Generate { Kind::Text } else { Kind::Tensors }
    }

    fn step(&self, yielded: &Bound<'_, PyAny>, live: &[Place]) -> PyResult<()> {
        match self.kind() {
            Kind::Text => self.say_texts(yielded, live),
            _ => self.say_rows(yielded, live),
        }
    }

    /// Values that are `owned` are none: a request that nobody streams is answered with the last of its steps.
    fn finish(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>, owned: bool) -> PyResult<()> {
        let mut seats = Vec::with_capacity(values.len());
        let mut words = Vec::with_capacity(values.len());
        for (seat, value) in values {
            let value = value.into_bound(py);
            words.push(self.last_word(py, seat, if owned { None } else { Some(value) }));
            seats.push(seat);
        }
        self.answer(seats.into_iter(), words);
        Ok(())
    }

    fn end_steps(&self, _py: Python<'_>, ended: Vec<(usize, Ending)>) {
        let word = |(seat, (reason, prompt_tokens)): (usize, Ending)| {
            (seat, Ok(Said::Finish { reason: reason.map(Arc::from), prompt_tokens }))
        };
        let (seats, words): (Vec<_>, Vec<_>) = ended.into_iter().map(word).unzip();
        self.answer(seats.into_iter(), words);
    }

    fn note_prompt(&self, seat: usize, tokens: u64) {
        self.seats.look(seat, |reply| reply.speaker().map(|speaker| speaker.note_prompt(tokens)));
    }

    fn fail(&self, py: Python<'_>, seats: &[usize], error: PyErr) {
        let rows = self.columns.fail(py, error, seats.len());
        self.answer(seats.iter().copied(), rows.into_iter().map(|row| row.map(Said::Row)).collect());
    }

    /// It is Penstock's own word, and not the model's failure.
    fn refuse(&self, py: Python<'_>, seat: usize, error: Py<PyAny>) {
        let error = error.bind(py);
        let kind = errors::kind_of(error).unwrap_or(ErrorKind::Stream);
        let message = error.str().map(|text| text.to_string()).unwrap_or_default();
        self.answer(std::iter::once(seat), vec![Err(Error::new(kind, message))]);
    }

    fn look(&self, py: Python<'_>, places: &mut [Place]) {
        {
            let seats = self.seats.hold();
            for place in places.iter_mut() {
                match seats.get(place.seat) {
                    None => place.gone = true,
                    Some(reply) => {
                        place.gone = reply.is_gone();
                        place.slow = reply.speaker().is_some_and(|speaker| is_slow(speaker, place.slow));
                    }
                }
            }
        }
        for place in places.iter().filter(|place| place.gone) {
            drop(self.seats.take(place.seat));
            drop(self.last.lock().remove(&place.seat).map(|last| last.into_bound(py)));
        }
    }

    fn outside(&self) -> usize {
        if self.shift.is_over() { 0 } else { self.endpoint.waiting_in(&self.group) }
    }

    fn bell(&self) -> &Arc<Bell> {
        self.endpoint.bell()
    }

    fn may_wait(&self) -> bool {
        true
    }

    fn is_closing(&self) -> bool {
        self.endpoint.is_hurried()
    }

    fn locks(&self) -> &LockCounts {
        &self.endpoint.locks
    }

    fn join(&self, py: Python<'_>, limit: usize) -> PyResult<Option<Joined>> {
        let endpoint = &self.endpoint;
        if self.shift.is_over() {
            return Ok(None);
        }
        let Some(batch) = endpoint.join(&self.group, limit, &self.account) else { return Ok(None) };
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

/// True where a request is to get no steps for now.
fn is_slow(speaker: &Speaker, was: bool) -> bool {
    if was {
        return !speaker.has_resumed();
    }
    let slow = !speaker.has_room();
    if slow {
        speaker.pause();
    }
    slow
}
