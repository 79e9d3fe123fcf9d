//! Many requests that cross once: one crossing there, one back, however many they are.

use std::iter::Enumerate;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use super::courier::{Address, Courier};
use super::reply::Answered;
use crate::bindings::bridge::port::{Port, Shared, settle};
use crate::bindings::waiter::Parked;
use crate::client::{Client, Request, Response, Route};
use crate::error::{Error, ErrorKind, Result as CoreResult};

/// Requests that are sent by a few tasks, one after the other each, and answers that are gathered until all are there.
///
/// A task for each request would wait in the pool's queue most of its life; so there are as many as get a connection.
pub(crate) struct Gathered {
    state: Mutex<State>,
    left: AtomicUsize,
    total: usize,
    /// The first failure gives up the others.
    stop_on_error: bool,
    /// The first that failed, before the others were given up for it.
    failed: OnceLock<usize>,
    parked: Parked<Vec<CoreResult<Box<Response>>>>,
    courier: Arc<Courier>,
}

struct State {
    requests: Enumerate<IntoIter<(Route, Request)>>,
    answers: Vec<Option<CoreResult<Box<Response>>>>,
    waiting: Option<(Arc<Shared>, usize)>,
    senders: Vec<AbortHandle>,
    /// Tasks that send, and have not ended.
    running: usize,
    given_up: bool,
}

impl Gathered {
    pub(crate) fn new(
        requests: Vec<(Route, Request)>,
        stop_on_error: bool,
        courier: Arc<Courier>,
    ) -> Arc<Self> {
        let total = requests.len();
        let state = State {
            requests: requests.into_iter().enumerate(),
            answers: std::iter::repeat_with(|| None).take(total).collect(),
            waiting: None,
            senders: Vec::new(),
            running: 0,
            given_up: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            left: AtomicUsize::new(total),
            total,
            stop_on_error,
            failed: OnceLock::new(),
            parked: Parked::default(),
            courier,
        })
    }

    /// Starts the tasks that send; at most `senders` of them.
    pub(crate) fn start(self: &Arc<Self>, senders: usize) {
        let mut state = self.state.lock();
        if state.given_up || self.total == 0 {
            drop(state);
            return self.give_up_rest();
        }
        state.running = senders.clamp(1, self.total);
        for index in 0..state.running {
            let address = (Arc::as_ptr(self) as usize, index);
            let sender = Sender { gathered: Arc::clone(self), address, under_way: None };
            let task = self.courier.spawn(sender.work()).abort_handle();
            self.courier.remember(address, task.clone());
            state.senders.push(task);
        }
    }

    /// One answer came. The last of them hands all of them over.
    fn arrived(&self, number: usize, answer: CoreResult<Response>) {
        let failed = answer.is_err();
        if let Some(place) = self.state.lock().answers.get_mut(number) {
            *place = Some(answer.map(Box::new));
        }
        if failed && self.stop_on_error && self.failed.set(number).is_ok() {
            self.give_up();
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.hand_over();
        }
    }

    /// Stops every task that sends; the last that ends says so for what was not sent.
    fn give_up(&self) {
        let mut state = self.state.lock();
        state.given_up = true;
        let senders = std::mem::take(&mut state.senders);
        drop(state);
        // Those that wait go first: what becomes free need not be given to them.
        for sender in senders.into_iter().rev() {
            sender.abort();
        }
    }

    /// Answers for the requests that nobody will send.
    fn give_up_rest(&self) {
        if self.total == 0 {
            return self.hand_over();
        }
        loop {
            let next = self.state.lock().requests.next();
            let Some((number, _)) = next else { return };
            self.arrived(number, Err(self.came_to_nothing()));
        }
    }

    fn came_to_nothing(&self) -> Error {
        let message = "the request came to nothing: it was given up, or its task panicked";
        self.courier.given_up(Error::new(ErrorKind::Internal, message))
    }

    fn hand_over(&self) {
        let mut state = self.state.lock();
        let answers = std::mem::take(&mut state.answers);
        let lost = || Err(self.came_to_nothing());
        let answers = answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect();
        match state.waiting.take() {
            Some((port, slot)) => self.courier.reply(port, slot, Answered::Many(answers)),
            None => self.parked.answer(answers),
        }
    }
}

/// One of the tasks that send.
struct Sender {
    gathered: Arc<Gathered>,
    address: Address,
    /// The request that it has sent and has no answer to.
    under_way: Option<usize>,
}

impl Sender {
    async fn work(mut self) {
        while let Some((number, (route, request))) = self.next() {
            self.under_way = Some(number);
            let answer = Client::send(route, request).await;
            self.under_way = None;
            self.gathered.arrived(number, answer);
        }
    }

    fn next(&self) -> Option<(usize, (Route, Request))> {
        let mut state = self.gathered.state.lock();
        if state.given_up { None } else { state.requests.next() }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(number) = self.under_way.take() {
            self.gathered.arrived(number, Err(self.gathered.came_to_nothing()));
        }
        let mut state = self.gathered.state.lock();
        state.running -= 1;
        let is_last = state.running == 0;
        drop(state);
        if is_last {
            self.gathered.give_up_rest();
        }
        self.gathered.courier.forget(self.address);
    }
}

/// Many requests that are out.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeMany {
    pub(super) gathered: Arc<Gathered>,
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
        let answers = self.gathered.parked.wait_for(py, Some(end))?;
        answers.map(|answers| Answered::Many(answers).object(py)).transpose()
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
        self.gathered.give_up();
    }
}
