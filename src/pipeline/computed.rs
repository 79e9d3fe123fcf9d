//! Workers of a served model that need no interpreter: threads of Rust that take its batches and compute the answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::rounds::{Fault, Portion, Rounds};
use super::{BatchAccount, Endpoint, Reply, Tally};
use crate::batch::{Batch, Shift, Turn};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Column;

/// What computes a model's answers; one thread uses it.
pub trait Compute: Send {
    /// Computes a column for each output, in the order in which the model declares them, with a row for each of the
    /// portion's. It leaves the rows as they are: they may be computed again.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where the rows are refused, [`ErrorKind::Output`] where the model is at fault, anything else
    /// otherwise. Where several rows fail together, each half of them is computed again, unless the model's policy says
    /// otherwise.
    fn run(&mut self, portion: &Portion<'_>) -> std::result::Result<Vec<Column>, Fault>;
}

/// The threads that compute one load of a model's answers.
pub struct Computers {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Computers {
    /// Starts a thread for each of `computing`, which take batches until the shift is over. With `isolate`, a batch that
    /// fails is split.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the operating system gives no thread.
    pub fn start(
        (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
        computing: Vec<Box<dyn Compute>>,
        isolate: bool,
        tally: &Arc<dyn Tally>,
    ) -> Result<Self> {
        let computers = Self { endpoint, shift, threads: Mutex::default() };
        for (number, compute) in computing.into_iter().enumerate() {
            let worker = Worker {
                endpoint: Arc::clone(&computers.endpoint),
                shift: Arc::clone(&computers.shift),
                compute,
                isolate,
                tally: Arc::clone(tally),
            };
            let thread = std::thread::Builder::new()
                .name(format!("penstock-{}-{number}", computers.endpoint.spec.name))
                .spawn(move || worker.work());
            match thread {
                Ok(thread) => computers.threads.lock().push(thread),
                Err(error) => {
                    computers.end(Duration::ZERO);
                    return Err(Error::with_source(ErrorKind::Internal, "no thread could be made", error));
                }
            }
        }
        Ok(computers)
    }

    /// Ends the shift and waits for the threads to end, which they do once they have run what they have taken; answers
    /// whether they did within `limit`. Those that did not are left behind, and end when their run does.
    pub fn end(&self, limit: Duration) -> bool {
        self.endpoint.end_shift(&self.shift);
        let end = Instant::now().checked_add(limit);
        let in_time = || end.is_none_or(|end| Instant::now() < end);
        let mut threads = std::mem::take(&mut *self.threads.lock());
        while !threads.iter().all(JoinHandle::is_finished) && in_time() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let left = threads.extract_if(.., |thread| !thread.is_finished()).count();
        for thread in threads {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
        left == 0
    }
}

struct Worker {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    compute: Box<dyn Compute>,
    isolate: bool,
    tally: Arc<dyn Tally>,
}

impl Worker {
    fn work(mut self) {
        let endpoint = Arc::clone(&self.endpoint);
        while endpoint.wait_in(&self.shift) == Turn::Work {
            if let Some(taken) = endpoint.take() {
                self.run(taken);
            }
        }
    }

    fn run(&mut self, taken: (Batch<(), Reply>, BatchAccount)) {
        let mut rounds = Rounds::new(&self.endpoint, taken, self.isolate, &self.tally);
        while let Some(rows) = rounds.next_rows() {
            let began = Instant::now();
            let portion = rounds.portion(rows.clone());
            let computed = catch_unwind(AssertUnwindSafe(|| self.compute.run(&portion)));
            let computed = computed.unwrap_or_else(|panic| Err(panicked(panic.as_ref()).into()));
            rounds.computed(rows, began.elapsed(), computed);
        }
        rounds.finish();
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::new(ErrorKind::Internal, format!("penstock panicked: {text}"))
}
