//! Worker processes, from Python: the child's side, and the parent's side of a batched function.
//!
//! The parent's side of a served model is `pipeline::Processes`, which Python only starts and ends.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::bridge::lock;
use super::convert::assemble::NextCall;
use super::core::Counters;
use super::deadline::BatchDeadline;
use super::errors::{raised, to_python};
use super::run::{Filled, Fillers, Job};
use super::scope::BatchScope;
use super::served::Columns;
use super::server::Model;
use crate::batch::{Cut, Ran};
use crate::error::{Error, ErrorKind};
use crate::flow::{Clock, Moment, TimeSource};
use crate::metrics::LockCounts;
use crate::pipeline::{ModelSpec, Tally};
use crate::process::{
    Answer, Attempt, Broken, Keeper, Launch, Link, Question, Reins, SharedMemory, Verdict, end_with_parent,
    question_rows,
};
use crate::tensor::Spares;

/// Bytes of unused batch memory that a child keeps.
const SPARE_BYTES: usize = 64 << 20;

/// How a process is started: the program, its arguments, the first message, whose process it is, and whether a batch that
/// it dies of is run once more.
#[derive(FromPyObject)]
pub(crate) struct Start(OsString, Vec<OsString>, Vec<u8>, String, bool);

impl From<Start> for Launch {
    fn from(Start(program, arguments, hello, name, runs_again): Start) -> Self {
        Self { program, arguments, hello, name, runs_again }
    }
}

impl Tally for Counters {
    fn ran(&self, busy: Duration, reruns: u64) {
        self.count_busy(busy);
        self.reruns.fetch_add(reruns, Ordering::Relaxed);
    }

    fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// The parent's side of one worker process of a batched function: it carries messages, and knows nothing of what they
/// say.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeKeeper {
    keeper: Mutex<Keeper>,
    reins: Arc<Reins>,
    restarts: Arc<Counters>,
}

#[pymethods]
impl NativeKeeper {
    #[new]
    fn new(py: Python<'_>, start: Start) -> PyResult<Self> {
        let restarts = Arc::<Counters>::default();
        let counted = Arc::clone(&restarts);
        let keeper = Keeper::new(Arc::new(start.into()), move || counted.restarted());
        let keeper = keeper.map_err(|error| to_python(py, &error))?;
        let reins = Arc::clone(keeper.reins());
        Ok(Self { keeper: Mutex::new(keeper), reins, restarts })
    }

    /// Starts the process, where none is alive, and waits until it can run batches.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let started = lock::without(py, &LockCounts::new(), || self.keeper.lock().start());
        started.map_err(|error| to_python(py, &error))
    }

    /// The descriptor of the shared memory, which is the same for every process that runs here.
    fn memory(&self) -> i32 {
        use std::os::fd::{AsFd, AsRawFd};
        self.keeper.lock().memory().as_fd().as_raw_fd()
    }

    /// Sends a message, for the `attempt`th time, and gives the answer; `None` where the process died of the first
    /// attempt: write the batch again, and ask again.
    fn ask<'py>(
        &self,
        py: Python<'py>,
        message: &[u8],
        attempt: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let asked = lock::without(py, &LockCounts::new(), || {
            self.keeper.lock().attempt(attempt, |child, _| {
                child.say(message)?;
                child.hear()?.ok_or(Broken::Child)
            })
        });
        match asked.map_err(|error| to_python(py, &error))? {
            Attempt::Answered(answer) => Ok(Some(PyBytes::new(py, &answer))),
            Attempt::Died => Ok(None),
        }
    }

    /// Gives back what a large batch took of the shared memory.
    fn shrink(&self) {
        // Memory that cannot be given back is kept.
        let _ = self.keeper.lock().memory().shrink();
    }

    /// Processes that took the place of dead ones, since it was last asked.
    fn take_restarts(&self) -> u64 {
        self.restarts.restarts.swap(0, Ordering::Relaxed)
    }

    /// The number of the process, where one runs.
    #[getter]
    fn process_number(&self) -> Option<u32> {
        self.reins.process_number()
    }

    /// Lets the process end, and kills it where it has not after `limit` seconds.
    fn end(&self, py: Python<'_>, limit: f64) {
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::ZERO);
        lock::without(py, &LockCounts::new(), || self.keeper.lock().end(limit));
    }

    /// Kills the process, whatever it is doing, and has none started any more.
    fn kill(&self) {
        self.reins.kill();
    }
}

/// The child's side: its standard input is the socket to its parent, who ends it by closing that.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeChild {
    link: Mutex<Link>,
    memory: Arc<SharedMemory>,
    hello: Vec<u8>,
    served: Mutex<Option<Served>>,
}

/// What it takes to run batches of a served model.
struct Served {
    function: Py<PyAny>,
    spec: Arc<ModelSpec>,
    isolate: bool,
    spares: Arc<Spares>,
    counters: Counters,
    fillers: Fillers,
    clock: TimeSource,
    running: Option<Running>,
}

/// A batch, and when its first answer is worth nothing any more.
struct Running {
    job: Job<Columns>,
    deadline: Option<Moment>,
    scope: Option<BatchScope>,
}

#[pymethods]
impl NativeChild {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let opened = lock::without(py, &LockCounts::new(), || {
            let mut link = Link::inherited()?;
            let memory = link.take_memory()?;
            let hello = link.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            end_with_parent(&link)?;
            Ok::<_, io::Error>((link, memory, hello))
        });
        let (link, memory, hello) = opened?;
        Ok(Self { link: Mutex::new(link), memory: Arc::new(memory), hello, served: Mutex::new(None) })
    }

    /// The parent's first message.
    fn hello<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.hello)
    }

    /// The descriptor of the shared memory.
    fn memory(&self) -> i32 {
        use std::os::fd::{AsFd, AsRawFd};
        self.memory.as_fd().as_raw_fd()
    }

    /// Says that batches may come.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        self.say(py, &Verdict::Ready)
    }

    /// Says why none may come.
    fn refuse(&self, py: Python<'_>, class_: String, message: String, traceback: String) -> PyResult<()> {
        self.say(py, &Verdict::Failed { class: class_, message, traceback })
    }

    /// The next message; `None` where none will come any more.
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let message = lock::without(py, &LockCounts::new(), || self.link.lock().receive())?;
        Ok(message.map(|message| PyBytes::new(py, &message)))
    }

    /// Sends a message.
    fn send(&self, py: Python<'_>, message: &[u8]) -> PyResult<()> {
        Ok(lock::without(py, &LockCounts::new(), || self.link.lock().send(message))?)
    }

    /// Makes this the child of a served model, whose columns `function` takes: a worker like one of a thread.
    fn serve(&self, py: Python<'_>, model: Model, function: Py<PyAny>, fillers: Fillers) -> PyResult<()> {
        let isolate = model.isolates();
        let (spec, _) = model.into_spec().map_err(|error| to_python(py, &error))?;
        *self.served.lock() = Some(Served {
            function,
            spec: Arc::new(spec),
            isolate,
            spares: Spares::new(SPARE_BYTES),
            counters: Counters::default(),
            fillers,
            clock: TimeSource::system(),
            running: None,
        });
        Ok(())
    }

    /// Gives the interpreter lock back until there is a batch; false where none will come any more.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        let mut served = self.served.lock();
        let served = Self::served(py, &mut served)?;
        let question = lock::without(py, &LockCounts::new(), || self.question(&served.spares))?;
        let Some((question, rows)) = question else { return Ok(false) };
        let deadline = question.remaining.map(|remaining| served.clock.now() + remaining);
        let scope = BatchScope::told(question.trace.as_ref(), question.ids);
        let cut = Cut { lengths: question.lengths, padded_cost: question.padded_cost, ..Cut::default() };
        let filled = Filled::of(&cut, served.fillers);
        let form = Columns::new(&served.spec, &served.spares);
        let job = form.job(py, rows, question.rows, filled, served.isolate);
        served.running = Some(Running { job, deadline, scope });
        Ok(true)
    }

    /// As `ServedWorker.scope`.
    fn scope(&self) -> Option<BatchScope> {
        self.served.lock().as_mut()?.running.as_mut()?.scope.take()
    }

    /// As `Worker.deadline`.
    fn deadline(&self) -> Option<BatchDeadline> {
        let served = self.served.lock();
        let served = served.as_ref()?;
        BatchDeadline::of(&served.clock, served.running.as_ref()?.deadline)
    }

    /// The function and the arguments of its next call, or `None` where the batch is done and its answer is on its way.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<NextCall<'py>>> {
        let mut served = self.served.lock();
        let served = Self::served(py, &mut served)?;
        let Some(Running { job, .. }) = served.running.as_mut() else { return Ok(None) };
        if let Some((arguments, keywords)) = job.next(py, &served.counters) {
            return Ok(Some((served.function.clone_ref(py), arguments, keywords)));
        }
        if let Some(Running { job, .. }) = served.running.take() {
            self.answer(py, job, &served.counters)?;
        }
        Ok(None)
    }

    /// Takes what the model returned.
    fn returned(&self, value: &Bound<'_, PyAny>) {
        if let Some(Served { running: Some(Running { job, .. }), counters, .. }) = self.served.lock().as_mut()
        {
            job.returned(value, counters);
        }
    }

    /// Takes what the model raised.
    fn raised(&self, error: Bound<'_, PyAny>) {
        let py = error.py();
        if let Some(Served { running: Some(Running { job, .. }), counters, .. }) = self.served.lock().as_mut()
        {
            job.raised(py, PyErr::from_value(error), counters);
        }
    }
}

impl NativeChild {
    fn served<'a>(py: Python<'_>, served: &'a mut Option<Served>) -> PyResult<&'a mut Served> {
        served.as_mut().ok_or_else(|| raised(py, ErrorKind::Internal, "this child serves no model"))
    }

    fn say(&self, py: Python<'_>, verdict: &Verdict) -> PyResult<()> {
        let message = postcard::to_stdvec(verdict).map_err(|error| {
            raised(py, ErrorKind::Internal, &format!("a verdict cannot be sent: {error}"))
        })?;
        self.send(py, &message)
    }

    /// The next batch and its rows; `None` where none will come any more.
    fn question(&self, spares: &Arc<Spares>) -> io::Result<Option<(Question, crate::tensor::Rows)>> {
        let Some(message) = self.link.lock().receive()? else { return Ok(None) };
        let question: Question = postcard::from_bytes(&message).map_err(io::Error::other)?;
        let rows = question_rows(&question, &self.memory, spares)?;
        Ok(Some((question, rows)))
    }

    fn answer(&self, py: Python<'_>, job: Job<Columns>, counters: &Counters) -> PyResult<()> {
        let (busy, ran) = (job.busy(), job.ran());
        let rows = job.into_answers(py);
        let reruns = counters.reruns.swap(0, Ordering::Relaxed);
        let sent = lock::without(py, &LockCounts::new(), || {
            let written = Answer::write(&rows, &self.memory).or_else(|error| {
                let failure = Error::new(
                    ErrorKind::Model,
                    format!("an answer did not fit into shared memory: {error}"),
                );
                let failures: Vec<_> = rows.iter().map(|_| Err(failure.clone())).collect();
                Answer::write(&failures, &self.memory)
            });
            let mut answer = written?;
            (answer.busy, answer.reruns) = (busy, reruns);
            match ran {
                Ran::Whole(_) => answer.whole = true,
                Ran::OutOfMemory(rows) => answer.out_of_memory = Some(rows),
                Ran::Unknown => {}
            }
            let message = postcard::to_stdvec(&answer).map_err(io::Error::other)?;
            self.link.lock().send(&message)
        });
        Ok(sent?)
    }
}
