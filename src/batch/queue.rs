//! Requests that wait for company: plain state, moved only by the calls below and by the time they are given.
//!
//! Requests that may share a call form a [`Group`]; the queue finds the group of each, and says which may leave.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::group::{Gathered, Group};
use super::pile::{Came, Waiting};
use super::select::Shares;
use super::{
    Backlog, Batch, BatchPolicy, BatchStats, Cut, Dispatch, Entry, GroupKey, Learned, Ran, Reason, Removed,
    Tenant, Terms, Verdict, finish_in, verdict,
};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;
use crate::tensor::{Rows, Spares};

/// Groups that may stand empty before they are forgotten.
const EMPTY_GROUPS_KEPT: usize = 64;

/// Names of groups that are remembered: rows of different lengths in one group have one each.
const NAMES_KEPT: usize = 4096;

/// Names of tenants that are remembered; all others are one.
const TENANTS_KEPT: usize = 1000;

/// A batch that a worker has.
struct Running<K> {
    number: u64,
    group: Arc<GroupKey<K>>,
    rows: usize,
    padded_cost: u64,
    taken: Moment,
    /// When it is expected to be done.
    done: Option<Moment>,
}

/// Every request that waits, and the policy that says when it leaves.
pub struct BatchQueue<K, W> {
    policy: BatchPolicy,
    spares: Arc<Spares>,
    /// For rows that wait alone: batch memory would be too large for them.
    singles: Arc<Spares>,
    groups: Vec<Group<K, W>>,
    index: HashMap<Arc<GroupKey<K>>, usize, ahash::RandomState>,
    /// The group of the last request: the next one is mostly of the same.
    recent: usize,
    waiting: usize,
    cost: u64,
    workers: usize,
    /// Batches that run at a time as far as is known; forecasts go by it.
    at_a_time: usize,
    running: Vec<Running<K>>,
    tenants: HashMap<String, Tenant, ahash::RandomState>,
    shares: Shares,
    closing: bool,
    /// The number of the last request.
    request: u64,
    /// What new groups begin with.
    learned: Learned,
    stats: BatchStats,
}

impl<K: Eq + Hash + Clone, W> BatchQueue<K, W> {
    /// An empty queue whose batches one worker takes.
    pub fn new(policy: BatchPolicy, spares: Arc<Spares>) -> Self {
        Self::with_workers(policy, 1, spares)
    }

    /// An empty queue whose batches so many workers take.
    pub fn with_workers(policy: BatchPolicy, workers: usize, spares: Arc<Spares>) -> Self {
        let names = policy.weights.iter().map(|(name, _)| name.clone());
        let tenants = names.zip(1..).map(|(name, number)| (name, Tenant(number))).collect();
        let by_weight = Shares::new(policy.weights.iter().map(|(_, weight)| *weight));
        let learned = Learned::new(&policy);
        Self {
            policy,
            spares,
            singles: Spares::new(0),
            groups: Vec::new(),
            index: HashMap::default(),
            recent: 0,
            waiting: 0,
            cost: 0,
            workers,
            at_a_time: workers,
            running: Vec::new(),
            tenants,
            shares: by_weight,
            closing: false,
            request: 0,
            stats: BatchStats { cap: learned.cap(), ..BatchStats::default() },
            learned,
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> &BatchPolicy {
        &self.policy
    }

    /// The number that stands for a tenant. Where the policy names no shares everyone is the same; otherwise whoever is not
    /// named has a share of 1 of its own, or shares it where there are too many names.
    pub fn tenant(&mut self, name: &str) -> Tenant {
        if self.policy.weights.is_empty() {
            return Tenant::default();
        }
        if let Some(known) = self.tenants.get(name) {
            return *known;
        }
        let number = u32::try_from(self.tenants.len() + 1).unwrap_or_default();
        if self.tenants.len() >= TENANTS_KEPT {
            return Tenant(0);
        }
        self.tenants.insert(name.to_owned(), Tenant(number));
        Tenant(number)
    }

    /// Workers that take its batches.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Batches that run at a time, as forecasts have it.
    pub fn at_a_time(&self) -> usize {
        self.at_a_time
    }

    /// Has forecasts go by so many batches at a time, where not all workers may be at work.
    pub fn run_at_a_time(&mut self, batches: usize) {
        self.at_a_time = batches.max(1);
    }

    /// True where one more request would be refused.
    pub fn is_full(&self) -> bool {
        self.waiting >= self.policy.max_queue
    }

    /// What a request counts with: its length, where rows are filled up, and never nothing.
    pub(super) fn cost_of(&self, key: &GroupKey<K>, terms: &Terms) -> u32 {
        let Some(budget) = self.policy.budget else { return 1 };
        let length = budget.padding.and_then(|padding| padding.length(&key.specs));
        length.map_or(terms.cost, |length| u32::try_from(length).unwrap_or(u32::MAX)).max(1)
    }

    /// Whether so many more requests on these terms could wait.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where they never could; [`ErrorKind::Overloaded`] where they cannot now.
    pub fn check_room(&self, requests: usize, key: &GroupKey<K>, terms: &Terms) -> Result<()> {
        let (limit, budget) = (self.policy.max_queue, self.policy.budget.unwrap_or_default());
        let cost = self.cost_of(key, terms);
        if requests > limit {
            let message = format!("{requests} rows in one request exceed max_queue={limit}");
            return Err(Error::new(ErrorKind::Item, message));
        }
        if let Some(most) = budget.max_batch.filter(|most| u64::from(cost) > *most) {
            let message = format!("a request that costs {cost} exceeds max_batch_cost={most}");
            return Err(Error::new(ErrorKind::Item, message));
        }
        let more = requests as u64 * u64::from(cost);
        if let Some(most) = budget.max_queue.filter(|most| more > *most) {
            let message = format!("rows that cost {more} in one request exceed max_queue_cost={most}");
            return Err(Error::new(ErrorKind::Item, message));
        }
        let full = if self.waiting + requests > limit {
            format!("the queue is full: max_queue={limit} requests wait")
        } else if let Some(most) = budget.max_queue.filter(|most| self.cost + more > *most) {
            format!("the queue is full: requests of max_queue_cost={most} wait")
        } else {
            return Ok(());
        };
        let error = Error::new(ErrorKind::Overloaded, full);
        Err(match self.time_of_a_batch() {
            Some(time) => error.retry_after(time),
            None => error,
        })
    }

    /// Time in which the workers make room for a batch.
    fn time_of_a_batch(&self) -> Option<Duration> {
        let cap = self.learned.cap();
        let typical = (self.cost * cap as u64).div_ceil(self.waiting.max(1) as u64);
        Some(self.learned.predict(cap, typical)? / u32::try_from(self.at_a_time).unwrap_or(1).max(1))
    }

    /// Refuses a request that would be answered after its deadline, as far as is known.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`], with the time after which it would have been accepted.
    pub fn check_deadline(&self, key: &GroupKey<K>, terms: &Terms, now: Moment) -> Result<()> {
        let Some(deadline) = terms.deadline else { return Ok(()) };
        // A worker that is free learns from whatever it gets: where it got nothing, one slow hour would be held against
        // the function for ever.
        if self.waiting == 0 && self.running.len() < self.at_a_time {
            return Ok(());
        }
        let cost = self.cost_of(key, terms);
        let learned = self
            .index
            .get(key)
            .and_then(|at| self.groups.get(*at))
            .map_or(&self.learned, |group| &group.learned);
        let running: SmallVec<[Duration; 4]> = self
            .running
            .iter()
            .map(|batch| batch.done.map_or(Duration::ZERO, |done| done.since(now)))
            .collect();
        let mut backlog = Backlog { rows: self.waiting, cost: self.cost, workers: self.at_a_time, running };
        let left = deadline.since(now);
        let in_time = |backlog: &Backlog| {
            finish_in(learned, backlog, u64::from(cost)).is_none_or(|finish| finish <= left)
        };
        if in_time(&backlog) {
            return Ok(());
        }
        // Whoever must be answered later, or matters less, goes after it.
        let after = self.groups.iter().flat_map(|group| group.after(terms, self.policy.aging));
        for cost in after {
            backlog.rows -= 1;
            backlog.cost -= u64::from(cost);
        }
        if in_time(&backlog) {
            return Ok(());
        }
        let finish = finish_in(learned, &backlog, u64::from(cost)).unwrap_or_default();
        let message = format!("an answer would come in {finish:.3?}, after the deadline in {left:.3?}");
        let wait = finish.saturating_sub(left).max(Duration::from_millis(1));
        Err(Error::new(ErrorKind::Overloaded, message).retry_after(wait))
    }

    /// Requests waiting.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Batches that workers have.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The counters.
    pub fn stats(&self) -> BatchStats {
        BatchStats { queued: self.waiting, ..self.stats.clone() }
    }

    /// Counts a request that was refused for want of room.
    pub fn count_rejected(&mut self) {
        self.stats.rejected += 1;
    }

    /// Counts a request that was refused because it could not have been answered in time.
    pub fn count_hopeless(&mut self) {
        self.stats.rejected += 1;
        self.stats.hopeless += 1;
    }

    /// Counts requests that left before the model saw them.
    pub fn count_abandoned(&mut self, requests: usize) {
        self.stats.abandoned += requests as u64;
    }

    /// The number of a request whose rows are to be added.
    pub fn next_request(&mut self) -> u64 {
        self.request += 1;
        self.request
    }

    /// Adds a request; `write` adds its row to every column. Answers whether a waiting worker should look again.
    pub fn push(
        &mut self,
        key: &GroupKey<K>,
        terms: Terms,
        entry: Entry<W>,
        write: impl FnOnce(&mut Rows),
    ) -> bool {
        let (at, cost) = (self.find_or_add(key), self.cost_of(key, &terms));
        let plain =
            terms.deadline.is_none() && self.policy.budget.is_none() && self.policy.weights.is_empty();
        let Some(group) = self.groups.get_mut(at) else {
            return false;
        };
        let (arrived, before) = (entry.arrived, group.cost());
        if plain {
            let apart = if self.policy.alone { terms.request } else { 0 };
            group.push((terms.priority, apart), entry, &self.spares, write);
        } else {
            let mut rows = Rows::new(&key.specs, &self.singles);
            write(&mut rows);
            let weighed = !self.policy.weights.is_empty();
            let turn = if weighed { self.shares.turn(terms.tenant.0, cost) } else { 0.0 };
            let terms = Terms { cost, ..terms };
            group.pile_up(Waiting { entry, terms, turn, rows, released: false, came: Came::default() });
        }
        self.waiting += 1;
        self.cost += u64::from(cost);
        let (cap, budget) = (group.learned.cap(), self.policy.budget.and_then(|budget| budget.max_batch));
        let spent = budget.is_some_and(|budget| before / budget != group.cost() / budget);
        let full = group.waiting.is_multiple_of(cap) || (spent && self.policy.dispatch == Dispatch::Window);
        if full {
            group.ready.get_or_insert(arrived);
        }
        let first = group.waiting == 1;
        // Only tick dispatch without a minimum has no timer that a worker must set when the first request comes.
        let timed = self.policy.dispatch == Dispatch::Window || self.policy.min_size > 1;
        full || (timed && (first || terms.deadline.is_some())) || self.closing
    }

    /// Ends a tick: what came during it may leave. Answers whether anything is waiting.
    pub fn release(&mut self, now: Moment) -> bool {
        if self.waiting > 0 {
            for group in self.groups.iter_mut().filter(|group| group.waiting > 0) {
                group.release(now);
            }
        }
        self.waiting > 0
    }

    /// True where the last of several workers would take the next batch.
    fn is_busy(&self) -> bool {
        self.workers > 1 && self.running.len() + 1 >= self.workers
    }

    /// What a free worker should do now: take a batch, or wait until some moment.
    pub fn outlook(&self, now: Moment) -> Outlook {
        let mut next: Option<Moment> = None;
        for group in &self.groups {
            let Some(pressure) = group.pressure(self.closing, self.is_busy()) else {
                continue;
            };
            let end = match verdict(&self.policy, &pressure, now) {
                Verdict::Cut(_) => return Outlook::Ready,
                Verdict::HoldUntil(end) => Some(end),
                Verdict::HoldForTick => None,
            };
            let deadline = group.pile.earliest();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Outlook::Ready;
            }
            next = next.into_iter().chain(end).chain(deadline).min();
        }
        next.map_or(Outlook::Idle, Outlook::Later)
    }

    /// Takes out every request whose deadline has passed, or cannot be met any more while others wait.
    pub fn expire(&mut self, now: Moment) -> Removed<W> {
        let mut left = Removed::none();
        for group in self.groups.iter_mut().filter(|group| !group.pile.is_empty()) {
            let before = group.cost();
            left.add(group.expire(now, self.policy.alone));
            self.cost -= before - group.cost();
        }
        self.waiting -= left.entries.len();
        self.stats.expired += left.entries.len() as u64;
        self.stats.abandoned += left.entries.len() as u64;
        left
    }

    /// Cuts the batch that is most urgent, if any may be cut: best priority first, then whoever is due first.
    pub fn take(&mut self, now: Moment) -> Option<Batch<K, W>> {
        let (policy, closing, busy) = (&self.policy, self.closing, self.is_busy());
        let cuttable = self.groups.iter().enumerate().filter_map(|(at, group)| {
            match verdict(policy, &group.pressure(closing, busy)?, now) {
                Verdict::Cut(reason) => Some((at, group, reason)),
                _ => None,
            }
        });
        let mut cuttable = cuttable.peekable();
        let first = cuttable.next()?;
        let (at, _, reason) = if cuttable.peek().is_none() {
            first
        } else {
            let ranked = std::iter::once(first)
                .chain(cuttable)
                .filter_map(|cut| Some((cut.1.urgency(policy.aging, now)?, cut)));
            ranked.min_by(|one, other| one.0.order(&other.0))?.1
        };
        self.cut(at, usize::MAX, reason, now)
    }

    /// Takes more requests of a group, at most `limit`, for a batch of theirs that is being run; whether it is time for them
    /// does not matter.
    pub fn join(&mut self, key: &GroupKey<K>, limit: usize, now: Moment) -> Option<Batch<K, W>> {
        let at = *self.index.get(key)?;
        if limit == 0 || self.policy.alone || self.groups.get(at)?.waiting == 0 {
            return None;
        }
        self.cut(at, limit, Reason::Tick, now)
    }

    /// Requests of that group that wait.
    pub fn waiting_in(&self, key: &GroupKey<K>) -> usize {
        let group = self.index.get(key).and_then(|at| self.groups.get(*at));
        group.map_or(0, |group| group.waiting)
    }

    fn cut(&mut self, at: usize, limit: usize, reason: Reason, now: Moment) -> Option<Batch<K, W>> {
        let group = self.groups.get_mut(at)?;
        let (cap, before) = (group.learned.cap(), group.cost());
        let pressure = group.pressure(self.closing, false)?;
        let ready = group.ready.take();
        let gathered = group.gather(&self.policy, &mut self.shares, cap.min(limit), &self.spares, now)?;
        let (left, rows) = (group.waiting, gathered.entries.len());
        if left > 0 && pressure.released {
            // Under tick dispatch nothing but a worker was missing: what stays behind has been ready as long.
            let waits_for_worker = self.policy.dispatch == Dispatch::Tick && left >= self.policy.min_size;
            group.ready = Some(if waits_for_worker { ready.unwrap_or(now) } else { now });
        }
        self.waiting -= rows;
        self.cost -= before - group.cost();
        let window_end = pressure.oldest + self.policy.max_wait;
        let reason = why(reason, &gathered, left, self.waiting, rows >= cap);
        let ready = if reason == Reason::Window {
            ready.unwrap_or(now).max(window_end)
        } else {
            ready.unwrap_or(now)
        };
        let cut = Cut {
            number: 0,
            oldest: pressure.oldest,
            ready: ready.min(now),
            taken: now,
            cost: gathered.cost,
            padded_cost: gathered.padded_cost,
            cap,
            predicted: group.learned.predict(rows, gathered.padded_cost),
            lengths: gathered.lengths,
        };
        Some(Batch {
            group: Arc::clone(&group.key),
            rows: gathered.rows,
            entries: gathered.entries,
            reason,
            cut,
        })
    }

    /// Counts a batch that goes to the model, gives it its number, and expects it to be finished.
    pub fn begin(&mut self, batch: &mut Batch<K, W>) {
        self.stats.count(batch.entries.len(), batch.reason);
        let cut = &mut batch.cut;
        cut.number = self.stats.batches;
        self.stats.cost += cut.cost;
        self.stats.padded_cost += cut.padded_cost;
        self.running.push(Running {
            number: cut.number,
            group: Arc::clone(&batch.group),
            rows: batch.entries.len(),
            padded_cost: cut.padded_cost,
            taken: cut.taken,
            done: cut.predicted.map(|predicted| cut.taken + predicted),
        });
    }

    /// Counts requests that joined a batch that is being run.
    pub fn count_joined(&mut self, batch: &Batch<K, W>) {
        let requests = batch.entries.len() as u64;
        self.stats.requests += requests;
        self.stats.joined += requests;
        self.stats.cost += batch.cut.cost;
        self.stats.padded_cost += batch.cut.padded_cost;
    }

    /// The rows of a batch that a worker has, what it costs, and when it was taken.
    pub(super) fn batch_of(&self, number: u64) -> Option<(usize, u64, Moment)> {
        let batch = self.running.iter().find(|batch| batch.number == number)?;
        Some((batch.rows, batch.padded_cost, batch.taken))
    }

    /// Learns from a batch that is done with.
    pub fn finish(&mut self, number: u64, ran: Ran) {
        let Some(at) = self.running.iter().position(|batch| batch.number == number) else { return };
        let batch = self.running.swap_remove(at);
        let group = self.index.get(&batch.group).and_then(|at| self.groups.get_mut(*at));
        let mut known = group.map(|group| &mut group.learned).into_iter().chain(Some(&mut self.learned));
        match ran {
            Ran::Whole(took) => {
                known.for_each(|learned| learned.observe(&self.policy, batch.rows, batch.padded_cost, took));
            }
            Ran::OutOfMemory(rows) => {
                self.stats.out_of_memory += 1;
                // The other groups' rows may be smaller.
                known.next().into_iter().for_each(|learned| learned.out_of_memory(rows));
            }
            Ran::Unknown => {}
        }
        let group = self.index.get(&batch.group).and_then(|at| self.groups.get(*at));
        self.stats.cap = group.map_or(self.stats.cap, |group| group.learned.cap());
    }

    /// Takes out every waiting request whose waiter is gone and answers with them.
    pub fn remove_gone(&mut self, mut gone: impl FnMut(&W) -> bool) -> Removed<W> {
        let mut left = Removed::none();
        for group in &mut self.groups {
            let before = group.cost();
            left.add(group.remove_gone(&self.spares, &mut gone));
            self.cost -= before - group.cost();
        }
        self.waiting -= left.entries.len();
        self.stats.abandoned += left.entries.len() as u64;
        left
    }

    /// Begins to close: whatever waits may be taken at once.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// True once closing has begun.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    fn find_or_add(&mut self, key: &GroupKey<K>) -> usize {
        if self.groups.get(self.recent).is_some_and(|group| *group.key == *key) {
            return self.recent;
        }
        self.recent = match self.index.get(key) {
            Some(at) => *at,
            None => self.add_name(key),
        };
        self.recent
    }

    /// Finds the group of rows that differ from its others only in what they are filled up by, or adds it.
    fn add_name(&mut self, key: &GroupKey<K>) -> usize {
        let Some(padding) = self.policy.budget.and_then(|budget| budget.padding) else {
            return self.add_group(key);
        };
        let family = GroupKey { key: key.key.clone(), specs: padding.family(&key.specs) };
        let known = self.index.get(&family).copied();
        let at = known.unwrap_or_else(|| self.add_group(&family));
        if self.index.len() >= NAMES_KEPT {
            self.name_groups();
        }
        self.index.insert(Arc::new(key.clone()), at);
        at
    }

    fn add_group(&mut self, key: &GroupKey<K>) -> usize {
        if self.groups.len() >= EMPTY_GROUPS_KEPT {
            self.groups.retain(|group| group.waiting > 0);
            self.name_groups();
        }
        let key = Arc::new(key.clone());
        self.index.insert(Arc::clone(&key), self.groups.len());
        self.groups.push(Group::new(key, self.learned.clone()));
        self.groups.len() - 1
    }

    fn name_groups(&mut self) {
        self.index = self.groups.iter().enumerate().map(|(at, group)| (Arc::clone(&group.key), at)).collect();
    }
}

/// Why a batch has the size that it has, where the verdict alone does not say it. `left` of its group and `others` in all
/// still wait.
fn why<W>(verdict: Reason, gathered: &Gathered<W>, left: usize, others: usize, full: bool) -> Reason {
    if full {
        Reason::Full
    } else if gathered.hurried {
        Reason::Deadline
    } else if gathered.over_budget {
        Reason::Budget
    } else if verdict == Reason::Tick && left == 0 && others > 0 {
        Reason::Key
    } else {
        verdict
    }
}

/// What a free worker should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Take a batch.
    Ready,
    /// Look again at this moment.
    Later(Moment),
    /// Wait until told.
    Idle,
}
