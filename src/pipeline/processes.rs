//! Worker processes of a served model: threads that carry batches between its queue and its children.
//!
//! No interpreter's lock is taken here: while Python computes in this process, such a model goes on answering.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{BatchAccount, Endpoint, Finished, Reply, Said};
use crate::batch::{Batch, Ran, Shift, Turn};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Clock;
use crate::process::{Answer, Broken, Child, Keeper, Launch, Question, Reins, SharedMemory, answer_columns};
use crate::tensor::AnswerRow;

/// Time that a child has to close its model once nothing more will come.
const GRACE: Duration = Duration::from_secs(10);

/// Who counts what happens in processes.
pub trait Tally: Send + Sync + 'static {
    /// A batch was run in so long, with so many calls beyond the first.
    fn ran(&self, busy: Duration, reruns: u64);

    /// A child took the place of one that had died.
    fn restarted(&self);
}

/// The worker processes of one model.
pub struct Processes {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    reins: Vec<Arc<Reins>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    started: Mutex<Receiver<Result<()>>>,
    missing: Mutex<usize>,
}

impl Processes {
    /// Begins to start `count` children, each with a thread of its own, which take batches until the shift is over;
    /// [`wait_ready`](Self::wait_ready) says what came of it.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the operating system gives no memory or no thread.
    pub fn start(
        (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
        launch: Launch,
        count: usize,
        tally: &Arc<dyn Tally>,
    ) -> Result<Self> {
        let launch = Arc::new(launch);
        let (tell, started) = channel();
        let (mut reins, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (counted, counting) = (Arc::clone(tally), Arc::clone(&endpoint));
            let restarted = move || {
                counted.restarted();
                counting.count_restart();
            };
            let keeper = Keeper::new(Arc::clone(&launch), restarted)?;
            reins.push(Arc::clone(keeper.reins()));
            let worker = Worker {
                endpoint: Arc::clone(&endpoint),
                shift: Arc::clone(&shift),
                keeper,
                tally: Arc::clone(tally),
            };
            let tell = tell.clone();
            let thread = std::thread::Builder::new()
                .name(format!("penstock-{}-{number}", endpoint.spec.name))
                .spawn(move || worker.work(|began| drop(tell.send(began))))
                .map_err(|error| Error::with_source(ErrorKind::Internal, "no thread could be made", error))?;
            threads.push(thread);
        }
        Ok(Self {
            endpoint,
            shift,
            reins,
            threads: Mutex::new(threads),
            started: Mutex::new(started),
            missing: Mutex::new(count),
        })
    }

    /// Waits until every child has loaded its model, for at most `limit`; answers whether that came.
    ///
    /// # Errors
    /// What the first that failed says.
    pub fn wait_ready(&self, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        let (mut missing, started) = (self.missing.lock(), self.started.lock());
        while *missing > 0 {
            match started.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(began) => began?,
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(ErrorKind::Internal, "a worker thread has ended"));
                }
            }
            *missing -= 1;
        }
        Ok(true)
    }

    /// The numbers of the processes that run now.
    pub fn process_numbers(&self) -> Vec<u32> {
        self.reins.iter().filter_map(|reins| reins.process_number()).collect()
    }

    /// Ends the shift and waits for the children to end, which they do once they have run what they have taken; kills those
    /// that have not after `limit`.
    pub fn end(&self, limit: Duration) {
        self.endpoint.end_shift(&self.shift);
        let end = Instant::now().checked_add(limit);
        let in_time = || end.is_none_or(|end| Instant::now() < end);
        let mut threads = std::mem::take(&mut *self.threads.lock());
        while !threads.iter().all(JoinHandle::is_finished) && in_time() {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.reins.iter().for_each(|reins| reins.kill());
        for thread in threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

struct Worker {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    keeper: Keeper,
    tally: Arc<dyn Tally>,
}

impl Worker {
    fn work(mut self, tell: impl FnOnce(Result<()>)) {
        let began = self.keeper.start();
        let failed = began.is_err();
        tell(began);
        if failed {
            return;
        }
        let (endpoint, shift) = (Arc::clone(&self.endpoint), Arc::clone(&self.shift));
        let wanted = || !shift.is_over() && !endpoint.is_done();
        while self.keeper.keep_alive(wanted) && endpoint.wait_in(&shift) == Turn::Work {
            if let Some((batch, account)) = endpoint.take() {
                self.run(batch, account);
            }
        }
        self.keeper.end(GRACE);
    }

    fn run(&mut self, batch: Batch<(), Reply>, mut account: BatchAccount) {
        let count = batch.entries.len();
        let endpoint = Arc::clone(&self.endpoint);
        let keeper = &mut self.keeper;
        let asking = || keeper.run(|child, memory| ask(&endpoint, &batch, &mut account, child, memory));
        let asked = catch_unwind(AssertUnwindSafe(asking)).unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, "penstock panicked while it talked to a process"))
        });
        let (rows, ran) = match asked {
            Ok((rows, answer)) => {
                self.tally.ran(answer.busy, answer.reruns);
                account.reruns = u32::try_from(answer.reruns).unwrap_or(u32::MAX);
                account.close(answer.busy);
                (rows, ran(&answer))
            }
            Err(error) => {
                account.close(Duration::ZERO);
                ((0..count).map(|_| Err(error.clone())).collect::<Vec<_>>(), Ran::Unknown)
            }
        };
        let rows = rows.into_iter().map(|row| row.map(Said::Row)).collect();
        endpoint.finish(Finished { entries: batch.entries, rows, account, ran });
    }
}

fn ran(answer: &Answer) -> Ran {
    match (answer.out_of_memory, answer.whole) {
        (Some(rows), _) => Ran::OutOfMemory(rows),
        (None, true) => Ran::Whole(answer.busy),
        (None, false) => Ran::Unknown,
    }
}

/// One message each way.
fn ask(
    endpoint: &Endpoint,
    batch: &Batch<(), Reply>,
    account: &mut BatchAccount,
    child: &mut Child,
    memory: &SharedMemory,
) -> std::result::Result<(Vec<Result<AnswerRow>>, Answer), Broken> {
    let count = batch.entries.len();
    let here = |what: &str, why: &dyn std::fmt::Display| {
        Broken::Here(Error::new(ErrorKind::Model, format!("a batch could not be {what} its process: {why}")))
    };
    let mut question =
        Question::write(count, batch.rows.columns(), memory).map_err(|error| here("given to", &error))?;
    question.lengths.clone_from(&account.cut.lengths);
    question.padded_cost = account.cut.padded_cost;
    question.remaining = account.deadline.map(|deadline| deadline.since(endpoint.clock().now()));
    question.trace = account.trace().map(|trace| (trace.header(), trace.state.as_deref().map(str::to_owned)));
    question.ids = account.ids.iter().map(|id| (**id).to_owned()).collect();
    let message = postcard::to_stdvec(&question).map_err(|error| here("described to", &error))?;
    account.call();
    child.say(&message)?;
    let answer = child.hear()?.ok_or(Broken::Child)?;
    let answer: Answer = postcard::from_bytes(&answer).map_err(|_| Broken::Child)?;
    let rows = answer_columns(&answer, count, memory, endpoint.spares())?;
    // Memory that cannot be given back is kept.
    let _ = memory.shrink();
    Ok((rows, answer))
}
