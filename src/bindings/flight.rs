//! Requests for what is being computed already: they wait for the same answer, and each gets a copy of its own.
//!
//! What tells inputs apart is compared, never only its hash. Numbers are equal where their bytes are, objects where Python
//! says so and their types agree; an object without a hash equals no other.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use ahash::RandomState;
use numpy::PyUntypedArray;
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyModule;
use smallvec::SmallVec;

use super::convert::items::{Item, Leaf};
use super::convert::structure::{Key, canonical};
use super::convert::{arrays, results};
use super::run;
use super::waiter::{Failure, Outcome, Results, Trace, Waiter};
use crate::batch::{Entry, GroupKey};
use crate::error::ErrorKind;

/// What a request asks for: equal inputs have equal answers.
pub(crate) struct Input {
    hash: u64,
    key: GroupKey<Key>,
    bytes: Vec<u8>,
    objects: Vec<Py<PyAny>>,
}

/// Inputs that are being computed.
pub(crate) struct Flights {
    known: Mutex<HashMap<u64, SmallVec<[Arc<Flight>; 1]>>>,
    hasher: RandomState,
    /// Requests that wait for one flight at most.
    limit: usize,
}

/// One input that is being computed, and everybody who waits for it.
pub(crate) struct Flight {
    input: Input,
    state: Mutex<Waiting>,
    flights: Weak<Flights>,
}

struct Waiting {
    waiters: Vec<Waiter>,
    /// False once it is answered, or everybody has left.
    open: bool,
}

impl Flights {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), hasher: RandomState::new(), limit })
    }

    /// What `item` asks for; `None` where it holds an object that cannot be compared by its hash.
    pub(crate) fn input(&self, item: &Item<'_>) -> Option<Input> {
        let mut input = Input { hash: 0, key: item.key.clone(), bytes: Vec::new(), objects: Vec::new() };
        let mut hasher = self.hasher.build_hasher();
        input.key.hash(&mut hasher);
        for leaf in &item.leaves {
            match leaf {
                Leaf::Array(array) => arrays::with_bytes(array, |bytes| input.push(bytes)),
                Leaf::Number(bytes, length) => input.push(bytes.get(..*length).unwrap_or_default()),
                Leaf::Object(object) => {
                    if let Some(array) = arrays::as_exact(object)
                        && let Some((spec, true)) = arrays::describe(array)
                    {
                        input.push(format!("{spec:?}").as_bytes());
                        arrays::with_bytes(array, |bytes| input.push(bytes));
                        continue;
                    }
                    let object = canonical(object).ok()?;
                    hasher.write_isize(object.hash().ok()?);
                    input.objects.push(object.unbind());
                }
            }
        }
        hasher.write(&input.bytes);
        input.hash = hasher.finish();
        Some(input)
    }

    /// Adds a waiter to the flight of an equal input; gives it back where there is none that takes it.
    pub(crate) fn board(&self, py: Python<'_>, input: &Input, waiter: Waiter) -> Result<(), Waiter> {
        let candidates = self.known.lock().get(&input.hash).cloned().unwrap_or_default();
        // To compare objects may run code of theirs: not under a lock.
        match candidates.iter().find(|flight| flight.input.equals(py, input)) {
            Some(flight) => flight.board(waiter, self.limit),
            None => Err(waiter),
        }
    }

    /// A flight for `input`; nobody finds it before [`depart`](Self::depart).
    pub(crate) fn prepare(self: &Arc<Self>, input: Input, waiter: Waiter) -> Arc<Flight> {
        let state = Mutex::new(Waiting { waiters: vec![waiter], open: true });
        Arc::new(Flight { input, state, flights: Arc::downgrade(self) })
    }

    /// Lets others board a flight, unless it has arrived meanwhile.
    pub(crate) fn depart(&self, flight: Arc<Flight>) {
        let mut known = self.known.lock();
        if flight.state.lock().open {
            known.entry(flight.input.hash).or_default().push(flight);
        }
    }

    fn forget(&self, flight: &Flight) {
        let mut known = self.known.lock();
        let Some(flights) = known.get_mut(&flight.input.hash) else { return };
        let gone = flights.iter().position(|known| std::ptr::eq(Arc::as_ptr(known), flight));
        let gone = gone.map(|at| flights.swap_remove(at));
        if flights.is_empty() {
            known.remove(&flight.input.hash);
        }
        drop(known);
        // Its objects may run code of theirs when they go.
        drop(gone);
    }
}

impl Flight {
    /// The trace that the first of those is in who wait for it.
    pub(crate) fn trace(&self) -> Trace {
        self.state.lock().waiters.first()?.trace()
    }

    fn board(&self, waiter: Waiter, limit: usize) -> Result<(), Waiter> {
        let mut state = self.state.lock();
        if !state.open || state.waiters.len() >= limit {
            return Err(waiter);
        }
        state.waiters.push(waiter);
        Ok(())
    }

    /// True where nobody waits any more; then nobody boards it either.
    pub(crate) fn is_deserted(&self, mut gone: impl FnMut(&Waiter) -> bool) -> bool {
        let mut state = self.state.lock();
        let deserted = state.waiters.iter().all(&mut gone);
        state.open &= !deserted;
        deserted
    }

    /// Ends the flight: everybody who waits for it, the first of them first.
    pub(crate) fn arrive(&self) -> Vec<Waiter> {
        let waiters = {
            let mut state = self.state.lock();
            state.open = false;
            std::mem::take(&mut state.waiters)
        };
        if let Some(flights) = self.flights.upgrade() {
            flights.forget(self);
        }
        waiters
    }
}

impl Input {
    fn push(&mut self, bytes: &[u8]) {
        // Padded items of one group differ in length: the length keeps two columns from running into each other.
        self.bytes.extend_from_slice(&bytes.len().to_ne_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    fn equals(&self, py: Python<'_>, other: &Self) -> bool {
        let same = |(one, other): (&Py<PyAny>, &Py<PyAny>)| one.bind(py).eq(other.bind(py)).unwrap_or(false);
        self.hash == other.hash
            && self.key == other.key
            && self.bytes == other.bytes
            && self.objects.len() == other.objects.len()
            && self.objects.iter().zip(&other.objects).all(same)
    }
}

/// Puts everybody who boarded a flight into the place of its entry, each with an answer of its own.
pub(crate) fn disembark(
    py: Python<'_>,
    entries: Vec<Entry<Waiter>>,
    results: Results,
) -> (Vec<Entry<Waiter>>, Results) {
    if !entries.iter().any(|entry| matches!(entry.waiter, Waiter::Shared(_))) {
        return (entries, results);
    }
    let mut everybody = Vec::with_capacity(entries.len());
    let mut answers = Vec::with_capacity(entries.len());
    for (entry, outcome) in entries.into_iter().zip(run::outcomes(py, results)) {
        let Entry { waiter, arrived, deadline } = entry;
        let waiters = match waiter {
            Waiter::Shared(flight) => flight.arrive(),
            alone => vec![alone],
        };
        let copies = waiters.len().saturating_sub(1);
        answers.extend((0..copies).map(|_| copy(py, &outcome)));
        answers.push(outcome);
        everybody.extend(waiters.into_iter().map(|waiter| Entry { waiter, arrived, deadline }));
    }
    (everybody, Results::Each(answers))
}

fn copy(py: Python<'_>, outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Value(value) => copy_value(value.bind(py)).map_or_else(
            |error| {
                let message = "an answer cannot be copied for those who share it: turn single_flight off";
                let cause = Some(error.into_value(py).into_any());
                let failure = Failure { kind: ErrorKind::Output, message: message.to_owned(), cause };
                Outcome::Failed(Arc::new(failure))
            },
            |copy| Outcome::Value(copy.unbind()),
        ),
        Outcome::Refused(exception) => {
            let exception = exception.bind(py);
            let copy = results::copy_exception(exception).unwrap_or_else(|_| exception.clone());
            Outcome::Refused(copy.unbind())
        }
        Outcome::Failed(failure) => Outcome::Failed(Arc::clone(failure)),
    }
}

fn copy_value<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    if value.is_instance_of::<PyUntypedArray>() {
        return value.call_method0(intern!(py, "copy"));
    }
    PyModule::import(py, intern!(py, "copy"))?.call_method1(intern!(py, "deepcopy"), (value,))
}
