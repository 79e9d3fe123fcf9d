//! The owner of a [`BatchQueue`]: it lets threads wait for batches and keeps the counters.

use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::queue::Outlook;
use super::trace::{Event, Recorder};
use super::turn::{Look, Sleepers, Tasks, Turn};
use super::{
    Batch, BatchPolicy, BatchQueue, BatchStats, Dispatch, Entry, GroupKey, Ran, Removed, Shift, Tenant, Terms,
};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Clock, Moment, Monitor, TimeSource};
use crate::tensor::{Rows, Spares};

/// Bytes of unused batch memory that a batcher keeps.
const SPARE_BYTES: usize = 64 << 20;

/// Requests that have left are looked for in a full queue at most this often: the search touches all of them.
const SEARCH_EVERY: Duration = Duration::from_millis(10);

/// What a batcher asks about those who wait: the floor above knows what a waiter is.
pub trait Attendance<W> {
    /// True where nobody waits for the answer any more. It may be asked under the batcher's lock, and must not call the
    /// batcher.
    fn is_gone(&mut self, waiter: &W) -> bool;

    /// Lets go of requests that left before the model saw them. It is called without the batcher's lock.
    fn forget(&mut self, removed: Removed<W>);

    /// Tells whoever waits that their deadline has passed, or cannot be met any more. It is called without the batcher's
    /// lock.
    fn expire(&mut self, removed: Removed<W>);
}

struct State<K, W> {
    queue: BatchQueue<K, W>,
    /// Workers asleep: a wake-up costs a system call only where somebody sleeps.
    asleep: usize,
    /// Tasks that have nothing to do: as good as asleep.
    tasks: Tasks,
    /// Batches taken whose requests are still being looked through.
    taking: usize,
    last_search: Option<Moment>,
    /// The moment that everything in this tick counts as its arrival; `None` where the clock must be read.
    tick: Option<Moment>,
    /// Where what happens is written down, while it is.
    recorder: Option<Arc<Recorder>>,
}

/// A queue of requests and the threads that wait on it.
pub struct Batcher<K, W> {
    state: Arc<Monitor<State<K, W>>>,
    clock: TimeSource,
    spares: Arc<Spares>,
}

impl<K: Eq + Hash + Clone + Send + Sync + 'static, W: Send + 'static> Batcher<K, W> {
    /// An open batcher with one worker, by the system's clock.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the policy contradicts itself.
    pub fn new(policy: BatchPolicy) -> Result<Self> {
        Self::with(policy, 1, TimeSource::system())
    }

    /// An open batcher whose batches so many workers take.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the policy contradicts itself.
    pub fn with(policy: BatchPolicy, workers: usize, clock: TimeSource) -> Result<Self> {
        policy.check()?;
        let spares = Spares::new(SPARE_BYTES);
        let queue = BatchQueue::with_workers(policy, workers, Arc::clone(&spares));
        let state = Arc::new(Monitor::new(State {
            queue,
            asleep: 0,
            tasks: Tasks::new(),
            taking: 0,
            last_search: None,
            tick: None,
            recorder: None,
        }));
        if let TimeSource::Virtual(clock) = &clock {
            let state = Arc::downgrade(&state);
            clock.on_move(state);
        }
        Ok(Self { state, clock, spares })
    }

    /// Has forecasts of deadlines go by so many batches at a time from here on, where not all workers may be at work.
    pub fn run_at_a_time(&self, batches: usize) {
        self.state.lock().queue.run_at_a_time(batches);
    }

    /// Batches that run at a time, as forecasts have it.
    pub fn at_a_time(&self) -> usize {
        self.state.lock().queue.at_a_time()
    }

    /// The number that stands for a tenant; everyone is the same where the policy names no shares.
    pub fn tenant(&self, name: &str) -> Tenant {
        self.state.lock().queue.tenant(name)
    }

    /// Where batches of this batcher take their memory from.
    pub fn spares(&self) -> &Arc<Spares> {
        &self.spares
    }

    /// The clock that it lives by.
    pub fn clock(&self) -> &TimeSource {
        &self.clock
    }

    /// The moment that arrivals of this batcher are counted in.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Adds a request; `write` adds its row to every column, under the batcher's lock. A refused waiter is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after [`close`](Self::close); [`ErrorKind::Overloaded`] where `max_queue` requests wait
    /// and none of them is gone.
    pub fn submit(
        &self,
        key: &GroupKey<K>,
        terms: Terms,
        waiter: W,
        write: impl FnOnce(&mut Rows),
        attendance: &mut impl Attendance<W>,
    ) -> Result<()> {
        let mut write = Some(write);
        let row = |rows: &mut Rows, _| {
            if let Some(write) = write.take() {
                write(rows);
            }
        };
        self.enter(key, terms, std::iter::once(waiter), row, attendance)
    }

    /// Adds several requests or none of them, as [`submit`](Self::submit) does.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); [`ErrorKind::Item`] where they could never fit into the queue.
    pub fn submit_all(
        &self,
        key: &GroupKey<K>,
        terms: Terms,
        waiters: Vec<W>,
        write: impl FnMut(&mut Rows, usize),
        attendance: &mut impl Attendance<W>,
    ) -> Result<()> {
        self.enter(key, terms, waiters.into_iter(), write, attendance)
    }

    fn enter(
        &self,
        key: &GroupKey<K>,
        terms: Terms,
        waiters: impl ExactSizeIterator<Item = W>,
        mut write: impl FnMut(&mut Rows, usize),
        attendance: &mut impl Attendance<W>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        state.record_arrival(key, &terms, waiters.len(), &self.clock);
        let (left, admitted) = state.admit(key, &terms, waiters.len(), &self.clock, attendance);
        if let Err(error) = admitted {
            drop(state);
            forget(left, attendance);
            return Err(error);
        }
        let arrived = state.arrival(&self.clock);
        let terms = Terms { request: state.queue.next_request(), ..terms };
        let mut look = false;
        for (row, waiter) in waiters.enumerate() {
            let entry = Entry { waiter, arrived, deadline: terms.deadline };
            look |= state.queue.push(key, terms, entry, |rows| write(rows, row));
        }
        let wake = if look { state.sleepers() } else { Sleepers::none() };
        drop(state);
        wake.wake(&self.state);
        forget(left, attendance);
        Ok(())
    }

    /// Ends a tick: what came during it may be taken.
    pub fn release(&self) {
        let wake = {
            let mut state = self.state.lock();
            state.tick = None;
            let look = state.queue.waiting() > 0 && state.queue.release(self.clock.now());
            if look { state.sleepers() } else { Sleepers::none() }
        };
        wake.wake(&self.state);
    }

    /// Blocks until a batch may be taken or the batcher is done.
    pub fn wait(&self) -> Turn {
        self.wait_while(|| true)
    }

    /// As [`wait`](Self::wait), for a worker of that shift: before it begins nothing may be taken, and once it is over,
    /// nothing will come any more.
    pub fn wait_in(&self, shift: &Shift) -> Turn {
        shift.wait();
        self.wait_while(|| !shift.is_over())
    }

    fn wait_while(&self, wanted: impl Fn() -> bool) -> Turn {
        let mut state = self.state.lock();
        loop {
            if !wanted() {
                // Whoever was woken for a batch, and leaves it, wakes the next.
                let wake = state.sleepers();
                drop(state);
                wake.wake(&self.state);
                return Turn::Done;
            }
            let until = match state.queue.outlook(self.clock.now()) {
                Outlook::Ready => return Turn::Work,
                Outlook::Idle if state.queue.is_closing() => return Turn::Done,
                Outlook::Idle => None,
                Outlook::Later(moment) => self.clock.instant(moment),
            };
            state.asleep += 1;
            state = self.state.wait(state, until);
            state.asleep -= 1;
        }
    }

    /// As [`wait_in`](Self::wait_in), for a task that must not block: its `waker` is called when it should look again.
    pub fn look_in(&self, shift: &Shift, waker: &Waker) -> Look {
        if !shift.has_come(waker) {
            return Look::Later(None);
        }
        let mut state = self.state.lock();
        if shift.is_over() {
            let wake = state.sleepers();
            drop(state);
            wake.wake(&self.state);
            return Look::Turn(Turn::Done);
        }
        let until = match state.queue.outlook(self.clock.now()) {
            Outlook::Ready => return Look::Turn(Turn::Work),
            Outlook::Idle if state.queue.is_closing() => return Look::Turn(Turn::Done),
            Outlook::Idle => None,
            Outlook::Later(moment) => self.clock.instant(moment),
        };
        if !state.tasks.iter().any(|known| known.will_wake(waker)) {
            state.tasks.push(waker.clone());
        }
        Look::Later(until)
    }

    /// Ends a shift: its workers finish what they run, and take no more. What waits goes on waiting for others.
    pub fn end_shift(&self, shift: &Shift) {
        // Under the lock: nobody is between looking at it and falling asleep.
        let mut state = self.state.lock();
        shift.end();
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        self.state.wake_all();
        tasks.into_iter().for_each(Waker::wake);
    }

    /// Forgets what waits and whose waiters are gone, where no worker is there to come upon it.
    pub fn sweep(&self, attendance: &mut impl Attendance<W>) {
        let mut state = self.state.lock();
        let left = state.queue.remove_gone(|waiter| attendance.is_gone(waiter));
        let idle = state.is_idle();
        drop(state);
        attendance.forget(left);
        if idle {
            self.state.wake_ended();
        }
    }

    /// When somebody should look again where nothing may be taken yet: for event loops, which cannot [`wait`](Self::wait).
    pub fn look_again_in(&self) -> Option<Duration> {
        let now = self.clock.now();
        match self.state.lock().queue.outlook(now) {
            Outlook::Later(moment) => Some(moment.since(now)),
            Outlook::Ready => Some(Duration::ZERO),
            Outlook::Idle => None,
        }
    }

    /// Cuts a batch, if one may be cut; requests whose waiter is gone are left out of it.
    ///
    /// Whoever takes a batch says [`finish`](Self::finish) when its answers are out.
    pub fn take(&self, attendance: &mut impl Attendance<W>) -> Option<Batch<K, W>> {
        let (expired, taken, more, idle) = {
            let mut state = self.state.lock();
            let now = self.clock.now();
            let expired = state.queue.expire(now);
            let taken = state.queue.take(now);
            let idle = taken.is_none() && state.is_idle() && state.queue.is_closing();
            state.taking += usize::from(taken.is_some());
            // A window that still runs needs a sleeper of its own: this worker is busy from here on.
            let more = taken.is_some() && state.has_sleepers() && state.queue.outlook(now) != Outlook::Idle;
            let more = if more { state.sleepers() } else { Sleepers::none() };
            (expired, taken, more, idle)
        };
        more.wake(&self.state);
        // The last to wait may have expired.
        if idle {
            self.state.wake_ended();
        }
        if !expired.entries.is_empty() {
            attendance.expire(expired);
        }
        let mut batch = taken?;
        // The search for the gone may call into Python: not under the lock.
        let left = batch.remove_gone(&self.spares, |waiter| attendance.is_gone(waiter));
        let mut state = self.state.lock();
        state.taking -= 1;
        state.queue.count_abandoned(left.entries.len());
        if batch.entries.is_empty() {
            drop(state);
            attendance.forget(left);
            self.finish(0, Ran::Unknown);
            return None;
        }
        state.queue.begin(&mut batch);
        drop(state);
        if !left.entries.is_empty() {
            attendance.forget(left);
        }
        Some(batch)
    }

    /// More requests of that group for a batch that is being run, at most `limit` of them, whether it is time for them or
    /// not. They count to the batch that they join: it is finished once.
    pub fn join(
        &self,
        group: &GroupKey<K>,
        limit: usize,
        attendance: &mut impl Attendance<W>,
    ) -> Option<Batch<K, W>> {
        let (expired, joined) = {
            let mut state = self.state.lock();
            let now = self.clock.now();
            (state.queue.expire(now), state.queue.join(group, limit, now))
        };
        if !expired.entries.is_empty() {
            attendance.expire(expired);
        }
        let mut batch = joined?;
        let left = batch.remove_gone(&self.spares, |waiter| attendance.is_gone(waiter));
        let mut state = self.state.lock();
        state.queue.count_abandoned(left.entries.len());
        state.queue.count_joined(&batch);
        drop(state);
        if !left.entries.is_empty() {
            attendance.forget(left);
        }
        (!batch.entries.is_empty()).then_some(batch)
    }

    /// Requests of that group that wait, as far as it is known without asking whether they still do.
    pub fn waiting_in(&self, group: &GroupKey<K>) -> usize {
        self.state.lock().queue.waiting_in(group)
    }

    /// Writes what comes, and how long the function takes, into a file from here on; [`Recorder::close`] ends it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the file cannot be written.
    pub fn record(&self, path: &Path) -> Result<Arc<Recorder>> {
        let (policy, workers) = {
            let state = self.state.lock();
            (state.queue.policy().clone(), state.queue.workers())
        };
        let recorder = Recorder::begin(path, &policy, workers)?;
        // Whichever was there before ends with its last owner, who is not under the lock here.
        let before = self.state.lock().recorder.replace(Arc::clone(&recorder));
        drop(before);
        Ok(recorder)
    }

    /// Says that a batch is done with, and what came of it.
    pub fn finish(&self, number: u64, ran: Ran) {
        let mut state = self.state.lock();
        state.record_batch(number, ran);
        state.queue.finish(number, ran);
        let idle = state.running() == 0 && state.queue.is_closing();
        drop(state);
        if idle {
            self.state.wake_ended();
        }
    }

    /// Accepts nothing more. With `drain` what waits is still handed out; without, it is answered with.
    pub fn close(&self, drain: bool) -> Removed<W> {
        let mut state = self.state.lock();
        state.queue.close();
        let left = if drain { Removed::none() } else { state.queue.remove_gone(|_| true) };
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        self.state.wake_all();
        self.state.wake_ended();
        tasks.into_iter().for_each(Waker::wake);
        left
    }

    /// Blocks until nothing waits and nothing runs, for at most `limit`; answers whether that came.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        let end = std::time::Instant::now() + limit;
        let mut state = self.state.lock();
        while !state.is_idle() {
            if std::time::Instant::now() >= end {
                return false;
            }
            state = self.state.wait_ended(state, end);
        }
        true
    }

    /// True where nothing waits and nothing runs; false also where that could not be seen without waiting.
    pub fn is_idle(&self) -> bool {
        self.state.try_lock().is_some_and(|state| state.is_idle())
    }

    /// True once closing has begun.
    pub fn is_closed(&self) -> bool {
        self.state.lock().queue.is_closing()
    }

    /// Batches taken and not yet finished.
    pub fn running(&self) -> usize {
        self.state.lock().running()
    }

    /// The counters.
    pub fn stats(&self) -> BatchStats {
        self.state.lock().queue.stats()
    }
}

fn forget<W>(left: Option<Removed<W>>, attendance: &mut impl Attendance<W>) {
    if let Some(left) = left {
        attendance.forget(left);
    }
}

impl<K: Eq + Hash + Clone, W> State<K, W> {
    fn has_sleepers(&self) -> bool {
        self.asleep > 0 || !self.tasks.is_empty()
    }

    /// Those who are to be woken, once the lock is given back.
    fn sleepers(&mut self) -> Sleepers {
        Sleepers { thread: self.asleep > 0, tasks: std::mem::take(&mut self.tasks) }
    }

    /// The moment of an arrival: under tick dispatch one reading of the clock serves a tick.
    fn arrival(&mut self, clock: &TimeSource) -> Moment {
        match (self.tick, self.queue.policy().dispatch) {
            (Some(moment), Dispatch::Tick) => moment,
            _ => *self.tick.insert(clock.now()),
        }
    }

    fn record_arrival(&mut self, key: &GroupKey<K>, terms: &Terms, rows: usize, clock: &TimeSource) {
        if self.recorder.is_none() {
            return;
        }
        let at = self.arrival(clock);
        if let Some(recorder) = &self.recorder {
            let (rows, cost) = (u32::try_from(rows).unwrap_or(u32::MAX), self.queue.cost_of(key, terms));
            let timeout = terms.deadline.map(|deadline| deadline.since(at));
            recorder.note(Event::Arrival { at, rows, cost, timeout });
        }
    }

    fn record_batch(&self, number: u64, ran: Ran) {
        let (Some(recorder), Ran::Whole(took)) = (&self.recorder, ran) else { return };
        if let Some((rows, cost, taken)) = self.queue.batch_of(number) {
            recorder.note(Event::Batch { taken, rows, cost, took });
        }
    }

    fn running(&self) -> usize {
        self.taking + self.queue.running()
    }

    fn is_idle(&self) -> bool {
        self.queue.waiting() == 0 && self.running() == 0
    }

    /// Whether so many requests may wait. Requests that have left make room in a full queue; they must be forgotten,
    /// without the lock, whatever came of it.
    fn admit(
        &mut self,
        key: &GroupKey<K>,
        terms: &Terms,
        requests: usize,
        clock: &TimeSource,
        attendance: &mut impl Attendance<W>,
    ) -> (Option<Removed<W>>, Result<()>) {
        if self.queue.is_closing() {
            return (None, Err(Error::new(ErrorKind::Closed, "the batcher is closed")));
        }
        let mut left = None;
        let mut room = self.queue.check_room(requests, key, terms);
        if room.as_ref().is_err_and(|error| error.kind() == ErrorKind::Overloaded) {
            left = self.search(clock.now(), attendance);
            room = self.queue.check_room(requests, key, terms);
        }
        if room.as_ref().is_err_and(|error| error.kind() == ErrorKind::Overloaded) {
            self.queue.count_rejected();
        }
        let admitted = room.and_then(|()| {
            if terms.deadline.is_none() {
                return Ok(());
            }
            let in_time = self.queue.check_deadline(key, terms, clock.now());
            in_time.inspect_err(|_| self.queue.count_hopeless())
        });
        (left, admitted)
    }

    /// Looks for requests that have left, unless that was done a moment ago.
    fn search(&mut self, now: Moment, attendance: &mut impl Attendance<W>) -> Option<Removed<W>> {
        if self.last_search.is_some_and(|last| now.since(last) < SEARCH_EVERY) {
            return None;
        }
        self.last_search = Some(now);
        Some(self.queue.remove_gone(|waiter| attendance.is_gone(waiter)))
    }
}
