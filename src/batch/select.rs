//! Which requests go into the next batch: pure functions over who waits, in the order in which they are due.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use super::Priority;
use crate::flow::Moment;

/// Requests that are looked at beyond those that are due, for company that fits.
pub const LOOK_AHEAD: usize = 1024;

/// What a call costs besides its rows, as a share of the budget, where nothing was learned yet.
const OVERHEAD_OF_BUDGET: f64 = 0.125;

/// The same in rows of the longest, where there is no budget.
const OVERHEAD_IN_ROWS: f64 = 8.0;

/// Where lengths decide, one row in so many is for those who are late.
const LATE_ONE_IN: usize = 4;

/// Rows may cost next to nothing: then all of them go together.
const OVERHEAD_AT_MOST: f64 = 1e12;

/// Who goes first: smaller is earlier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// The priority; a request that has waited counts as one of a higher one. 0 is the highest.
    pub level: u8,
    /// The tenant's own time when this request will have been served; 0 where tenants have no shares.
    pub share: f64,
    /// When it must be answered; without a deadline, when it will have aged.
    pub due: Moment,
    /// When it came.
    pub arrived: Moment,
}

impl Rank {
    /// The rank of a request that came then, on these terms.
    pub fn of(
        priority: Priority,
        deadline: Option<Moment>,
        arrived: Moment,
        aging: Duration,
        now: Moment,
    ) -> Self {
        let waited = now.since(arrived).as_nanos().checked_div(aging.as_nanos()).unwrap_or(0);
        let level = (priority as u8).saturating_sub(u8::try_from(waited).unwrap_or(u8::MAX));
        Self { level, share: 0.0, due: deadline.unwrap_or(arrived + aging), arrived }
    }

    /// The order of two.
    pub fn order(&self, other: &Self) -> Ordering {
        self.level
            .cmp(&other.level)
            .then(self.share.total_cmp(&other.share))
            .then(self.due.cmp(&other.due))
            .then(self.arrived.cmp(&other.arrived))
    }
}

/// A request that could go into a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Where it waits.
    pub at: usize,
    /// Who goes first.
    pub rank: Rank,
    /// Whose share it is taken from.
    pub tenant: u32,
    /// What it costs.
    pub cost: u32,
    /// True where it was passed over for too long.
    pub late: bool,
}

/// What a batch has room for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// Rows at most.
    pub rows: usize,
    /// Cost at most.
    pub cost: Option<u64>,
    /// Rows are filled up to the longest, whose length is rounded up to a multiple of this.
    pub padded: Option<u64>,
    /// What a call costs besides its rows, in units of their cost.
    pub overhead: Option<f64>,
}

/// The candidates of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Their positions, in the order of their ranks.
    pub picked: Vec<usize>,
    /// True where somebody was left behind who fitted in number but not in cost.
    pub over_budget: bool,
}

/// Chooses a batch from candidates in the order of their ranks. The first is always taken, so nobody waits for ever; the
/// others are taken as they fit around it.
pub fn choose(candidates: &[Candidate], room: &Room) -> Choice {
    let rows = room.rows.max(1);
    match (room.cost, room.padded) {
        (None, None) => Choice { picked: (0..candidates.len().min(rows)).collect(), over_budget: false },
        (Some(budget), None) => fill(candidates, rows, budget),
        (budget, Some(multiple)) => homogeneous(candidates, rows, budget, multiple, room.overhead),
    }
}

/// Takes whoever still fits, in order: the short fill up what the long leave.
fn fill(candidates: &[Candidate], rows: usize, budget: u64) -> Choice {
    let mut choice = Choice::default();
    let mut left = budget;
    for (at, candidate) in candidates.iter().enumerate() {
        if choice.picked.len() == rows {
            break;
        }
        match left.checked_sub(u64::from(candidate.cost)) {
            Some(rest) => {
                left = rest;
                choice.picked.push(at);
            }
            None if choice.picked.is_empty() => {
                left = 0;
                choice.picked.push(at);
            }
            None => choice.over_budget = true,
        }
    }
    choice
}

/// Takes the first and those who are late, and of all batches that hold them the one that does the most useful work for what
/// it costs. The longest row decides what each row costs.
fn homogeneous(
    candidates: &[Candidate],
    rows: usize,
    budget: Option<u64>,
    multiple: u64,
    overhead: Option<f64>,
) -> Choice {
    let rows = rows.min(candidates.len());
    let filled_up = |longest: u64| longest.max(1).next_multiple_of(multiple);
    let fit = |longest: u64| {
        let fits = |budget: u64| usize::try_from(budget / filled_up(longest)).unwrap_or(usize::MAX);
        budget.map_or(usize::MAX, fits).min(rows).max(1)
    };
    let (front, company) = candidates.split_at(at_the_front(candidates, fit));
    let sum: u64 = front.iter().map(|one| u64::from(one.cost)).sum();
    let longest = front.iter().map(|one| u64::from(one.cost)).max().unwrap_or(0);
    let line = ByLength::of(company);
    let overhead =
        overhead.unwrap_or_else(|| usual_overhead(candidates, budget)).clamp(1.0, OVERHEAD_AT_MOST);
    let mut best = (f64::MIN, 0, 0);
    // Whoever is no longer than the longest of the front costs nothing more.
    for end in line.up_to(longest)..=company.len() {
        let last = end.checked_sub(1).and_then(|last| line.cost(last)).unwrap_or(0);
        if last > longest && line.cost(end) == Some(last) {
            continue;
        }
        let longest = longest.max(last);
        let Some(count) = fit(longest).checked_sub(front.len()) else { break };
        let from = end.saturating_sub(count);
        let taken = (front.len() + end - from) as u64;
        let score = worth(sum + line.sum(from, end), taken * filled_up(longest), overhead);
        if score > best.0 {
            best = (score, from, end);
        }
    }
    let (_, from, end) = best;
    let near = line.order.get(from..end).unwrap_or_default();
    let mut picked: Vec<usize> = (0..front.len()).chain(near.iter().map(|at| at + front.len())).collect();
    picked.sort_unstable();
    let over_budget = picked.len() < rows;
    Choice { picked, over_budget }
}

/// How many go whatever their lengths: the first, and those after it who are late, as long as they are but a share of what
/// fits into a batch that is as long as the longest of them. Were it the first alone, one of a rare length would wait until
/// nobody is before it, while those who came later and have company are served.
fn at_the_front(candidates: &[Candidate], fit: impl Fn(u64) -> usize) -> usize {
    let mut longest = 0;
    let goes = |(before, candidate): &(usize, &Candidate)| {
        longest = longest.max(u64::from(candidate.cost));
        *before == 0 || (candidate.late && before * LATE_ONE_IN < fit(longest))
    };
    candidates.iter().enumerate().take_while(goes).count()
}

/// What a call costs besides its rows, where nothing was learned yet.
#[allow(clippy::cast_precision_loss, reason = "costs stay far below 2^52")]
fn usual_overhead(candidates: &[Candidate], budget: Option<u64>) -> f64 {
    let longest = candidates.iter().map(|one| one.cost).max().unwrap_or(1).max(1);
    let in_rows = f64::from(longest) * OVERHEAD_IN_ROWS;
    budget.map_or(in_rows, |budget| budget as f64 * OVERHEAD_OF_BUDGET)
}

/// Useful work for each unit of what a batch costs.
#[allow(clippy::cast_precision_loss, reason = "costs stay far below 2^52")]
fn worth(useful: u64, cost: u64, overhead: f64) -> f64 {
    useful as f64 / (cost as f64 + overhead)
}

/// What one of them costs; 0 where there is none.
fn length(candidates: &[Candidate], at: usize) -> u64 {
    candidates.get(at).map_or(0, |candidate| u64::from(candidate.cost))
}

/// Candidates in the order of their lengths.
struct ByLength<'a> {
    candidates: &'a [Candidate],
    order: Vec<usize>,
    /// What all before a place cost.
    sums: Vec<u64>,
}

impl<'a> ByLength<'a> {
    fn of(candidates: &'a [Candidate]) -> Self {
        let cost = |at: &usize| length(candidates, *at);
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        // Of those with one length, who goes first comes last, and is left behind last.
        order.sort_by_key(|at| (cost(at), Reverse(*at)));
        let mut sums = Vec::with_capacity(order.len() + 1);
        sums.push(0);
        for at in &order {
            sums.push(sums.last().copied().unwrap_or(0) + cost(at));
        }
        Self { candidates, order, sums }
    }

    /// How many are no longer than this.
    fn up_to(&self, longest: u64) -> usize {
        self.order.partition_point(|at| length(self.candidates, *at) <= longest)
    }

    fn cost(&self, place: usize) -> Option<u64> {
        Some(u64::from(self.candidates.get(*self.order.get(place)?)?.cost))
    }

    /// What those from one place to another cost.
    fn sum(&self, from: usize, to: usize) -> u64 {
        self.sums.get(to).unwrap_or(&0) - self.sums.get(from).unwrap_or(&0)
    }
}

/// The largest of the preferred sizes that is not above `size`; `size` where all are.
pub fn preferred(sizes: &[usize], size: usize) -> usize {
    sizes.iter().copied().filter(|preferred| (1..=size).contains(preferred)).max().unwrap_or(size)
}

/// What a batch of these costs.
pub fn padded_cost(costs: impl Iterator<Item = u32> + Clone, multiple: Option<u64>) -> u64 {
    match multiple {
        None => costs.map(u64::from).sum(),
        Some(multiple) => {
            let longest = u64::from(costs.clone().max().unwrap_or(0)).next_multiple_of(multiple.max(1));
            costs.count() as u64 * longest
        }
    }
}

/// Shares of tenants: each has a time of its own, which passes more slowly the larger its share is, and whoever is behind
/// goes first: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996).
#[derive(Debug, Clone, Default)]
pub struct Shares {
    /// What a unit of cost adds to a tenant's time, by its number; beyond the end it is 1.
    strides: Vec<f64>,
    /// When the last request of each tenant will have been served, in that time.
    last: Vec<f64>,
    now: f64,
}

impl Shares {
    /// Tenants with these weights, numbered from 1; number 0 is everyone who has no name.
    pub fn new(weights: impl Iterator<Item = f64>) -> Self {
        let strides = std::iter::once(1.0).chain(weights.map(|weight| 1.0 / weight)).collect();
        Self { strides, last: Vec::new(), now: 0.0 }
    }

    fn step(&self, tenant: u32, cost: u32) -> f64 {
        f64::from(cost.max(1)) * self.strides.get(tenant as usize).unwrap_or(&1.0)
    }

    /// The turn of a request that comes now: smaller is earlier. A tenant that was away has not saved up.
    pub fn turn(&mut self, tenant: u32, cost: u32) -> f64 {
        let (at, step) = (tenant as usize, self.step(tenant, cost));
        if self.last.len() <= at {
            self.last.resize(at + 1, 0.0);
        }
        let Some(last) = self.last.get_mut(at) else { return self.now };
        *last = last.max(self.now) + step;
        *last
    }

    /// Counts a request that was taken at its turn.
    pub fn serve(&mut self, candidate: &Candidate) {
        let began = candidate.rank.share - self.step(candidate.tenant, candidate.cost);
        self.now = self.now.max(began);
    }
}

/// Within each tenant, gives the first turn to the one that is due first: who of its requests uses it is the tenant's affair.
pub fn trade_turns(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(|one, other| {
        let (plain, other_plain) = (Rank { share: 0.0, ..one.rank }, Rank { share: 0.0, ..other.rank });
        one.tenant.cmp(&other.tenant).then(plain.order(&other_plain)).then(one.at.cmp(&other.at))
    });
    for of_tenant in candidates.chunk_by_mut(|one, other| one.tenant == other.tenant) {
        let mut turns: Vec<f64> = of_tenant.iter().map(|candidate| candidate.rank.share).collect();
        turns.sort_unstable_by(f64::total_cmp);
        for (candidate, turn) in of_tenant.iter_mut().zip(turns) {
            candidate.rank.share = turn;
        }
    }
}
