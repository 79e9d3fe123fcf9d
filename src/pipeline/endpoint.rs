//! A served model's side of the data plane: its queue, its tick, its way back, its numbers.

use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep_until};

use super::flight::{Flights, Place};
use super::residence::{Hold, Loading, Residence, Sweeper};
use super::steps::{self, Pieces, Task};
use super::{Answer, Finished, Passing, Reply, RequestTerms, Ticker};
use crate::batch::{
    Attendance, Batch, BatchAccount, BatchPolicy, Batcher, Entry, GroupKey, History, Look, Removed, Shift,
    Terms, Turn,
};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Bell, StreamLimits, TimeSource};
use crate::metrics::{LockCounts, ModelMetrics, Outcome};
use crate::tensor::{Rows, Specs, TensorSpec};

/// What a model says of itself.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The name that it is served under.
    pub name: String,
    /// Its version, as text.
    pub version: String,
    /// Inputs, in the order in which it is given them.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
    /// What it is for.
    pub task: Task,
}

/// One message of a worker: the runtime is woken once for it.
enum Told {
    /// Answers, and whether their batch is done with them.
    Answers(Box<Finished>, bool),
    /// Readers that sleep, and that a step said something for.
    Step(Vec<Waker>),
}

/// Somebody who wants to know whether a model can answer.
type OnReadiness = Box<dyn Fn() + Send + Sync>;

/// Whoever keeps what became of batches. It is called on the data plane and must not wait.
pub trait BatchLog: Send + Sync {
    /// Takes a batch that is done, of a model that says this of itself.
    fn batch(&self, model: &Arc<ModelSpec>, batch: &Arc<BatchAccount>);
}

/// A model behind a queue. The doors [`infer`](Endpoint::infer); workers [`wait`](Endpoint::wait), [`take`](Endpoint::take)
/// and [`finish`](Endpoint::finish).
pub struct Endpoint {
    /// What the model says of itself.
    pub spec: Arc<ModelSpec>,
    /// Acquisitions of the lock that its workers need, if they need one.
    pub locks: LockCounts,
    batcher: Batcher<(), Reply>,
    max_queue: usize,
    /// Requests cost what their rows are long.
    costed: bool,
    /// Requests that others may share the answer of, where they may.
    flights: OnceLock<Arc<Flights>>,
    ticker: Arc<Ticker>,
    /// What workers tell the runtime.
    told: mpsc::UnboundedSender<Told>,
    /// Rung where a batch may wait for it whose readers are all too slow: one of them has made room, or a request came.
    bell: Arc<Bell>,
    limits: OnceLock<StreamLimits>,
    /// Closed, and nobody is waited for any more.
    hurried: AtomicBool,
    stepwise: AtomicBool,
    /// What is passed on as it came, where the model is a server elsewhere.
    passing: OnceLock<Passing>,
    metrics: ModelMetrics,
    history: Arc<History>,
    /// Who is told of batches whose requests are recorded.
    log: Arc<OnceLock<Arc<dyn BatchLog>>>,
    /// Where the model is, where it is not always there.
    residence: OnceLock<Box<dyn Residence>>,
    sweeper: Arc<Sweeper>,
    ready: AtomicBool,
    /// What its workers depend on is not well.
    sick: AtomicBool,
    /// Shifts that were announced and are not over, the oldest first.
    shifts: Mutex<Vec<Arc<Shift>>>,
    on_readiness: Mutex<Vec<OnReadiness>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Endpoint {
    /// Opens a queue for a model that so many workers run; its tasks run on `runtime`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the policy contradicts itself.
    pub fn open(
        spec: ModelSpec,
        policy: BatchPolicy,
        workers: usize,
        metrics: ModelMetrics,
        runtime: &Handle,
    ) -> Result<Arc<Self>> {
        let (max_queue, costed) = (policy.max_queue, policy.budget.is_some());
        let batcher = Batcher::with(policy, workers, TimeSource::system())?;
        let ticker = Ticker::new();
        let (told, heard) = mpsc::unbounded_channel();
        let spec = Arc::new(spec);
        let hearing = Hearing { spec, history: Arc::default(), metrics, log: Arc::default() };
        let Hearing { spec, history, metrics, log } = hearing.clone();
        let answers = runtime.spawn(hearing.hear(heard));
        Ok(Arc::new_cyclic(|this: &std::sync::Weak<Self>| {
            let this = this.clone();
            let at_end = move || {
                if let Some(endpoint) = this.upgrade() {
                    endpoint.batcher.release();
                    if endpoint.sweeper.is_due() {
                        endpoint.batcher.sweep(&mut Doorway);
                    }
                }
            };
            let ticks = runtime.spawn(Arc::clone(&ticker).run(at_end));
            Self {
                spec,
                locks: LockCounts::new(),
                batcher,
                max_queue,
                costed,
                flights: OnceLock::new(),
                residence: OnceLock::new(),
                sweeper: Sweeper::new(&ticker),
                ticker,
                told,
                bell: Bell::new(),
                limits: OnceLock::new(),
                hurried: AtomicBool::new(false),
                stepwise: AtomicBool::new(false),
                passing: OnceLock::new(),
                metrics,
                history,
                log,
                ready: AtomicBool::new(false),
                sick: AtomicBool::new(false),
                shifts: Mutex::default(),
                on_readiness: Mutex::default(),
                tasks: vec![answers, ticks],
            }
        }))
    }

    /// Asks the model about `count` rows on those terms. They are queued at once, whether the future is polled or not.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotReady`] before it is, where it [resides](Self::reside) nowhere; [`ErrorKind::Overloaded`] where
    /// the queue is full; [`ErrorKind::Closed`] while closing; why it could not be loaded; what it failed with.
    ///
    /// # Cancellation
    /// Dropping the future takes its rows out of the queue; rows already with the model are answered to nobody.
    pub fn infer(
        &self,
        terms: RequestTerms,
        specs: Specs,
        rows: Rows,
        count: usize,
    ) -> impl Future<Output = Answer> + Send + use<'_> {
        let counted = Counted::new(&self.metrics, terms.deadline);
        let hold = self.admits_whole(count).and_then(|()| self.hold(&terms));
        let asked = hold.and_then(|hold| Ok((hold, self.ask(terms, specs, rows, count)?)));
        self.answered(asked, counted)
    }

    /// Asks the model about the one row of `rows`, for an answer piece by piece: a generator's steps as they come, the
    /// one answer of any other model as its only piece. It is queued at once.
    ///
    /// # Errors
    /// As [`infer`](Self::infer), where it was not queued; what comes later is said by [`Pieces::end`].
    pub fn stream(&self, terms: RequestTerms, specs: Specs, rows: &Rows) -> Result<Pieces> {
        let mut counted = Counted::new(self.metrics.clone(), terms.deadline);
        let hold = self.admits(1).and_then(|()| self.hold(&terms));
        let hold = hold.inspect_err(|error| counted.note(Some(error)))?;
        let in_queue = self.terms_of(&terms, rows);
        let limits = self.limits.get_or_init(StreamLimits::default).clone();
        let bell = Arc::clone(&self.bell);
        let (speaker, mut pieces) =
            steps::pieces(limits, bell, terms.deadline, (hold, counted), &self.spec.name);
        let reply = Reply::Steps { speaker: Box::new(speaker), label: terms.into_label() };
        match self.queue(&GroupKey { key: (), specs }, in_queue, rows, vec![reply]) {
            Ok(()) => Ok(pieces),
            Err(error) => {
                pieces.refused(&error);
                Err(error)
            }
        }
    }

    /// Has `log` told of every batch with a request that is recorded, from here on; the first who says so is heard.
    pub fn trace_by(&self, log: Arc<dyn BatchLog>) {
        self.log.get_or_init(|| log);
    }

    /// Has streams keep within those limits from here on; the first who says so is heard.
    pub fn limit_streams(&self, limits: StreamLimits) {
        self.limits.get_or_init(|| limits);
    }

    async fn answered(
        &self,
        asked: Result<(Hold, oneshot::Receiver<Answer>)>,
        mut counted: Counted<&ModelMetrics>,
    ) -> Answer {
        let answer = match asked {
            Ok((mut hold, answer)) => hold.answered(answer, &self.spec.name).await,
            Err(error) => Err(error),
        };
        counted.note(answer.as_ref().err());
        answer
    }

    /// Counts a worker process that took the place of a dead one.
    pub(super) fn count_restart(&self) {
        self.metrics.restarted();
    }

    /// Counts a request that never came as far as [`infer`](Self::infer).
    pub fn count_invalid(&self) {
        self.metrics.refused(Outcome::Invalid);
    }

    /// Counts a request whose time had passed before it came that far.
    pub fn count_expired(&self) {
        self.metrics.refused(Outcome::Expired);
    }

    fn ask(
        &self,
        asked: RequestTerms,
        specs: Specs,
        rows: Rows,
        count: usize,
    ) -> Result<oneshot::Receiver<Answer>> {
        let mut terms = self.terms_of(&asked, &rows);
        let key = GroupKey { key: (), specs };
        let Some(flights) = self.flights.get() else {
            let (replies, answer) = Reply::for_rows(count, asked.into_label());
            self.queue(&key, terms, &rows, replies)?;
            // Copied into the queue, the rows can serve the next request while this one waits.
            return Ok(answer);
        };
        match flights.place(key.specs.clone(), rows, count, asked.into_label()) {
            Place::Shared(answer) => Ok(answer),
            Place::Own(flight, replies, answer) => {
                // Each of those who wait hangs up by itself when its time has passed.
                terms.deadline = None;
                self.queue(&key, terms, &flight.rows, replies)?;
                flights.depart(flight);
                Ok(answer)
            }
        }
    }

    /// As [`admits`](Self::admits), for an answer as a whole.
    fn admits_whole(&self, count: usize) -> Result<()> {
        self.admits(count)?;
        if self.spec.task == Task::Generate {
            let message = format!("model '{}' answers with text: ask it to generate", self.spec.name);
            return Err(Error::new(ErrorKind::Item, message));
        }
        Ok(())
    }

    fn admits(&self, count: usize) -> Result<()> {
        if self.residence.get().is_none() && !self.ready.load(Ordering::Acquire) {
            let message = format!("model '{}' is not ready", self.spec.name);
            return Err(Error::new(ErrorKind::ModelNotReady, message));
        }
        if count > self.max_queue {
            let message = format!("{count} rows in one request exceed max_queue={}", self.max_queue);
            return Err(Error::new(ErrorKind::Item, message));
        }
        Ok(())
    }

    /// A hold on the model for a request on these terms; where it is not there, it is asked for.
    fn hold(&self, terms: &RequestTerms) -> Result<Hold> {
        let Some(residence) = self.residence.get() else { return Ok(Hold::Always) };
        if let Some(lease) = residence.hit(terms) {
            return Ok(Hold::Here(lease));
        }
        if self.batcher.is_closed() {
            // Nothing is loaded for a queue that takes nothing.
            return Err(Error::new(ErrorKind::Closed, format!("model '{}' was closed", self.spec.name)));
        }
        Hold::wait(residence.as_ref(), terms, &self.sweeper)
    }

    fn queue(&self, key: &GroupKey<()>, terms: Terms, rows: &Rows, replies: Vec<Reply>) -> Result<()> {
        let write = |batch: &mut Rows, row| batch.push_from(rows, row);
        self.batcher.submit_all(key, terms, replies, write, &mut Doorway)?;
        self.ticker.touch();
        self.bell.ring();
        Ok(())
    }

    /// Has identical requests that are in flight at the same time answered once, from here on.
    pub fn share_identical(&self) {
        self.flights.get_or_init(|| Flights::new(self.max_queue));
    }

    /// Requests that were answered with what was being computed for another.
    pub fn shared(&self) -> u64 {
        self.flights.get().map_or(0, |flights| flights.shared())
    }

    /// The same terms as the queue knows them, where the rows are one by one.
    fn terms_of(&self, asked: &RequestTerms, rows: &Rows) -> Terms {
        let in_queue =
            |deadline: Instant| self.batcher.now() + deadline.saturating_duration_since(Instant::now());
        Terms {
            priority: asked.priority,
            tenant: asked.tenant.as_deref().map(|name| self.batcher.tenant(name)).unwrap_or_default(),
            deadline: asked.deadline.map(in_queue),
            cost: if self.costed { u32::try_from(rows.longest()).unwrap_or(u32::MAX) } else { 1 },
            ..Terms::default()
        }
    }

    /// Has requests hold the model where it lives from here on, and wait for it where it is not there; the first who says
    /// so is heard.
    pub fn reside(&self, residence: impl Residence) {
        self.residence.get_or_init(|| Box::new(residence));
    }

    /// True where the model comes and goes.
    pub fn is_resident(&self) -> bool {
        self.residence.get().is_some()
    }

    /// How far the model's load is, where it comes and goes.
    pub fn loading(&self) -> Option<Loading> {
        self.residence.get().map(|residence| residence.progress())
    }

    /// Says that the workers of a shift are there: the model is ready until the last such shift [ends](Self::end_shift).
    /// They take nothing before it [begins](Self::begin_shift).
    pub fn announce_shift(&self, shift: &Arc<Shift>) {
        let mut shifts = self.shifts.lock();
        if shift.announce() {
            shifts.push(Arc::clone(shift));
            self.set_ready(true);
        }
    }

    /// Lets the workers of a shift take batches; it is announced by that, where it was not. Those of earlier shifts finish
    /// what they run and take no more: from here on nobody is answered by an older load.
    pub fn begin_shift(&self, shift: &Arc<Shift>) {
        self.announce_shift(shift);
        let mut shifts = self.shifts.lock();
        let Some(at) = shifts.iter().position(|known| Arc::ptr_eq(known, shift)) else { return };
        let earlier: Vec<_> = shifts.drain(..at).collect();
        shift.begin();
        drop(shifts);
        for earlier in earlier {
            self.batcher.end_shift(&earlier);
        }
    }

    /// Ends a shift: its workers finish what they run and take no more, and what waits goes on waiting. Safe to call twice.
    pub fn end_shift(&self, shift: &Shift) {
        let mut shifts = self.shifts.lock();
        shifts.retain(|known| !std::ptr::eq(Arc::as_ptr(known), shift));
        self.batcher.end_shift(shift);
        if shifts.is_empty() {
            self.set_ready(false);
        }
    }

    /// Has forecasts of deadlines go by so many batches at a time from here on, where not all workers may be at work.
    pub fn run_at_a_time(&self, batches: usize) {
        self.batcher.run_at_a_time(batches);
    }

    /// Batches that run at a time, as forecasts have it.
    pub fn at_a_time(&self) -> usize {
        self.batcher.at_a_time()
    }

    /// Blocks a worker until a batch may be taken.
    pub fn wait(&self) -> Turn {
        self.batcher.wait()
    }

    /// As [`wait`](Self::wait), for a worker of that shift.
    pub fn wait_in(&self, shift: &Shift) -> Turn {
        self.batcher.wait_in(shift)
    }

    /// As [`wait_in`](Self::wait_in), for a task.
    ///
    /// # Cancellation
    /// Dropping the future ends the wait; nothing is taken.
    pub async fn turn_in(&self, shift: &Shift) -> Turn {
        let mut later: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|context| {
            loop {
                let until = match self.batcher.look_in(shift, context.waker()) {
                    Look::Turn(turn) => return Poll::Ready(turn),
                    Look::Later(None) => return Poll::Pending,
                    Look::Later(Some(until)) => until.into(),
                };
                let sleep = later.get_or_insert_with(|| Box::pin(sleep_until(until)));
                if sleep.deadline() != until {
                    sleep.as_mut().reset(until);
                }
                ready!(sleep.as_mut().poll(context));
            }
        })
        .await
    }

    /// Takes a batch, if one may be taken, without the requests whose senders hung up.
    pub fn take(&self) -> Option<(Batch<(), Reply>, BatchAccount)> {
        let mut batch = self.batcher.take(&mut Doorway)?;
        let cut = std::mem::take(&mut batch.cut);
        let mut account = BatchAccount::open(batch.entries.len(), batch.reason.name(), cut);
        account.add_requests(&batch.entries);
        note_labels(&mut account, &batch.entries, self.log.get().is_some());
        for speaker in batch.entries.iter().filter_map(|entry| entry.waiter.speaker()) {
            speaker.board(&account);
        }
        self.metrics.batch(account.rows, account.reason);
        Some((batch, account))
    }

    /// More requests of that group for a batch that is being run and has this account, at most `limit` of them.
    pub fn join(
        &self,
        group: &GroupKey<()>,
        limit: usize,
        account: &BatchAccount,
    ) -> Option<Batch<(), Reply>> {
        let batch = self.batcher.join(group, limit, &mut Doorway)?;
        let recorded = self.log.get().is_some();
        for entry in &batch.entries {
            if let Some(trace) = &entry.waiter.label().trace {
                account.trace.join(trace, recorded);
            }
            if let Some(speaker) = entry.waiter.speaker() {
                speaker.board(account);
            }
        }
        Some(batch)
    }

    /// Sends answers on their way, of a batch that goes on: one message for all.
    pub fn answer(&self, finished: Finished) {
        self.tell(Told::Answers(Box::new(finished), false));
    }

    /// Sends a batch's answers on their way, the last of them: one message for all.
    pub fn finish(&self, finished: Finished) {
        let (number, ran) = (finished.account.cut.number, finished.ran);
        self.tell(Told::Answers(Box::new(finished), true));
        self.batcher.finish(number, ran);
    }

    /// Writes what comes, and how long the model takes, into a file from here on.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the file cannot be written.
    pub fn record(&self, path: &std::path::Path) -> Result<Arc<crate::batch::trace::Recorder>> {
        self.batcher.record(path)
    }

    /// Notes that the model is a generator: it answers step by step.
    pub fn set_stepwise(&self) {
        self.stepwise.store(true, Ordering::Relaxed);
    }

    /// True where the model is known to answer step by step.
    pub fn is_stepwise(&self) -> bool {
        self.stepwise.load(Ordering::Relaxed)
    }

    /// Notes that the model takes such requests as they came, in a column of a text for each that has one axis of the length
    /// 1; the first who says so is heard.
    pub fn pass_on(&self, passing: Passing) {
        self.passing.get_or_init(|| passing);
    }

    /// What the model takes as it came, if anything.
    pub fn passing(&self) -> Option<Passing> {
        self.passing.get().copied()
    }

    /// Wakes the readers of a step: one message for all.
    pub fn wake(&self, sleepers: Vec<Waker>) {
        if !sleepers.is_empty() {
            self.tell(Told::Step(sleepers));
        }
    }

    /// What rings when a request comes, or a reader that was too slow has made room or has left: for a batch that has
    /// nothing else to do.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Requests of that group that wait.
    pub fn waiting_in(&self, group: &GroupKey<()>) -> usize {
        self.batcher.waiting_in(group)
    }

    fn tell(&self, told: Told) {
        // The receiving task lives as long as this endpoint does.
        match self.told.send(told) {
            Ok(()) => {}
            Err(mpsc::error::SendError(Told::Answers(finished, _))) => finished.hand_out(|_| ()),
            Err(mpsc::error::SendError(Told::Step(sleepers))) => sleepers.into_iter().for_each(Waker::wake),
        }
    }

    /// Where request memory comes from and goes back to.
    pub fn spares(&self) -> &Arc<crate::tensor::Spares> {
        self.batcher.spares()
    }

    /// Says that the model can answer, or that it cannot any more.
    pub fn set_ready(&self, ready: bool) {
        if self.ready.swap(ready, Ordering::AcqRel) != ready {
            self.on_readiness.lock().iter().for_each(|told| told());
        }
    }

    /// Says that what its workers depend on is well, or is not: then the model is not ready, although requests for it are
    /// tried all the same.
    pub fn set_well(&self, well: bool) {
        if self.sick.swap(!well, Ordering::AcqRel) == well {
            self.on_readiness.lock().iter().for_each(|told| told());
        }
    }

    /// Has `told` called whenever the model becomes ready, or is not ready any more.
    pub fn on_readiness(&self, told: impl Fn() + Send + Sync + 'static) {
        self.on_readiness.lock().push(Box::new(told));
    }

    /// True where the model can answer.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.sick.load(Ordering::Acquire)
    }

    /// Accepts nothing more; what waits is still answered if `drain`, and refused otherwise.
    pub fn close(&self, drain: bool) {
        let left = self.batcher.close(drain);
        if !drain {
            self.hurried.store(true, Ordering::SeqCst);
            self.bell.ring();
        }
        for entry in left.entries {
            let message = format!("model '{}' was closed before this request was run", self.spec.name);
            entry.waiter.refuse(Error::new(ErrorKind::Closed, message));
        }
    }

    /// True once it was closed and readers are not waited for any more.
    pub fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::SeqCst)
    }

    /// True where nothing waits and nothing more will come.
    pub fn is_done(&self) -> bool {
        self.batcher.is_closed() && self.batcher.stats().queued == 0
    }

    /// Blocks until nothing waits and nothing runs, for at most `limit`.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        self.batcher.wait_idle(limit)
    }

    /// The counters of its batcher.
    pub fn stats(&self) -> crate::batch::BatchStats {
        self.batcher.stats()
    }

    /// The clock that deadlines of its batches are by.
    pub fn clock(&self) -> &TimeSource {
        self.batcher.clock()
    }

    /// What there is to say of its batches.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Brings the metrics up to date, before their text is made.
    pub fn observe(&self) {
        let stats = self.batcher.stats();
        self.metrics.observe(stats.queued, stats.cap, &self.locks);
    }
}

/// Notes what goes with the requests of a batch, each once.
fn note_labels(account: &mut BatchAccount, entries: &[Entry<Reply>], recorded: bool) {
    for label in entries.iter().map(|entry| entry.waiter.label()) {
        // The rows of a request stand side by side.
        if let Some(id) = label.id.as_ref().filter(|id| account.ids.last() != Some(id)) {
            account.ids.push(Arc::clone(id));
        }
        if let Some(trace) = &label.trace {
            account.trace.add(trace);
        }
    }
    account.trace.close(recorded);
}

/// What is kept of batches that are done.
#[derive(Clone)]
struct Hearing {
    spec: Arc<ModelSpec>,
    history: Arc<History>,
    metrics: ModelMetrics,
    log: Arc<OnceLock<Arc<dyn BatchLog>>>,
}

impl Hearing {
    /// Hands out what workers say, on the runtime's thread, as long as the endpoint lives.
    async fn hear(self, mut heard: mpsc::UnboundedReceiver<Told>) {
        while let Some(told) = heard.recv().await {
            match told {
                // Kept first, so that whoever has his answer finds his batch.
                Told::Answers(batch, last) => batch.hand_out(|batch| {
                    if last {
                        self.keep(batch);
                    }
                }),
                Told::Step(sleepers) => sleepers.into_iter().for_each(Waker::wake),
            }
        }
    }

    fn keep(&self, batch: &Arc<BatchAccount>) {
        self.metrics.finished(&batch.count());
        self.history.keep(batch);
        if batch.trace.is_recorded()
            && let Some(log) = self.log.get()
        {
            log.batch(&self.spec, batch);
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A request that is counted when it ends, also where its sender hangs up before.
pub(super) struct Counted<M: Borrow<ModelMetrics>> {
    metrics: M,
    start: Instant,
    deadline: Option<Instant>,
    pub(super) outcome: Outcome,
}

impl<M: Borrow<ModelMetrics>> Counted<M> {
    fn new(metrics: M, deadline: Option<Instant>) -> Self {
        Self { metrics, start: Instant::now(), deadline, outcome: Outcome::Gone }
    }

    /// Notes how it ended.
    pub(super) fn note(&mut self, failure: Option<&Error>) {
        self.outcome = failure.map_or(Outcome::Ok, |error| outcome(error.kind()));
    }
}

impl<M: Borrow<ModelMetrics>> Drop for Counted<M> {
    fn drop(&mut self) {
        // Who gives up when his time has passed does not hang up.
        if self.outcome == Outcome::Gone && self.deadline.is_some_and(|end| end <= Instant::now()) {
            self.outcome = Outcome::Expired;
        }
        self.metrics.borrow().request(self.outcome, self.start.elapsed());
    }
}

fn outcome(kind: ErrorKind) -> Outcome {
    match kind {
        ErrorKind::Item => Outcome::Invalid,
        ErrorKind::Overloaded | ErrorKind::Closed | ErrorKind::ModelNotReady => Outcome::Overloaded,
        ErrorKind::DeadlineExceeded => Outcome::Expired,
        _ => Outcome::Failed,
    }
}

/// Requests that came through a door are gone when their answer can no longer be sent.
struct Doorway;

impl Attendance<Reply> for Doorway {
    fn is_gone(&mut self, reply: &Reply) -> bool {
        reply.is_gone()
    }

    fn forget(&mut self, removed: Removed<Reply>) {
        drop(removed);
    }

    fn expire(&mut self, removed: Removed<Reply>) {
        for entry in removed.entries {
            let message = "the request could not be answered before its deadline";
            entry.waiter.refuse(Error::new(ErrorKind::DeadlineExceeded, message));
        }
    }
}
