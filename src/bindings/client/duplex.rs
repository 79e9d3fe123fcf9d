//! A stream of inferences: requests go out as the server takes them, answers are read as they come.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyBool;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::courier::{Address, Courier};
use super::inference::{Asked, answer_object, request_message};
use super::inflow::Inflow;
use crate::bindings::bridge::bell::Bell;
use crate::bindings::bridge::lock;
use crate::bindings::bridge::port::Port;
use crate::bindings::errors::to_python;
use crate::bindings::waiter::SIGNAL_CHECK;
use crate::client::{Duplex, DuplexSender};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::flow::Monitor;
use crate::metrics::LockCounts;
use crate::wire::oip::StreamAnswer;

/// Bytes of requests that may wait to be sent before whoever sends must wait, too.
const AHEAD: usize = 256 * 1024;

/// What is to be sent.
pub(crate) struct Outflow {
    state: Monitor<State>,
    arrived: Notify,
    sender: OnceLock<AbortHandle>,
    courier: Arc<Courier>,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Bytes>,
    bytes: usize,
    is_finished: bool,
    failure: Option<Error>,
    bell: Bell,
}

/// What the task that sends finds.
enum Next {
    Message(Bytes),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

impl State {
    fn has_room(&self) -> bool {
        self.bytes < AHEAD || self.failure.is_some()
    }
}

/// A stream that runs, in both directions.
pub(crate) struct Flows {
    inflow: Arc<Inflow>,
    outflow: Arc<Outflow>,
    endpoint: Arc<str>,
}

impl Flows {
    /// Lets a stream run.
    pub(crate) fn start(duplex: Duplex, courier: &Arc<Courier>) -> Self {
        let endpoint = Arc::clone(duplex.endpoint());
        let (sender, receiver) = duplex.split();
        let inflow = Inflow::of_messages(receiver, Arc::clone(&endpoint), courier);
        Self { inflow, outflow: Outflow::start(sender, Arc::clone(courier)), endpoint }
    }
}

impl Outflow {
    fn start(sender: DuplexSender, courier: Arc<Courier>) -> Arc<Self> {
        let outflow = Arc::new(Self {
            state: Monitor::new(State::default()),
            arrived: Notify::new(),
            sender: OnceLock::new(),
            courier,
        });
        let task = outflow.courier.spawn(send(sender, Sending(Arc::clone(&outflow)))).abort_handle();
        outflow.courier.remember(outflow.address(), task.clone());
        // Nobody else sets it.
        let _ = outflow.sender.set(task);
        outflow
    }

    /// The number that the task which sends goes by.
    fn address(&self) -> Address {
        (std::ptr::from_ref(self) as usize, 0)
    }

    /// Takes a message to be sent; true where there is room for another.
    fn put(&self, message: Bytes) -> CoreResult<bool> {
        let mut state = self.state.lock();
        if state.is_finished {
            return Err(Error::new(
                ErrorKind::StreamClosed,
                "the stream was ended: nothing more can be sent",
            ));
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.bytes += message.len();
        state.messages.push_back(message);
        let has_room = state.has_room();
        drop(state);
        self.arrived.notify_one();
        Ok(has_room)
    }

    fn finish(&self) {
        self.state.lock().is_finished = true;
        self.arrived.notify_one();
    }

    fn next(&self) -> Next {
        let mut state = self.state.lock();
        let Some(message) = state.messages.pop_front() else {
            return if state.is_finished { Next::End } else { Next::Nothing };
        };
        state.bytes -= message.len();
        self.tell(&mut state);
        Next::Message(message)
    }

    fn fail(&self, error: Error) {
        let mut state = self.state.lock();
        state.failure.get_or_insert(error);
        self.tell(&mut state);
    }

    fn tell(&self, state: &mut State) {
        if state.has_room() {
            state.bell.ring(&self.courier.ringer);
            self.state.wake_all();
        }
    }

    fn close(&self) {
        if let Some(sender) = self.sender.get() {
            sender.abort();
        }
    }
}

/// The task that sends.
struct Sending(Arc<Outflow>);

impl Drop for Sending {
    fn drop(&mut self) {
        let closed = Error::new(ErrorKind::StreamClosed, "the stream was closed");
        self.0.fail(self.0.courier.given_up(closed));
        self.0.courier.forget(self.0.address());
    }
}

async fn send(mut sender: DuplexSender, sending: Sending) {
    let outflow = &sending.0;
    loop {
        let sent = match outflow.next() {
            Next::Message(message) => sender.send(message).await,
            Next::End => {
                // A stream that is over tells so by its other half.
                let _ = sender.finish().await;
                return;
            }
            Next::Nothing => {
                outflow.arrived.notified().await;
                continue;
            }
        };
        if let Err(error) = sent {
            return outflow.fail(error);
        }
    }
}

/// The native half of `AsyncInferStream` and `InferStream`, which document it. Dropping it gives the stream up.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeInferStream {
    flows: Flows,
    readers: Mutex<Option<Py<Port>>>,
    writers: Mutex<Option<Py<Port>>>,
}

impl NativeInferStream {
    pub(crate) fn new(py: Python<'_>, flows: Flows) -> PyResult<Bound<'_, Self>> {
        Bound::new(py, Self { flows, readers: Mutex::default(), writers: Mutex::default() })
    }
}

#[pymethods]
impl NativeInferStream {
    /// Sends a request, which `asked` is as `NativeInference.infer` takes it; true where there is room for another.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn send(&self, py: Python<'_>, asked: Asked<'_>) -> PyResult<bool> {
        let message = request_message(py, &asked)?;
        self.flows.outflow.put(message).map_err(|error| to_python(py, &error))
    }

    /// A future of the running loop that is done when there is room again. One writer at a time.
    fn room<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let port = Port::current(py, &self.writers)?;
        let mut state = self.flows.outflow.state.lock();
        let has_room = state.has_room();
        state.bell.hang(py, &port, has_room)
    }

    /// Waits until there is room again, with the lock given back.
    fn room_blocking(&self, py: Python<'_>) -> PyResult<()> {
        let outflow = &self.flows.outflow;
        while !outflow.state.lock().has_room() {
            lock::without(py, &LockCounts::new(), || {
                let end = std::time::Instant::now() + SIGNAL_CHECK;
                let mut state = outflow.state.lock();
                while !state.has_room() && std::time::Instant::now() < end {
                    state = outflow.state.wait(state, Some(end));
                }
            });
            py.check_signals()?;
        }
        Ok(())
    }

    /// Says that no more requests come.
    fn finish(&self) {
        self.flows.outflow.finish();
    }

    /// The next answer, if it has come: what went wrong with it, or none, and the answer; `None` at the end, `False` where
    /// nothing has come yet.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.flows.inflow.take_message() {
            Some(next) => answer(py, next),
            None => Ok(PyBool::new(py, false).to_owned().into_any()),
        }
    }

    /// A future of the running loop that is done when there is something to take. One reader at a time.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.flows.inflow.wait(py, &Port::current(py, &self.readers)?)
    }

    /// As `take`, waiting with the lock given back.
    fn next_blocking<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loop {
            self.flows.inflow.wait_blocking(py)?;
            if let Some(next) = self.flows.inflow.take_message() {
                return answer(py, next);
            }
        }
    }

    /// Gives up what is left: the stream is reset.
    fn close(&self) {
        self.flows.outflow.close();
        self.flows.inflow.close();
    }

    /// The name of the status that the stream ended with; none before its end.
    #[getter]
    fn grpc_code(&self) -> Option<&'static str> {
        self.flows.inflow.status().map(|end| end.code.name())
    }

    /// What the server said of the end.
    #[getter]
    fn grpc_message(&self) -> Option<&str> {
        self.flows.inflow.status().map(|end| end.message.as_str())
    }

    /// The class of the error that the end stands for.
    #[getter]
    fn grpc_error(&self) -> Option<&'static str> {
        self.flows.inflow.status().map(|end| end.code.kind().meaning().class)
    }

    /// Who answers.
    #[getter]
    fn endpoint(&self) -> &str {
        &self.flows.endpoint
    }
}

impl Drop for NativeInferStream {
    fn drop(&mut self) {
        self.close();
    }
}

fn answer(py: Python<'_>, next: CoreResult<Option<Vec<u8>>>) -> PyResult<Bound<'_, PyAny>> {
    let next = next.and_then(|next| next.map(|message| StreamAnswer::parse(message.into())).transpose());
    match next.map_err(|error| to_python(py, &error))? {
        None => Ok(py.None().into_bound(py)),
        Some(StreamAnswer { answer, error }) => (error, answer_object(py, answer)?).into_bound_py_any(py),
    }
}
