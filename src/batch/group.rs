//! Requests that may share a call, and how the next batch is made of them.
//!
//! Requests without terms of their own wait in a lane for each priority, a line of open batches: their rows are written
//! straight into the last one, so a batch that leaves whole is never copied. The others wait in a [`Pile`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::pile::{Pile, Waiting};
use super::select::{Candidate, LOOK_AHEAD, Rank, Room, Shares, choose, padded_cost, preferred, trade_turns};
use super::{BatchPolicy, Entry, GroupKey, Learned, Pressure, Priority, Removed, Terms};
use crate::flow::Moment;
use crate::tensor::{Padding, Rows, Spares, padded};

/// A batch that still grows.
pub(super) struct OpenBatch<W> {
    pub(super) rows: Rows,
    pub(super) entries: Vec<Entry<W>>,
    /// How many of them, from the first, came before the end of a tick.
    pub(super) released: usize,
    /// The request that all of them belong to; 0 where they may be of any.
    request: u64,
}

impl<W> OpenBatch<W> {
    fn new<K>(group: &GroupKey<K>, spares: &Arc<Spares>, capacity: usize, request: u64) -> Self {
        let (rows, entries) = (Rows::new(&group.specs, spares), Vec::with_capacity(capacity));
        Self { rows, entries, released: 0, request }
    }
}

/// What a batch was made of.
pub(super) struct Gathered<W> {
    pub(super) rows: Rows,
    pub(super) entries: Vec<Entry<W>>,
    pub(super) cost: u64,
    pub(super) padded_cost: u64,
    pub(super) lengths: Vec<u32>,
    /// True where somebody was left behind for what it costs.
    pub(super) over_budget: bool,
    /// True where a larger batch would have missed a deadline.
    pub(super) hurried: bool,
}

pub(super) struct Group<K, W> {
    pub(super) key: Arc<GroupKey<K>>,
    pub(super) lanes: [VecDeque<OpenBatch<W>>; Priority::COUNT],
    pub(super) pile: Pile<W>,
    pub(super) waiting: usize,
    pub(super) learned: Learned,
    /// When those who wait could have been taken first.
    pub(super) ready: Option<Moment>,
}

impl<K, W> Group<K, W> {
    pub(super) fn new(key: Arc<GroupKey<K>>, learned: Learned) -> Self {
        Self { key, lanes: Default::default(), pile: Pile::new(), waiting: 0, learned, ready: None }
    }

    /// Adds a row of a request that has no terms but its priority; of a request with a number only that request's are put
    /// beside it.
    pub(super) fn push(
        &mut self,
        (priority, request): (Priority, u64),
        entry: Entry<W>,
        spares: &Arc<Spares>,
        write: impl FnOnce(&mut Rows),
    ) {
        let cap = self.learned.cap();
        let Some(lane) = self.lanes.get_mut(priority as usize) else { return };
        if lane.back().is_none_or(|open| open.entries.len() >= cap || open.request != request) {
            // Room for a few only: a batch that stays small should not pay for a large one.
            lane.push_back(OpenBatch::new(&self.key, spares, cap.min(16), request));
        }
        if let Some(open) = lane.back_mut() {
            write(&mut open.rows);
            open.entries.push(entry);
        }
        self.waiting += 1;
    }

    /// Adds a request with terms of its own.
    pub(super) fn pile_up(&mut self, waiting: Waiting<W>) {
        self.pile.push(waiting);
        self.waiting += 1;
    }

    fn fronts(&self) -> impl Iterator<Item = (Priority, &Entry<W>)> {
        let lanes = Priority::ALL.into_iter().zip(&self.lanes);
        lanes.filter_map(|(priority, lane)| Some((priority, lane.front()?.entries.first()?)))
    }

    fn oldest(&self) -> Option<Moment> {
        let piled = self.pile.oldest().map(|waiting| waiting.entry.arrived);
        self.fronts().map(|(_, entry)| entry.arrived).chain(piled).min()
    }

    /// The rank of the one who goes first.
    pub(super) fn urgency(&self, aging: Duration, now: Moment) -> Option<Rank> {
        let lanes =
            self.fronts().map(|(priority, entry)| Rank::of(priority, None, entry.arrived, aging, now));
        let piled = self.pile.iter().map(|(_, waiting)| {
            let Terms { priority, deadline, .. } = waiting.terms;
            let rank = Rank::of(priority, deadline, waiting.entry.arrived, aging, now);
            Rank { share: waiting.turn, ..rank }
        });
        lanes.chain(piled).min_by(Rank::order)
    }

    /// True once a tick has ended since the first waiting request came.
    fn released(&self) -> bool {
        self.lanes.iter().any(|lane| lane.front().is_some_and(|open| open.released > 0))
            || self.pile.oldest().is_some_and(|waiting| waiting.released)
    }

    /// Ends a tick for all who wait. Batches before one that was released whole were released before it.
    pub(super) fn release(&mut self, now: Moment) {
        for lane in &mut self.lanes {
            for open in lane.iter_mut().rev().take_while(|open| open.released < open.entries.len()) {
                open.released = open.entries.len();
            }
        }
        self.pile.release();
        self.ready.get_or_insert(now);
    }

    /// What a decision looks at; `busy` where only one worker is free, of several.
    pub(super) fn pressure(&self, closing: bool, busy: bool) -> Option<Pressure> {
        let oldest = self.oldest()?;
        let start = |deadline: Moment| {
            let rows = self.waiting.min(self.learned.cap());
            Some(deadline.earlier_by(self.learned.predict(rows, self.typical_cost(rows))?))
        };
        Some(Pressure {
            waiting: self.waiting,
            cap: self.learned.cap(),
            cost: self.cost(),
            oldest,
            released: self.released(),
            closing,
            latest_start: self.pile.earliest().and_then(start),
            deferrable: busy
                && self.waiting * 2 >= self.learned.cap()
                && self.pile.waiting() == self.waiting
                && self.pile.all_dated(),
        })
    }

    /// What all who wait cost.
    pub(super) fn cost(&self) -> u64 {
        (self.waiting - self.pile.waiting()) as u64 + self.pile.cost()
    }

    /// What so many of those who wait cost, if they are like the others.
    fn typical_cost(&self, rows: usize) -> u64 {
        (self.cost() * rows as u64).div_ceil(self.waiting.max(1) as u64)
    }

    /// Rows for a batch that is answered by the earliest deadline, if any batch is.
    fn in_time(&self, rows: usize, now: Moment) -> usize {
        let Some(deadline) = self.pile.earliest() else { return rows };
        let fits = |rows: usize| {
            let predicted = self.learned.predict(rows, self.typical_cost(rows));
            predicted.is_none_or(|predicted| now + predicted <= deadline)
        };
        if fits(rows) || !fits(1) {
            return rows;
        }
        let (mut fit, mut miss) = (1, rows);
        while miss - fit > 1 {
            let middle = usize::midpoint(fit, miss);
            if fits(middle) { fit = middle } else { miss = middle }
        }
        fit
    }

    /// Takes the next batch out, of `limit` rows at most.
    pub(super) fn gather(
        &mut self,
        policy: &BatchPolicy,
        tenants: &mut Shares,
        limit: usize,
        spares: &Arc<Spares>,
        now: Moment,
    ) -> Option<Gathered<W>> {
        let size = self.waiting.min(limit);
        if policy.alone {
            let gathered = self.of_one_request(policy, tenants, size, spares, now)?;
            self.waiting -= gathered.entries.len();
            return Some(gathered);
        }
        let rows = self.in_time(size, now);
        let hurried = rows < size;
        let rows = preferred(&policy.preferred, rows);
        let gathered = if self.pile.is_empty() && self.fronts().nth(1).is_none() {
            self.first_of_the_lane(rows, spares)
        } else {
            Some(self.chosen(policy, tenants, rows, spares, now))
        }?;
        self.waiting -= gathered.entries.len();
        Some(Gathered { hurried, ..gathered })
    }

    /// A batch of rows of one request: of whoever goes first.
    fn of_one_request(
        &mut self,
        policy: &BatchPolicy,
        tenants: &mut Shares,
        rows: usize,
        spares: &Arc<Spares>,
        now: Moment,
    ) -> Option<Gathered<W>> {
        let rank = |priority, entry: &Entry<W>| Rank::of(priority, None, entry.arrived, policy.aging, now);
        let fronts = self.fronts().map(|(priority, entry)| (priority, rank(priority, entry)));
        let front = fronts.min_by(|one, other| one.1.order(&other.1));
        let room = Self::room(policy, &self.learned, rows);
        let mut candidates = self.candidates(policy, &room, now);
        if let Some((priority, rank)) = front
            && candidates.first().is_none_or(|first| rank.order(&first.rank).is_le())
        {
            let lane = self.lanes.get_mut(priority as usize)?;
            let rows = lane.front()?.entries.len().min(rows);
            return Self::head_of(lane, rows, &self.key, spares);
        }
        let request = self.pile.request_at(candidates.first()?.at);
        candidates.retain(|candidate| self.pile.request_at(candidate.at) == request);
        Some(self.picked(policy, tenants, (&room, candidates), [0; Priority::COUNT], spares))
    }

    /// A batch of requests of one priority. One that leaves whole and alone is handed over uncopied.
    fn first_of_the_lane(&mut self, rows: usize, spares: &Arc<Spares>) -> Option<Gathered<W>> {
        let lane = self.lanes.iter_mut().find(|lane| !lane.is_empty())?;
        Self::head_of(lane, rows, &self.key, spares)
    }

    fn head_of(
        lane: &mut VecDeque<OpenBatch<W>>,
        rows: usize,
        key: &GroupKey<K>,
        spares: &Arc<Spares>,
    ) -> Option<Gathered<W>> {
        if lane.front().is_some_and(|open| open.entries.len() == rows) {
            return lane.pop_front().map(|open| plain(open.rows, open.entries));
        }
        let mut whole = OpenBatch::new(key, spares, rows, 0);
        draw(lane, rows, &mut whole, key, spares);
        Some(plain(whole.rows, whole.entries))
    }

    fn room(policy: &BatchPolicy, learned: &Learned, rows: usize) -> Room {
        let padding = policy.budget.and_then(|budget| budget.padding);
        Room {
            rows,
            cost: policy.budget.and_then(|budget| budget.max_batch),
            padded: padding.map(|padding| padding.multiple as u64),
            overhead: learned.overhead(),
        }
    }

    /// A batch of those who go first, whatever they wait in.
    fn chosen(
        &mut self,
        policy: &BatchPolicy,
        tenants: &mut Shares,
        rows: usize,
        spares: &Arc<Spares>,
        now: Moment,
    ) -> Gathered<W> {
        let room = Self::room(policy, &self.learned, rows);
        let candidates = self.candidates(policy, &room, now);
        let (counts, candidates) = self.share_rows_out(policy.aging, candidates, &room, now);
        self.picked(policy, tenants, (&room, candidates), counts, spares)
    }

    /// A batch of those of the candidates who are chosen, and of the first so many rows of each lane.
    fn picked(
        &mut self,
        policy: &BatchPolicy,
        tenants: &mut Shares,
        (room, candidates): (&Room, Vec<Candidate>),
        counts: [usize; Priority::COUNT],
        spares: &Arc<Spares>,
    ) -> Gathered<W> {
        let choice = choose(&candidates, room);
        let picked: Vec<&Candidate> = choice.picked.iter().filter_map(|at| candidates.get(*at)).collect();
        for candidate in &picked {
            tenants.serve(candidate);
        }
        let places: Vec<usize> = picked.iter().map(|candidate| candidate.at).collect();
        let taken = self.pile.take(&places);
        if let Some(padding) = policy.budget.and_then(|budget| budget.padding) {
            return self.filled_up(taken, &padding, spares, choice.over_budget);
        }
        let mut whole = OpenBatch::new(&self.key, spares, room.rows, 0);
        for (lane, count) in self.lanes.iter_mut().zip(counts) {
            draw(lane, count, &mut whole, &self.key, spares);
        }
        let mut cost = whole.entries.len() as u64;
        for waiting in taken {
            whole.rows.push_from(&waiting.rows, 0);
            whole.entries.push(waiting.entry);
            cost += u64::from(waiting.terms.cost);
        }
        let gathered = plain(whole.rows, whole.entries);
        Gathered { cost, padded_cost: cost, over_budget: choice.over_budget, ..gathered }
    }

    /// Those of the pile who could go into the batch, in their order; as many as are worth looking at.
    fn candidates(&self, policy: &BatchPolicy, room: &Room, now: Moment) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = self
            .pile
            .iter()
            .map(|(at, waiting)| {
                let terms = &waiting.terms;
                let rank = Rank::of(terms.priority, terms.deadline, waiting.entry.arrived, policy.aging, now);
                let rank = Rank { share: waiting.turn, ..rank };
                let late = self.pile.is_late(waiting, room.rows);
                Candidate { at, rank, tenant: terms.tenant.0, cost: terms.cost, late }
            })
            .collect();
        if !policy.weights.is_empty() {
            trade_turns(&mut candidates);
        }
        let by_rank =
            |one: &Candidate, other: &Candidate| one.rank.order(&other.rank).then(one.at.cmp(&other.at));
        let ahead = if policy.budget.is_some() { LOOK_AHEAD } else { 0 };
        let wanted = room.rows + ahead;
        if candidates.len() > wanted {
            candidates.select_nth_unstable_by(wanted, by_rank);
            candidates.truncate(wanted);
        }
        candidates.sort_unstable_by(by_rank);
        candidates
    }

    /// How many rows each lane gives, and which of the pile are left to choose from: all go by their rank.
    fn share_rows_out(
        &self,
        aging: Duration,
        mut candidates: Vec<Candidate>,
        room: &Room,
        now: Moment,
    ) -> ([usize; Priority::COUNT], Vec<Candidate>) {
        let mut counts = [0; Priority::COUNT];
        if self.pile.waiting() == self.waiting {
            return (counts, candidates);
        }
        let mut lanes = Priority::ALL.map(|priority| {
            let lane = self.lanes.get(priority as usize).into_iter().flatten();
            let entries = lane.flat_map(|open| &open.entries);
            entries.map(move |entry| Rank::of(priority, None, entry.arrived, aging, now)).peekable()
        });
        let mut piled = 0;
        for _ in 0..room.rows {
            let fronts = lanes.iter_mut().enumerate().filter_map(|(at, lane)| Some((at, *lane.peek()?)));
            let front = fronts.min_by(|one, other| one.1.order(&other.1));
            match (front, candidates.get(piled)) {
                (Some((at, rank)), next) if next.is_none_or(|next| rank.order(&next.rank).is_le()) => {
                    lanes.get_mut(at).and_then(Iterator::next);
                    counts.get_mut(at).into_iter().for_each(|count| *count += 1);
                }
                (_, Some(_)) => piled += 1,
                (_, None) => break,
            }
        }
        candidates.truncate(piled);
        (counts, candidates)
    }

    fn filled_up(
        &self,
        taken: Vec<Waiting<W>>,
        padding: &Padding,
        spares: &Arc<Spares>,
        over_budget: bool,
    ) -> Gathered<W> {
        let rows = padded(&self.key.specs, taken.iter().map(|waiting| &waiting.rows), padding, spares);
        let lengths: Vec<u32> = taken.iter().map(|waiting| waiting.terms.cost).collect();
        let cost = lengths.iter().copied().map(u64::from).sum();
        let padded_cost = padded_cost(lengths.iter().copied(), Some(padding.multiple as u64));
        let entries = taken.into_iter().map(|waiting| waiting.entry).collect();
        Gathered { rows, entries, cost, padded_cost, lengths, over_budget, hurried: false }
    }

    /// Takes out those of whom `gone` is true.
    pub(super) fn remove_gone(
        &mut self,
        spares: &Arc<Spares>,
        gone: &mut impl FnMut(&W) -> bool,
    ) -> Removed<W> {
        let mut left = Removed::none();
        for lane in &mut self.lanes {
            for mut open in std::mem::take(lane) {
                // It asks about each of them, in order.
                let (mut asked, mut released) = (0, open.released);
                let removed =
                    super::entry::remove_gone(&mut open.rows, &mut open.entries, spares, |_, waiter| {
                        let left = gone(waiter);
                        released -= usize::from(left && asked < open.released);
                        asked += 1;
                        left
                    });
                left.add(removed);
                if !open.entries.is_empty() {
                    lane.push_back(OpenBatch { released, ..open });
                }
            }
        }
        left.add(Self::removed(self.pile.take_if(|waiting| gone(&waiting.entry.waiter))));
        self.waiting -= left.entries.len();
        left
    }

    /// Takes out those whose deadline has passed; and where others wait for their places, those whom a full batch would
    /// answer too late. A smaller one would save them at the cost of everyone behind them, and with each the next would be
    /// smaller still (early drop: Nexus, SOSP 2019).
    pub(super) fn expire(&mut self, now: Moment, alone: bool) -> Removed<W> {
        let cap = self.learned.cap();
        let full = if self.waiting > cap && !alone {
            self.learned.predict(cap, self.typical_cost(cap))
        } else {
            None
        };
        let end = now + full.unwrap_or_default();
        if self.pile.earliest().is_none_or(|earliest| earliest > end) {
            return Removed::none();
        }
        let late = |deadline: Moment| deadline <= now || deadline < end;
        let left = Self::removed(self.pile.take_if(|waiting| waiting.terms.deadline.is_some_and(late)));
        self.waiting -= left.entries.len();
        left
    }

    /// What those cost who go after a request on these terms.
    pub(super) fn after(&self, terms: &Terms, aging: Duration) -> impl Iterator<Item = u32> {
        let later = move |priority: Priority, due: Moment| {
            priority > terms.priority
                || (priority == terms.priority && terms.deadline.is_some_and(|own| due > own))
        };
        let lanes = Priority::ALL.into_iter().zip(&self.lanes).flat_map(move |(priority, lane)| {
            let entries = lane.iter().flat_map(|open| &open.entries);
            entries.filter(move |entry| later(priority, entry.arrived + aging)).map(|_| 1)
        });
        let piled = self.pile.iter().filter(move |(_, waiting)| {
            let due = waiting.terms.deadline.unwrap_or(waiting.entry.arrived + aging);
            later(waiting.terms.priority, due)
        });
        lanes.chain(piled.map(|(_, waiting)| waiting.terms.cost))
    }

    fn removed(taken: Vec<Waiting<W>>) -> Removed<W> {
        let mut left = Removed::none();
        for waiting in taken {
            left.objects.extend(waiting.rows.objects(0));
            left.entries.push(waiting.entry);
        }
        left
    }
}

/// A batch in which each row costs the same.
fn plain<W>(rows: Rows, entries: Vec<Entry<W>>) -> Gathered<W> {
    let cost = entries.len() as u64;
    Gathered {
        rows,
        entries,
        cost,
        padded_cost: cost,
        lengths: Vec::new(),
        over_budget: false,
        hurried: false,
    }
}

/// Moves the first `count` rows of a lane to the end of a batch.
fn draw<K, W>(
    lane: &mut VecDeque<OpenBatch<W>>,
    count: usize,
    whole: &mut OpenBatch<W>,
    key: &GroupKey<K>,
    spares: &Arc<Spares>,
) {
    let mut left = count;
    while left > 0 {
        let Some(open) = lane.front_mut() else { return };
        let part = open.entries.len().min(left);
        for row in 0..part {
            whole.rows.push_from(&open.rows, row);
        }
        whole.entries.extend(open.entries.drain(..part));
        left -= part;
        if open.entries.is_empty() {
            lane.pop_front();
        } else {
            keep_from(open, part, key, spares);
        }
    }
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
