//! Many requests that cross once: one crossing there, one back, however many they are.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::courier::{Courier, Waits};
use super::reply::Answered;
use crate::bindings::bridge::lock;
use crate::bindings::bridge::port::{Delivery, Port, Shared, settle};
use crate::bindings::waiter::Parked;
use crate::client::Response;
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::metrics::LockCounts;

/// How often a thread that blocks lets Python look for Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// Answers that are gathered until all are there.
pub(crate) struct Gathered {
    state: Mutex<State>,
    left: AtomicUsize,
    total: usize,
    /// The first failure gives up the others.
    stop_on_error: bool,
    given_up: AtomicBool,
    /// The first that failed, before the others were given up for it.
    failed: OnceLock<usize>,
    parked: Parked<Vec<CoreResult<Box<Response>>>>,
}

#[derive(Default)]
struct State {
    answers: Vec<Option<CoreResult<Box<Response>>>>,
    waiting: Option<(Arc<Shared>, usize)>,
}

impl Gathered {
    pub(crate) fn new(total: usize, stop_on_error: bool) -> Arc<Self> {
        let answers = std::iter::repeat_with(|| None).take(total).collect();
        Arc::new(Self {
            state: Mutex::new(State { answers, waiting: None }),
            left: AtomicUsize::new(total),
            total,
            stop_on_error,
            given_up: AtomicBool::new(false),
            failed: OnceLock::new(),
            parked: Parked::default(),
        })
    }

    /// One answer came. The last of them hands all of them over.
    pub(crate) fn arrived(self: &Arc<Self>, courier: &Courier, number: usize, answer: Answered) {
        let answer = match answer {
            Answered::Whole(answer) => answer,
            _ => Err(Error::new(ErrorKind::Internal, "an answer of the wrong kind")),
        };
        let failed = answer.is_err();
        if let Some(place) = self.state.lock().answers.get_mut(number) {
            *place = Some(answer);
        }
        if failed && self.stop_on_error && self.failed.set(number).is_ok() {
            self.give_up(courier);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.hand_over(courier);
        }
    }

    /// Gives up every request that is still out: each of them answers that it came to nothing.
    fn give_up(self: &Arc<Self>, courier: &Courier) {
        if self.given_up.swap(true, Ordering::AcqRel) {
            return;
        }
        // Those that wait go first: what becomes free need not be given to them.
        for number in (0..self.total).rev() {
            courier.cancel(Waits::Gathered { many: Arc::clone(self), number }.address());
        }
    }

    /// Of no requests, all answers are there.
    pub(crate) fn hand_over_if_empty(&self, courier: &Courier) {
        if self.total == 0 {
            self.hand_over(courier);
        }
    }

    fn hand_over(&self, courier: &Courier) {
        let mut state = self.state.lock();
        match state.waiting.take() {
            Some((port, slot)) => {
                let reply = Box::new(Answered::Many(taken(&mut state)));
                if port.push(Delivery::Reply { slot, reply }) {
                    courier.ring_at_end(port);
                }
            }
            None => self.parked.answer(taken(&mut state)),
        }
    }
}

fn taken(state: &mut State) -> Vec<CoreResult<Box<Response>>> {
    let lost = || Err(Error::new(ErrorKind::Internal, "an answer was lost"));
    std::mem::take(&mut state.answers).into_iter().map(|answer| answer.unwrap_or_else(lost)).collect()
}

/// Many requests that are out.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeMany {
    pub(super) gathered: Arc<Gathered>,
    pub(super) courier: Arc<Courier>,
    pub(super) recent: Mutex<Option<Py<Port>>>,
}

#[pymethods]
impl NativeMany {
    /// A future of the running loop for the list of all answers: responses, and exceptions in the places of others.
    fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let port = Port::current(py, &self.recent)?;
        let (future, slot) = port.get().new_future(py)?;
        let mut state = self.gathered.state.lock();
        if let Some(answers) = self.gathered.parked.take() {
            drop(state);
            port.get().shared.forget(slot);
            settle(&future, Ok(Answered::Many(answers).object(py)?))?;
        } else {
            state.waiting = Some((Arc::clone(&port.get().shared), slot));
        }
        Ok(future)
    }

    /// Blocks until all answers are there, at most `seconds`; `None` where that was too short.
    fn wait<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Option<Bound<'py, PyAny>>> {
        let end = Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default();
        loop {
            if let Some(answers) = self.gathered.parked.take() {
                return Answered::Many(answers).object(py).map(Some);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            lock::without(py, &LockCounts::new(), || self.gathered.parked.wait(left.min(SIGNAL_CHECK)));
            py.check_signals()?;
        }
    }

    /// The number of the request whose failure gave up the others.
    #[getter]
    fn failed(&self) -> Option<usize> {
        self.gathered.failed.get().copied()
    }

    /// How many answers are there.
    #[getter]
    fn done(&self) -> usize {
        self.gathered.total - self.gathered.left.load(Ordering::Relaxed)
    }

    /// Gives up what is still out.
    fn cancel(&self) {
        self.gathered.give_up(&self.courier);
    }
}
