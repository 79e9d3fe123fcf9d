//! Requests that wait for company: plain state, moved only by the calls below and by the time they are given.
//!
//! Requests that may share a call form a group; a group has a lane for each priority; a lane is a line of open batches.
//! Rows are written straight into the last open batch of their lane, so a batch that leaves whole is never copied.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use super::{
    Batch, BatchPolicy, BatchStats, Cut, Dispatch, Entry, GroupKey, Pressure, Priority, Reason, Removed,
    Terms, Verdict, verdict,
};
use crate::flow::Moment;
use crate::tensor::{Rows, Spares};

/// Groups that may stand empty before they are forgotten.
const EMPTY_GROUPS_KEPT: usize = 64;

/// A batch that still grows.
struct OpenBatch<W> {
    rows: Rows,
    entries: Vec<Entry<W>>,
    /// How many of them, from the first, came before the end of a tick.
    released: usize,
}

impl<W> OpenBatch<W> {
    fn new<K>(group: &GroupKey<K>, spares: &Arc<Spares>, capacity: usize) -> Self {
        Self { rows: Rows::new(&group.specs, spares), entries: Vec::with_capacity(capacity), released: 0 }
    }
}

struct Group<K, W> {
    key: Arc<GroupKey<K>>,
    lanes: [VecDeque<OpenBatch<W>>; Priority::COUNT],
    waiting: usize,
}

impl<K, W> Group<K, W> {
    fn oldest(&self) -> Option<Moment> {
        self.lanes.iter().filter_map(|lane| Some(lane.front()?.entries.first()?.arrived)).min()
    }

    /// The best priority that waits here; lower is better.
    fn urgency(&self) -> usize {
        self.lanes.iter().position(|lane| !lane.is_empty()).unwrap_or(Priority::COUNT)
    }

    /// True once a tick has ended since the first waiting request came.
    fn released(&self) -> bool {
        self.lanes.iter().any(|lane| lane.front().is_some_and(|open| open.released > 0))
    }

    /// Ends a tick for all who wait. Batches before one that was released whole were released before it.
    fn release(&mut self) {
        for lane in &mut self.lanes {
            for open in lane.iter_mut().rev().take_while(|open| open.released < open.entries.len()) {
                open.released = open.entries.len();
            }
        }
    }

    fn pressure(&self, closing: bool) -> Option<Pressure> {
        let oldest = self.oldest()?;
        Some(Pressure { waiting: self.waiting, oldest, released: self.released(), closing })
    }
}

/// Every request that waits, and the policy that says when it leaves.
pub struct BatchQueue<K, W> {
    policy: BatchPolicy,
    spares: Arc<Spares>,
    groups: Vec<Group<K, W>>,
    index: HashMap<Arc<GroupKey<K>>, usize, ahash::RandomState>,
    /// The group of the last request: the next one is mostly of the same.
    recent: usize,
    waiting: usize,
    closing: bool,
    stats: BatchStats,
}

impl<K: Eq + Hash + Clone, W> BatchQueue<K, W> {
    /// An empty queue.
    pub fn new(policy: BatchPolicy, spares: Arc<Spares>) -> Self {
        Self {
            policy,
            spares,
            groups: Vec::new(),
            index: HashMap::default(),
            recent: 0,
            waiting: 0,
            closing: false,
            stats: BatchStats::default(),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> &BatchPolicy {
        &self.policy
    }

    /// True where one more request would be refused.
    pub fn is_full(&self) -> bool {
        self.waiting >= self.policy.max_queue
    }

    /// Requests waiting.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The counters.
    pub fn stats(&self) -> BatchStats {
        BatchStats { queued: self.waiting, ..self.stats.clone() }
    }

    /// Counts a request that was refused because the queue is full.
    pub fn count_rejected(&mut self) {
        self.stats.rejected += 1;
    }

    /// Counts requests that left before the model saw them.
    pub fn count_abandoned(&mut self, requests: usize) {
        self.stats.abandoned += requests as u64;
    }

    /// Adds a request; `write` adds its row to every column. Answers whether a waiting worker should look again.
    pub fn push(
        &mut self,
        key: &GroupKey<K>,
        terms: Terms,
        entry: Entry<W>,
        write: impl FnOnce(&mut Rows),
    ) -> bool {
        let max_size = self.policy.max_size;
        let at = self.find_or_add(key);
        let Some(group) = self.groups.get_mut(at) else {
            return false;
        };
        let Some(lane) = group.lanes.get_mut(terms.priority as usize) else {
            return false;
        };
        if lane.back().is_none_or(|open| open.entries.len() >= max_size) {
            // Room for a few only: a batch that stays small should not pay for a large one.
            lane.push_back(OpenBatch::new(&group.key, &self.spares, max_size.min(16)));
        }
        if let Some(open) = lane.back_mut() {
            write(&mut open.rows);
            open.entries.push(entry);
        }
        group.waiting += 1;
        self.waiting += 1;
        let first = group.waiting == 1;
        // Only tick dispatch without a minimum has no timer that a worker must set when the first request comes.
        let timed = self.policy.dispatch == Dispatch::Window || self.policy.min_size > 1;
        group.waiting.is_multiple_of(max_size) || (first && timed) || self.closing
    }

    /// Ends a tick: what came during it may leave. Answers whether anything is waiting.
    pub fn release(&mut self) -> bool {
        if self.waiting > 0 {
            for group in self.groups.iter_mut().filter(|group| group.waiting > 0) {
                group.release();
            }
        }
        self.waiting > 0
    }

    /// What a free worker should do now: take a batch, or wait until some moment.
    pub fn outlook(&self, now: Moment) -> Outlook {
        let mut next: Option<Moment> = None;
        for group in &self.groups {
            let Some(pressure) = group.pressure(self.closing) else {
                continue;
            };
            match verdict(&self.policy, &pressure, now) {
                Verdict::Cut(_) => return Outlook::Ready,
                Verdict::HoldUntil(end) => next = Some(next.map_or(end, |other| other.min(end))),
                Verdict::HoldForTick => {}
            }
        }
        next.map_or(Outlook::Idle, Outlook::Later)
    }

    /// Cuts the batch that is most urgent, if any may be cut: best priority first, then the oldest request.
    pub fn take(&mut self, now: Moment) -> Option<Batch<K, W>> {
        let policy = &self.policy;
        let closing = self.closing;
        let (at, reason) = self
            .groups
            .iter()
            .enumerate()
            .filter_map(|(at, group)| {
                let pressure = group.pressure(closing)?;
                match verdict(policy, &pressure, now) {
                    Verdict::Cut(reason) => Some(((group.urgency(), pressure.oldest), at, reason)),
                    _ => None,
                }
            })
            .min_by_key(|(order, ..)| *order)
            .map(|(_, at, reason)| (at, reason))?;
        let group = self.groups.get_mut(at)?;
        let open = gather(group, self.policy.max_size, &self.spares)?;
        group.waiting -= open.entries.len();
        self.waiting -= open.entries.len();
        Some(Batch {
            group: Arc::clone(&group.key),
            rows: open.rows,
            entries: open.entries,
            reason,
            cut: Cut::default(),
        })
    }

    /// Counts a batch that goes to the model with `requests` requests in it.
    pub fn count_batch(&mut self, requests: usize, reason: Reason) {
        self.stats.count(requests, reason);
    }

    /// Takes out every waiting request whose waiter is gone and answers with them.
    pub fn remove_gone(&mut self, mut gone: impl FnMut(&W) -> bool) -> Removed<W> {
        let mut left = Removed::none();
        for group in &mut self.groups {
            for lane in &mut group.lanes {
                for open in std::mem::take(lane) {
                    let mut batch = Batch {
                        group: Arc::clone(&group.key),
                        rows: open.rows,
                        entries: open.entries,
                        reason: Reason::Drain,
                        cut: Cut::default(),
                    };
                    // It asks about each of them, in order.
                    let (mut asked, mut released) = (0, open.released);
                    let removed = batch.remove_gone(&self.spares, |waiter| {
                        let left = gone(waiter);
                        released -= usize::from(left && asked < open.released);
                        asked += 1;
                        left
                    });
                    left.entries.extend(removed.entries);
                    left.objects.extend(removed.objects);
                    if !batch.entries.is_empty() {
                        lane.push_back(OpenBatch { rows: batch.rows, entries: batch.entries, released });
                    }
                }
            }
            group.waiting = group.lanes.iter().flatten().map(|open| open.entries.len()).sum();
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
            None => self.add_group(key),
        };
        self.recent
    }

    fn add_group(&mut self, key: &GroupKey<K>) -> usize {
        if self.groups.len() >= EMPTY_GROUPS_KEPT {
            self.groups.retain(|group| group.waiting > 0);
            self.index =
                self.groups.iter().enumerate().map(|(at, group)| (Arc::clone(&group.key), at)).collect();
        }
        let key = Arc::new(key.clone());
        self.index.insert(Arc::clone(&key), self.groups.len());
        self.groups.push(Group { key, lanes: Default::default(), waiting: 0 });
        self.groups.len() - 1
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

/// The next rows of a group, best priority first. A batch that leaves whole and alone is handed over uncopied.
fn gather<K, W>(group: &mut Group<K, W>, max_size: usize, spares: &Arc<Spares>) -> Option<OpenBatch<W>> {
    let take = group.waiting.min(max_size);
    let lane = group.lanes.iter_mut().find(|lane| !lane.is_empty())?;
    if lane.front().is_some_and(|open| open.entries.len() == take) {
        return lane.pop_front();
    }
    let mut whole = OpenBatch::new(&group.key, spares, take);
    for lane in &mut group.lanes {
        while whole.entries.len() < take {
            let Some(open) = lane.front_mut() else { break };
            let part = open.entries.len().min(take - whole.entries.len());
            for row in 0..part {
                whole.rows.push_from(&open.rows, row);
            }
            whole.entries.extend(open.entries.drain(..part));
            if open.entries.is_empty() {
                lane.pop_front();
            } else {
                keep_from(open, part, &group.key, spares);
            }
        }
    }
    Some(whole)
}

/// Drops the first `from` rows, whose entries have left already.
fn keep_from<K, W>(open: &mut OpenBatch<W>, from: usize, key: &GroupKey<K>, spares: &Arc<Spares>) {
    let mut rest = Rows::new(&key.specs, spares);
    for row in from..from + open.entries.len() {
        rest.push_from(&open.rows, row);
    }
    open.rows = rest;
    open.released = open.released.saturating_sub(from);
}
