//! An answer that comes step by step, as its one reader takes it: what is there, or a wait for more.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use super::desk::Desk;
use super::outputs::outputs;
use crate::bindings::bridge::bell::Bell;
use crate::bindings::bridge::lifecycle::generation;
use crate::bindings::bridge::lock;
use crate::bindings::bridge::port::Port;
use crate::bindings::bridge::ringer::Ringer;
use crate::bindings::errors::{raised, to_python};
use crate::bindings::waiter::SIGNAL_CHECK;
use crate::error::ErrorKind;
use crate::flow::Monitor;
use crate::metrics::LockCounts;
use crate::pipeline::ModelSpec;
use crate::serve::{Said, Steps};

/// Pieces that are taken at a time at most.
const MOST: usize = 256;

/// An answer of a server of this process, step by step. Letting go of it stops the generation.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativePieces {
    /// None once it is closed.
    steps: Mutex<Option<Steps>>,
    spec: Arc<ModelSpec>,
    news: Arc<News>,
    desk: Arc<Desk>,
    recent: Mutex<Option<Py<Port>>>,
    born: u64,
}

/// Told when there may be something to take.
struct News {
    state: Monitor<State>,
    ringer: Arc<Ringer>,
}

#[derive(Default)]
struct State {
    /// Something may have come since it was looked for.
    come: bool,
    bell: Bell,
}

impl News {
    fn tell(&self) {
        let mut state = self.state.lock();
        state.come = true;
        state.bell.ring(&self.ringer);
        drop(state);
        self.state.wake_all();
    }
}

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.tell();
    }
}

impl NativePieces {
    pub(super) fn new(steps: Steps, spec: Arc<ModelSpec>, desk: &Arc<Desk>) -> Self {
        let news = Arc::new(News { state: Monitor::new(State::default()), ringer: Arc::clone(&desk.ringer) });
        Self {
            steps: Mutex::new(Some(steps)),
            spec,
            news,
            desk: Arc::clone(desk),
            recent: Mutex::new(None),
            born: generation(),
        }
    }

    fn object<'py>(&self, py: Python<'py>, said: &Said) -> PyResult<Bound<'py, PyAny>> {
        match said {
            Said::Text(text) => Ok(PyString::new(py, &String::from_utf8_lossy(text)).into_any()),
            Said::Row(row) => outputs(py, &self.spec, std::slice::from_ref(row), None).map(Bound::into_any),
        }
    }
}

#[pymethods]
impl NativePieces {
    /// What has come, as a list whose first stands last; `None` at the end, and `False` where nothing has come yet.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.born != generation() {
            return Err(raised(py, ErrorKind::Closed, "this stream was begun before the process forked"));
        }
        let mut steps = self.steps.lock();
        let Some(steps) = steps.as_mut() else {
            return Err(raised(py, ErrorKind::StreamClosed, "the stream was closed"));
        };
        // What comes from here on is heard of.
        self.news.state.lock().come = false;
        let waker = Waker::from(Arc::clone(&self.news));
        let mut context = Context::from_waker(&waker);
        // A deadline is a timer of the runtime.
        let _runtime = self.desk.handle.enter();
        let mut taken = Vec::new();
        while taken.len() < MOST {
            match steps.poll_next(&mut context) {
                Poll::Ready(Ok(Some(said))) => taken.push(said),
                Poll::Ready(Ok(None)) if taken.is_empty() => return Ok(py.None().into_bound(py)),
                Poll::Ready(Err(error)) if taken.is_empty() => return Err(to_python(py, &error)),
                Poll::Ready(Err(error)) => {
                    // Said by the next call: what came before it came.
                    steps.put_back(error);
                    break;
                }
                Poll::Ready(Ok(None)) | Poll::Pending => break,
            }
        }
        if taken.is_empty() {
            return Ok(false.into_pyobject(py)?.to_owned().into_any());
        }
        let objects = taken.iter().rev().map(|said| self.object(py, said));
        Ok(PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)?.into_any())
    }

    /// A future of the running loop that is done when there may be something to take. One reader at a time.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let port = Port::current(py, &self.recent)?;
        let mut state = self.news.state.lock();
        let come = state.come;
        state.bell.hang(py, &port, come)
    }

    /// Blocks until there may be something to take, with the lock given back.
    fn wait_blocking(&self, py: Python<'_>) -> PyResult<()> {
        while !self.news.state.lock().come {
            lock::without(py, &LockCounts::new(), || {
                let end = Instant::now() + SIGNAL_CHECK;
                let mut state = self.news.state.lock();
                while !state.come && Instant::now() < end {
                    state = self.news.state.wait(state, Some(end));
                }
            });
            py.check_signals()?;
        }
        Ok(())
    }

    /// Why it ended, and how many tokens the prompt had, as far as the model says so; nothing before it has ended.
    fn end(&self) -> Option<(Option<String>, Option<u64>)> {
        let steps = self.steps.lock();
        let ended = steps.as_ref()?.end()?;
        Some((ended.reason.as_ref().map(ToString::to_string), ended.prompt_tokens))
    }

    /// Stops the generation within one step; whoever waits hears of it.
    fn close(&self) {
        if self.born == generation() {
            drop(self.steps.lock().take());
            self.news.tell();
        }
    }
}

impl Drop for NativePieces {
    fn drop(&mut self) {
        if self.born != generation() {
            // Its runtime is the parent's.
            std::mem::forget(self.steps.lock().take());
        }
    }
}
