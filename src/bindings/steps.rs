//! A batch whose function is a generator: it is answered request by request, while others leave and join.
//!
//! The generator itself is driven in Python (`penstock._steps`); here is who still waits, what they are told, and how the
//! run of such a function fits the job that every batch is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::bridge::{lock, stock};
use super::convert::assemble::Arguments;
use super::convert::results;
use super::errors;
use super::run::Form;
use crate::batch::{Changes, Crowd, Place};
use crate::error::ErrorKind;
use crate::flow::Bell;
use crate::metrics::LockCounts;

/// How long a batch waits for its readers until it looks at them all the same.
const LOOK: Duration = Duration::from_secs(1);

/// Columns as the function of a whole batch would be given them, the seat of their first row, how many rows there are,
/// and how long these were where they were filled up.
pub(crate) type Joined = (Py<PyTuple>, usize, usize, Vec<u32>);

/// Those who wait for a running batch, whoever they are. Each has a seat, which stands empty once they were answered or
/// have left.
pub(crate) trait Passengers: Send + Sync {
    /// What they want of a step.
    fn kind(&self) -> Kind;

    /// Says to each of those who are live what a step has for him; where the values are not kept in Python.
    fn step(&self, yielded: &Bound<'_, PyAny>, live: &[Place]) -> PyResult<()>;

    /// Gives the requests in these seats a value each; values that are `owned` are nobody else's.
    fn finish(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>, owned: bool) -> PyResult<()>;

    /// Ends the requests in these seats, to whom everything was said by steps: why, and how long their prompts were.
    fn end_steps(&self, py: Python<'_>, ended: Vec<(usize, Ending)>);

    /// Notes how many tokens the prompt of a request has; of interest where it is answered with text.
    fn note_prompt(&self, _seat: usize, _tokens: u64) {}

    /// Fails the requests in these seats, each with an exception of its own.
    fn fail(&self, py: Python<'_>, seats: &[usize], error: PyErr);

    /// Raises that very exception for the request in this seat.
    fn refuse(&self, py: Python<'_>, seat: usize, error: Py<PyAny>);

    /// Notes who is gone, whose seat is emptied, and whose reader is too slow.
    fn look(&self, py: Python<'_>, places: &mut [Place]);

    /// Seats at most `limit` requests that wait for a batch like this one.
    fn join(&self, py: Python<'_>, limit: usize) -> PyResult<Option<Joined>>;

    /// Requests that wait for a batch like this one.
    fn outside(&self) -> usize;

    /// What rings where `look` or `outside` may say something else.
    fn bell(&self) -> &Arc<Bell>;

    /// True where the batch may wait for its readers; false where it would wait for itself.
    fn may_wait(&self) -> bool;

    /// True where nobody is waited for any more.
    fn is_closing(&self) -> bool;

    /// Where acquisitions of the interpreter lock are counted.
    fn locks(&self) -> &LockCounts;

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

/// Who waits for the steps of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Callers in Python: the values are kept and fed there.
    Callers,
    /// Requests of a door for tensors.
    Tensors,
    /// Requests of a door for text.
    Text,
}

/// What changed, as `penstock._steps` reads it: who is gone, who pauses, who goes on, and whether the batch has to wait.
pub(crate) type Told = (Vec<usize>, Vec<usize>, Vec<usize>, bool);

fn told(changes: Changes) -> Option<Told> {
    changes.any().map(|changes| (changes.gone, changes.paused, changes.again, changes.must_wait))
}

/// Why a text is over, and how many tokens its prompt had, as far as the model says so.
pub(crate) type Ending = (Option<String>, Option<u64>);

/// The run of a generator over a batch, or over a part of one.
pub(crate) struct Run {
    passengers: Box<dyn Passengers>,
    /// Those of its part, and whoever joined.
    crowd: Mutex<Crowd>,
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
        let (crowd, begun) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { passengers, crowd, begun, largest, lengths })
    }

    fn start<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        (columns, keywords): Arguments<'py>,
        (from, to): (usize, usize),
    ) -> PyResult<Arguments<'py>> {
        *self.crowd.lock() = Crowd::new(from..to);
        self.begun.store(false, Ordering::Relaxed);
        let lengths = self.lengths.get(from..to).unwrap_or_default().to_vec();
        let steps = Steps { run: Arc::clone(self), columns: columns.unbind(), size: to - from, lengths };
        Ok((PyTuple::new(py, [Bound::new(py, steps)?])?, keywords))
    }

    /// Fails whoever still waits for this run.
    fn fail(&self, py: Python<'_>, error: PyErr) {
        let seats = self.crowd.lock().leave_all();
        self.passengers.fail(py, &seats, error);
    }

    /// Looks at everybody, and says what `then` makes of it. The interpreter may run meanwhile: nothing is held.
    fn look(&self, py: Python<'_>, then: impl FnOnce(&mut Crowd) -> Changes) -> Changes {
        let mut everybody = self.crowd.lock().everybody();
        self.passengers.look(py, &mut everybody);
        let mut crowd = self.crowd.lock();
        crowd.note(&everybody);
        then(&mut crowd)
    }

    /// Looks at everybody while the batch waits.
    fn look_again(&self, py: Python<'_>) -> Changes {
        let outside = self.passengers.outside();
        self.look(py, |crowd| {
            let more = crowd.takes_more(self.largest, outside);
            crowd.waited(more)
        })
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

    /// True where the values of the steps are not wanted in Python: `step` takes what was yielded.
    #[getter]
    fn is_served(&self) -> bool {
        self.run.passengers.kind() != Kind::Callers
    }

    /// True where the requests want text.
    #[getter]
    fn is_text(&self) -> bool {
        self.run.passengers.kind() == Kind::Text
    }

    /// True where the batch may wait for its readers.
    #[getter]
    fn may_wait(&self) -> bool {
        self.run.passengers.may_wait()
    }

    /// The rows of what the function yielded for `count` requests, nobody else's any more.
    #[staticmethod]
    fn rows<'py>(yielded: &Bound<'py, PyAny>, count: usize) -> PyResult<Bound<'py, PyList>> {
        results::rows(yielded, count, "the function's step")
    }

    /// Says what was yielded to whom it is for, and looks at everybody: what changed.
    fn step(&self, yielded: &Bound<'_, PyAny>) -> PyResult<Option<Told>> {
        if !yielded.is_none() {
            self.begin();
            let live = self.run.crowd.lock().live.clone();
            self.run.passengers.step(yielded, &live)?;
        }
        Ok(self.stepped(yielded.py()))
    }

    /// Looks at everybody after a step: what changed.
    fn stepped(&self, py: Python<'_>) -> Option<Told> {
        self.begin();
        told(self.run.look(py, Crowd::stepped))
    }

    /// Waits where everybody's reader is too slow: until one is not, or somebody has left or could join.
    fn wait(&self, py: Python<'_>) -> Option<Told> {
        let passengers = &self.run.passengers;
        loop {
            let listener = passengers.bell().listen();
            let changes = self.look_or_close(py);
            // Who has left is told at once, also where the others are to be waited for.
            if changes != Changes::wait() {
                return told(changes);
            }
            lock::without(py, passengers.locks(), || listener.wait(LOOK));
        }
    }

    /// An awaitable that is done when `look` may say something else than now.
    fn listen<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let listener = self.run.passengers.bell().listen();
        stock::awaitable(py, async move { listener.heard(LOOK).await })
    }

    /// Looks at everybody while the batch waits: what changed.
    fn look(&self, py: Python<'_>) -> Option<Told> {
        told(self.look_or_close(py))
    }

    /// Gives requests a value each; values that are `owned` are nobody else's. What changed for the others.
    fn finish(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>, owned: bool) -> PyResult<Option<Told>> {
        let values = self.leave(values);
        self.run.passengers.finish(py, values, owned)?;
        Ok(self.regroup())
    }

    /// Ends requests to whom everything was said by steps. What changed for the others.
    fn end_steps(&self, py: Python<'_>, ended: Vec<(usize, Ending)>) -> Option<Told> {
        let ended = self.leave(ended);
        self.run.passengers.end_steps(py, ended);
        self.regroup()
    }

    /// Notes how many tokens the prompt of a request has.
    fn note_prompt(&self, index: usize, tokens: u64) {
        let seat = self.run.crowd.lock().seat_of(index);
        if let Some(seat) = seat {
            self.run.passengers.note_prompt(seat, tokens);
        }
    }

    /// Fails requests, each with an exception of its own. What changed for the others.
    fn fail(&self, py: Python<'_>, indices: Vec<usize>, error: Bound<'_, PyAny>) -> Option<Told> {
        let seats = self.leave(indices.into_iter().map(|index| (index, ())).collect());
        let seats: Vec<_> = seats.into_iter().map(|(seat, ())| seat).collect();
        self.run.passengers.fail(py, &seats, PyErr::from_value(error));
        self.regroup()
    }

    /// Raises that very exception for a request. What changed for the others.
    fn refuse(&self, py: Python<'_>, index: usize, error: Py<PyAny>) -> Option<Told> {
        if let Some((seat, ())) = self.leave(vec![(index, ())]).pop() {
            self.run.passengers.refuse(py, seat, error);
        }
        self.regroup()
    }

    /// Takes at most `limit` more requests: their columns, the index of the first, how many they are, and the lengths
    /// of their rows; and what changed for the others.
    fn join(&self, py: Python<'_>, limit: usize) -> PyResult<(Option<Joined>, Option<Told>)> {
        self.begin();
        let joined = if limit > 0 { self.run.passengers.join(py, limit)? } else { None };
        let left_outside = if limit > 0 && joined.is_none() { self.run.passengers.outside() } else { 0 };
        let mut crowd = self.run.crowd.lock();
        crowd.join(left_outside);
        let joined = joined
            .map(|(columns, seat, count, lengths)| (columns, crowd.seat(seat..seat + count), count, lengths));
        Ok((joined, told(crowd.regroup())))
    }

    /// Where the values of every step go that the request wants at once, if it does.
    fn feed(&self, py: Python<'_>, index: usize) -> Option<Py<PyAny>> {
        let seat = self.run.crowd.lock().seat_of(index);
        seat.and_then(|seat| self.run.passengers.feed(py, seat))
    }

    /// Sends values to feeds: one wake for each event loop.
    fn send(&self, py: Python<'_>, values: Vec<(usize, Py<PyAny>)>) {
        self.begin();
        let crowd = self.run.crowd.lock();
        let seated = values.into_iter().filter_map(|(index, value)| Some((crowd.seat_of(index)?, value)));
        let seated = seated.collect();
        drop(crowd);
        self.run.passengers.send(py, seated);
    }

    /// Seconds until the earliest deadline among these requests.
    fn remaining(&self, indices: Vec<usize>) -> Option<f64> {
        let seats: Vec<_> = {
            let crowd = self.run.crowd.lock();
            indices.into_iter().filter_map(|index| crowd.seat_of(index)).collect()
        };
        self.run.passengers.remaining(&seats)
    }
}

impl Steps {
    fn begin(&self) {
        self.run.begun.store(true, Ordering::Relaxed);
    }

    /// Takes requests out of the batch: their seats.
    fn leave<T>(&self, values: Vec<(usize, T)>) -> Vec<(usize, T)> {
        self.begin();
        let mut crowd = self.run.crowd.lock();
        values.into_iter().filter_map(|(index, value)| Some((crowd.leave(index)?, value))).collect()
    }

    fn regroup(&self) -> Option<Told> {
        let mut crowd = self.run.crowd.lock();
        if crowd.live.is_empty() { told(crowd.regroup()) } else { None }
    }

    /// Looks at everybody while the batch waits; where nobody is waited for any more, whoever is left is refused.
    fn look_or_close(&self, py: Python<'_>) -> Changes {
        let mut changes = self.run.look_again(py);
        if changes.must_wait && self.run.passengers.is_closing() {
            let message = "the batcher was closed while the reader of this stream was too slow";
            let left = std::mem::take(&mut *self.run.crowd.lock()).everybody();
            let seats: Vec<_> = left.iter().map(|place| place.seat).collect();
            self.run.passengers.fail(py, &seats, errors::raised(py, ErrorKind::Closed, message));
            changes = Changes { gone: changes.gone, ..Changes::default() };
            changes.gone.extend(left.iter().map(|place| place.index));
        }
        changes
    }
}
