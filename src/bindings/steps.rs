//! A batch whose function is a generator: it is answered request by request, while others leave and join.
//!
//! The generator itself is driven in Python (`penstock._steps`); here is who still waits, what they are told, and how the
//! run of such a function fits the job that every batch is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::convert::assemble::Arguments;
use super::convert::results;
use super::errors;
use super::run::Form;
use crate::batch::Entry;
use crate::error::ErrorKind;
use crate::flow::Moment;

/// Columns as the function of a whole batch would be given them, the seat of their first row, how many rows there are,
/// and how long these were where they were filled up.
pub(crate) type Joined = (Py<PyTuple>, usize, usize, Vec<u32>);

/// Those who wait for a running batch, whoever they are. Each has a seat, which stands empty once they were answered or
/// have left.
pub(crate) trait Passengers: Send + Sync {
    /// Gives the requests in these seats a value each; values that are `owned` are nobody else's.
    fn finish(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>, owned: bool) -> PyResult<()>;

    /// Fails the requests in these seats, each with an exception of its own.
    fn fail(&self, py: Python<'_>, seats: &[usize], error: PyErr);

    /// Raises that very exception for the request in this seat.
    fn refuse(&self, py: Python<'_>, seat: usize, error: Py<PyAny>);

    /// Empties the seat if nobody waits there any more; answers whether it is empty.
    fn is_gone(&self, py: Python<'_>, seat: usize) -> bool;

    /// Seats at most `limit` requests that wait for a batch like this one.
    fn join(&self, py: Python<'_>, limit: usize) -> PyResult<Option<Joined>>;

    /// Where the values of every step go that the request in this seat wants at once, if it does.
    fn feed(&self, py: Python<'_>, seat: usize) -> Option<Py<PyAny>>;

    /// Sends values to feeds.
    fn send(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>);

    /// Seconds until the earliest deadline among these seats.
    fn remaining(&self, seats: &[usize]) -> Option<f64>;

    /// The seats that are not empty.
    fn waiting(&self) -> Vec<usize>;

    /// Fails whoever was forgotten: nobody waits for ever.
    fn end(&self, py: Python<'_>) {
        let forgotten = self.waiting();
        if !forgotten.is_empty() {
            self.fail(py, &forgotten, errors::raised(py, ErrorKind::Internal, "a batch has no answers"));
        }
    }

    /// What those who were seated from `first` on bring along; they are told where that could not be made.
    fn board(
        &self,
        py: Python<'_>,
        (first, count): (usize, usize),
        brought: PyResult<Arguments<'_>>,
        lengths: Vec<u32>,
    ) -> Option<Joined> {
        match brought {
            Ok((columns, _)) => Some((columns.unbind(), first, count, lengths)),
            Err(error) => {
                self.fail(py, &(first..first + count).collect::<Vec<_>>(), error);
                None
            }
        }
    }
}

/// Who sits where.
pub(crate) struct Seats<W>(Mutex<Vec<Option<Entry<W>>>>);

impl<W> Seats<W> {
    pub(crate) fn new(entries: Vec<Entry<W>>) -> Self {
        Self(Mutex::new(entries.into_iter().map(Some).collect()))
    }

    /// Seats more; the first of their seats.
    pub(crate) fn add(&self, entries: Vec<Entry<W>>) -> usize {
        let mut seats = self.0.lock();
        let first = seats.len();
        seats.extend(entries.into_iter().map(Some));
        first
    }

    pub(crate) fn take(&self, seat: usize) -> Option<Entry<W>> {
        self.0.lock().get_mut(seat).and_then(Option::take)
    }

    /// Looks at who sits there.
    pub(crate) fn look<T>(&self, seat: usize, look: impl FnOnce(&W) -> T) -> Option<T> {
        self.0.lock().get(seat)?.as_ref().map(|entry| look(&entry.waiter))
    }

    /// The seats that are not empty.
    pub(crate) fn taken(&self) -> Vec<usize> {
        self.0.lock().iter().enumerate().filter(|(_, entry)| entry.is_some()).map(|(seat, _)| seat).collect()
    }

    pub(crate) fn earliest_deadline(&self, seats: &[usize]) -> Option<Moment> {
        let all = self.0.lock();
        seats.iter().filter_map(|seat| all.get(*seat)?.as_ref()?.deadline).min()
    }
}

/// The run of a generator over a batch, or over a part of one.
pub(crate) struct Run {
    passengers: Box<dyn Passengers>,
    /// The seats of this run: those of its part, and of whoever joined.
    seats: Mutex<Vec<usize>>,
    /// True once anybody was told anything: from then on the batch cannot be run again.
    begun: AtomicBool,
    largest: usize,
    /// How long the first rows were before they were filled up, where they were.
    lengths: Vec<u32>,
}

/// What becomes of a batch: it is answered as a whole, or step by step.
pub(crate) enum Answering<F> {
    Whole(F),
    Steps(Arc<Run>),
}

impl Run {
    /// A run over a batch that may have `largest` requests at a time, and whose rows had these lengths before they were
    /// filled up.
    pub(crate) fn new(passengers: Box<dyn Passengers>, largest: usize, lengths: Vec<u32>) -> Arc<Self> {
        let (seats, begun) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { passengers, seats, begun, largest, lengths })
    }

    fn start<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        (columns, keywords): Arguments<'py>,
        (from, to): (usize, usize),
    ) -> PyResult<Arguments<'py>> {
        *self.seats.lock() = (from..to).collect();
        self.begun.store(false, Ordering::Relaxed);
        let lengths = self.lengths.get(from..to).unwrap_or_default().to_vec();
        let steps = Steps { run: Arc::clone(self), columns: columns.unbind(), size: to - from, lengths };
        Ok((PyTuple::new(py, [Bound::new(py, steps)?])?, keywords))
    }

    fn seats_of(&self, indices: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let seats = self.seats.lock();
        indices.into_iter().filter_map(|index| seats.get(index).copied()).collect()
    }

    /// Fails whoever still waits for this run.
    fn fail(&self, py: Python<'_>, error: PyErr) {
        let seats = std::mem::take(&mut *self.seats.lock());
        self.passengers.fail(py, &seats, error);
    }
}

impl<F: Form> Form for Answering<F> {
    /// `None` where everybody was answered on the way.
    type Answers = Option<F::Answers>;

    fn arguments<'py>(
        &self,
        py: Python<'py>,
        arguments: Arguments<'py>,
        part: (usize, usize),
    ) -> PyResult<Arguments<'py>> {
        match self {
            Self::Whole(form) => form.arguments(py, arguments, part),
            Self::Steps(run) => run.start(py, arguments, part),
        }
    }

    fn may_run_again(&self) -> bool {
        match self {
            Self::Whole(form) => form.may_run_again(),
            Self::Steps(run) => !run.begun.load(Ordering::Relaxed),
        }
    }

    fn split(&self, returned: &Bound<'_, PyAny>, count: usize) -> PyResult<Self::Answers> {
        match self {
            Self::Whole(form) => form.split(returned, count).map(Some),
            Self::Steps(_) => Ok(None),
        }
    }

    fn cut_back(&self, answers: Self::Answers, lengths: &[u32], longest: usize) -> Self::Answers {
        match self {
            Self::Whole(form) => answers.map(|answers| form.cut_back(answers, lengths, longest)),
            Self::Steps(_) => answers,
        }
    }

    fn fail(&self, py: Python<'_>, error: PyErr, count: usize) -> Self::Answers {
        match self {
            Self::Whole(form) => Some(form.fail(py, error, count)),
            Self::Steps(run) => {
                run.fail(py, error);
                None
            }
        }
    }

    fn end(&self, py: Python<'_>) {
        match self {
            Self::Whole(form) => form.end(py),
            Self::Steps(run) => run.passengers.end(py),
        }
    }

    fn join(&self, py: Python<'_>, first: Self::Answers, second: Self::Answers) -> Self::Answers {
        match (self, first, second) {
            (Self::Whole(form), Some(first), Some(second)) => Some(form.join(py, first, second)),
            (_, first, second) => first.or(second),
        }
    }
}

/// A run's side of `penstock.Batch`, which documents it. Requests go by the index that their batch gives them.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Steps {
    run: Arc<Run>,
    /// The columns of the requests that the run began with.
    #[pyo3(get)]
    columns: Py<PyTuple>,
    /// How many these are.
    #[pyo3(get)]
    size: usize,
    /// How long their rows were before they were filled up, where they were.
    #[pyo3(get)]
    lengths: Vec<u32>,
}

#[pymethods]
impl Steps {
    /// Requests that the batch may have at a time.
    #[getter]
    fn largest(&self) -> usize {
        self.run.largest
    }

    /// The rows of what the function yielded for `count` requests, nobody else's any more.
    #[staticmethod]
    fn rows<'py>(yielded: &Bound<'py, PyAny>, count: usize) -> PyResult<Bound<'py, PyList>> {
        results::rows(yielded, count, "the function's step")
    }

    /// Gives requests a value each; values that are `owned` are nobody else's.
    fn finish(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>, owned: bool) -> PyResult<()> {
        self.begin();
        self.run.passengers.finish(py, self.seated(values), owned)
    }

    /// Fails requests, each with an exception of its own.
    fn fail(&self, py: Python<'_>, indices: Vec<usize>, error: Bound<'_, PyAny>) {
        self.begin();
        self.run.passengers.fail(py, &self.run.seats_of(indices), PyErr::from_value(error));
    }

    /// Raises that very exception for a request.
    fn refuse(&self, py: Python<'_>, index: usize, error: Py<PyAny>) {
        self.begin();
        if let Some(seat) = self.run.seats_of([index]).pop() {
            self.run.passengers.refuse(py, seat, error);
        }
    }

    /// Those of the requests that nobody waits for any more; they are out of the batch.
    fn gone(&self, py: Python<'_>, indices: Vec<usize>) -> Vec<usize> {
        self.begin();
        let seats = self.run.seats_of(indices.iter().copied());
        let gone = indices.into_iter().zip(seats).filter(|(_, seat)| self.run.passengers.is_gone(py, *seat));
        gone.map(|(index, _)| index).collect()
    }

    /// Takes at most `limit` more requests: their columns, the index of the first, how many they are, and the lengths
    /// of their rows.
    fn join(&self, py: Python<'_>, limit: usize) -> PyResult<Option<Joined>> {
        self.begin();
        let Some((columns, seat, count, lengths)) = self.run.passengers.join(py, limit)? else {
            return Ok(None);
        };
        let mut seats = self.run.seats.lock();
        let first = seats.len();
        seats.extend(seat..seat + count);
        Ok(Some((columns, first, count, lengths)))
    }

    /// Where the values of every step go that the request wants at once, if it does.
    fn feed(&self, py: Python<'_>, index: usize) -> Option<Py<PyAny>> {
        let seat = self.run.seats.lock().get(index).copied();
        seat.and_then(|seat| self.run.passengers.feed(py, seat))
    }

    /// Sends values to feeds: one wake for each event loop.
    fn send(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>) {
        self.run.passengers.send(py, self.seated(values));
    }

    /// Seconds until the earliest deadline among these requests.
    fn remaining(&self, indices: Vec<usize>) -> Option<f64> {
        self.run.passengers.remaining(&self.run.seats_of(indices))
    }
}

impl Steps {
    fn begin(&self) {
        self.run.begun.store(true, Ordering::Relaxed);
    }

    fn seated(&self, values: Vec<(usize, Py<PyAny>)>) -> Vec<(usize, Py<PyAny>)> {
        let seats = self.run.seats.lock();
        values.into_iter().filter_map(|(index, value)| Some((*seats.get(index)?, value))).collect()
    }
}
