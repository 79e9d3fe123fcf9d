//! The owner of a [`BatchQueue`]: it lets threads wait for batches and keeps the counters.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::queue::Outlook;
use super::{
    Batch, BatchPolicy, BatchQueue, BatchStats, Dispatch, Entry, GroupKey, Ran, Removed, Tenant, Terms,
};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Clock, Moment, Monitor, TimeSource};
use crate::tensor::{Rows, Spares};

/// Bytes of unused batch memory that a batcher keeps.
const SPARE_BYTES: usize = 64 << 20;

/// Requests that have left are looked for in a full queue at most this often: the search touches all of them.
const SEARCH_EVERY: Duration = Duration::from_millis(10);

/// What a worker is told when it asks for something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A batch may be there to [`take`](Batcher::take).
    Work,
    /// Nothing will come any more.
    Done,
}

/// What a batcher asks about those who wait: the floor above knows what a waiter is.
pub trait Attendance<W> {
    /// True where nobody waits for the answer any more. It may be asked under the batcher's lock, and must not call the
    /// batcher.
    fn is_gone(&mut self, waiter: &W) -> bool;

    /// Lets go of requests that left before the model saw them. It is called without the batcher's lock.
    fn forget(&mut self, removed: Removed<W>);
}

struct State<K, W> {
    queue: BatchQueue<K, W>,
    /// Workers asleep: a wake-up costs a system call only where somebody sleeps.
    asleep: usize,
    /// Batches taken and not yet finished.
    running: usize,
    last_search: Option<Moment>,
    /// The moment that everything in this tick counts as its arrival; `None` where the clock must be read.
    tick: Option<Moment>,
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
    pub fn with(policy: BatchPolicy, _workers: usize, clock: TimeSource) -> Result<Self> {
        policy.check()?;
        let spares = Spares::new(SPARE_BYTES);
        let queue = BatchQueue::new(policy, Arc::clone(&spares));
        let state =
            Arc::new(Monitor::new(State { queue, asleep: 0, running: 0, last_search: None, tick: None }));
        if let TimeSource::Virtual(clock) = &clock {
            let state = Arc::downgrade(&state);
            clock.on_move(state);
        }
        Ok(Self { state, clock, spares })
    }

    /// The number that stands for a tenant; everyone is the same where the policy names no shares.
    pub fn tenant(&self, _name: &str) -> Tenant {
        Tenant::default()
    }

    /// Where batches of this batcher take their memory from.
    pub fn spares(&self) -> &Arc<Spares> {
        &self.spares
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
        let mut state = self.state.lock();
        if state.queue.is_closing() {
            return Err(Error::new(ErrorKind::Closed, "the batcher is closed"));
        }
        let left =
            if state.queue.is_full() { Some(state.make_room(self.clock.now(), attendance)?) } else { None };
        let arrived = state.arrival(&self.clock);
        let look = state.queue.push(key, terms, Entry { waiter, arrived, deadline: terms.deadline }, write);
        let wake = look && state.asleep > 0;
        drop(state);
        if wake {
            self.state.wake_one();
        }
        if let Some(left) = left {
            attendance.forget(left);
        }
        Ok(())
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
        mut write: impl FnMut(&mut Rows, usize),
        attendance: &mut impl Attendance<W>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if state.queue.is_closing() {
            return Err(Error::new(ErrorKind::Closed, "the batcher is closed"));
        }
        let limit = state.queue.policy().max_queue;
        if waiters.len() > limit {
            let message = format!("{} rows in one request exceed max_queue={limit}", waiters.len());
            return Err(Error::new(ErrorKind::Item, message));
        }
        let crowded = state.queue.waiting() + waiters.len() > limit;
        let left = if crowded { Some(state.make_room(self.clock.now(), attendance)?) } else { None };
        if state.queue.waiting() + waiters.len() > limit {
            let error = state.refuse();
            drop(state);
            if let Some(left) = left {
                attendance.forget(left);
            }
            return Err(error);
        }
        let arrived = state.arrival(&self.clock);
        let mut look = false;
        for (row, waiter) in waiters.into_iter().enumerate() {
            let entry = Entry { waiter, arrived, deadline: terms.deadline };
            look |= state.queue.push(key, terms, entry, |rows| write(rows, row));
        }
        let wake = look && state.asleep > 0;
        drop(state);
        if wake {
            self.state.wake_one();
        }
        if let Some(left) = left {
            attendance.forget(left);
        }
        Ok(())
    }

    /// Ends a tick: what came during it may be taken.
    pub fn release(&self) {
        let wake = {
            let mut state = self.state.lock();
            state.tick = None;
            state.queue.release() && state.asleep > 0
        };
        if wake {
            self.state.wake_one();
        }
    }

    /// Blocks until a batch may be taken or the batcher is done.
    pub fn wait(&self) -> Turn {
        let mut state = self.state.lock();
        loop {
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
        let (mut batch, more) = {
            let mut state = self.state.lock();
            let now = self.clock.now();
            let batch = state.queue.take(now)?;
            state.running += 1;
            // A window that still runs needs a sleeper of its own: this worker is busy from here on.
            let more = state.asleep > 0 && state.queue.outlook(now) != Outlook::Idle;
            (batch, more)
        };
        if more {
            self.state.wake_one();
        }
        // The search for the gone may call into Python: not under the lock.
        let left = batch.remove_gone(&self.spares, |waiter| attendance.is_gone(waiter));
        let mut state = self.state.lock();
        state.queue.count_abandoned(left.entries.len());
        if batch.entries.is_empty() {
            drop(state);
            attendance.forget(left);
            self.finish(batch.cut.number, Ran::Unknown);
            return None;
        }
        state.queue.count_batch(batch.entries.len(), batch.reason);
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
        _group: &GroupKey<K>,
        _limit: usize,
        _attendance: &mut impl Attendance<W>,
    ) -> Option<Batch<K, W>> {
        None
    }

    /// Says that a batch is done with, and what came of it.
    pub fn finish(&self, _number: u64, _ran: Ran) {
        let mut state = self.state.lock();
        state.running = state.running.saturating_sub(1);
        let idle = state.running == 0 && state.queue.is_closing();
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
        drop(state);
        self.state.wake_all();
        self.state.wake_ended();
        left
    }

    /// Blocks until nothing waits and nothing runs, for at most `limit`; answers whether that came.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        let end = std::time::Instant::now() + limit;
        let mut state = self.state.lock();
        while state.queue.waiting() > 0 || state.running > 0 {
            if std::time::Instant::now() >= end {
                return false;
            }
            state = self.state.wait_ended(state, end);
        }
        true
    }

    /// True where nothing waits and nothing runs; false also where that could not be seen without waiting.
    pub fn is_idle(&self) -> bool {
        self.state.try_lock().is_some_and(|state| state.queue.waiting() == 0 && state.running == 0)
    }

    /// True once closing has begun.
    pub fn is_closed(&self) -> bool {
        self.state.lock().queue.is_closing()
    }

    /// Batches taken and not yet finished.
    pub fn running(&self) -> usize {
        self.state.lock().running
    }

    /// The counters.
    pub fn stats(&self) -> BatchStats {
        self.state.lock().queue.stats()
    }
}

impl<K: Eq + Hash + Clone, W> State<K, W> {
    /// The moment of an arrival: under tick dispatch one reading of the clock serves a tick.
    fn arrival(&mut self, clock: &TimeSource) -> Moment {
        match (self.tick, self.queue.policy().dispatch) {
            (Some(moment), Dispatch::Tick) => moment,
            _ => *self.tick.insert(clock.now()),
        }
    }

    /// Room for a request in a full queue: requests that have left make it.
    fn make_room(&mut self, now: Moment, attendance: &mut impl Attendance<W>) -> Result<Removed<W>> {
        if self.last_search.is_none_or(|last| now.since(last) >= SEARCH_EVERY) {
            self.last_search = Some(now);
            let left = self.queue.remove_gone(|waiter| attendance.is_gone(waiter));
            if !self.queue.is_full() {
                return Ok(left);
            }
        }
        Err(self.refuse())
    }

    fn refuse(&mut self) -> Error {
        self.queue.count_rejected();
        let limit = self.queue.policy().max_queue;
        Error::new(ErrorKind::Overloaded, format!("the queue is full: max_queue={limit} requests wait"))
    }
}
