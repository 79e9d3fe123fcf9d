//! When a request that comes now would be answered: a pure function of what waits, what runs, and what was learned.

use std::time::Duration;

use smallvec::SmallVec;

use super::Learned;

/// Batches that are dealt out one by one; what is left after them goes to the workers in whole rounds.
const DEALT: usize = 64;

/// What stands before a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows that go before it.
    pub rows: usize,
    /// What they cost.
    pub cost: u64,
    /// Batches that run at a time.
    pub workers: usize,
    /// For each batch that runs, how much longer it is expected to.
    pub running: SmallVec<[Duration; 4]>,
}

/// In how long a request of that cost would be answered; `None` while too little is known.
///
/// What waits is cut into batches as large as they may be, each goes to the worker that is free first, and the request
/// rides in the last of them. Nothing is held back: a window that a policy waits for comes on top.
pub fn finish_in(learned: &Learned, backlog: &Backlog, cost: u64) -> Option<Duration> {
    let size = learned.rows_per_batch();
    let (whole, rest) = (backlog.rows / size, backlog.rows % size);
    let cost_of = |rows: usize| share(backlog.cost, rows, backlog.rows);
    let mut workers = Workers::new(backlog);
    if whole > 0 {
        workers.deal(whole, learned.predict(size, cost_of(size))?);
    }
    let own = learned.predict(rest + 1, cost_of(rest) + cost)?;
    Some(workers.free_first().saturating_add(own))
}

/// What `part` of `whole` rows cost on average, rounded up.
fn share(cost: u64, part: usize, whole: usize) -> u64 {
    let total = u128::from(cost) * part as u128;
    u64::try_from(total.div_ceil(whole.max(1) as u128)).unwrap_or(u64::MAX)
}

/// In how long each worker will be free.
struct Workers(SmallVec<[Duration; 8]>);

impl Workers {
    fn new(backlog: &Backlog) -> Self {
        let count = backlog.workers.max(1);
        let mut free: SmallVec<[Duration; 8]> = backlog.running.iter().copied().collect();
        // Where more run than may by now, the first that end make room for nobody.
        free.sort_unstable();
        free.drain(..free.len().saturating_sub(count));
        free.resize(count, Duration::ZERO);
        Self(free)
    }

    fn free_first(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }

    fn deal(&mut self, batches: usize, each: Duration) {
        let one_by_one = batches.min(DEALT.max(self.0.len()));
        let (rounds, more) = ((batches - one_by_one) / self.0.len(), (batches - one_by_one) % self.0.len());
        for _ in 0..one_by_one + more {
            if let Some(first) = self.0.iter_mut().min() {
                *first = first.saturating_add(each);
            }
        }
        let long = each.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        self.0.iter_mut().for_each(|free| *free = free.saturating_add(long));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;
    use crate::batch::BatchPolicy;

    /// A function that takes 2 ms and 0.1 ms a row, in batches of at most 50.
    fn learned() -> Learned {
        let policy = BatchPolicy { max_size: 50, ..BatchPolicy::default() };
        let mut learned = Learned::new(&policy);
        for round in 0..100 {
            let rows = [1, 5, 20, 50][round % 4];
            learned.observe(&policy, rows, rows as u64, Duration::from_micros(2_000 + 100 * rows as u64));
        }
        learned
    }

    fn backlog(rows: usize, workers: usize, running: &[u64]) -> Backlog {
        let running = running.iter().copied().map(Duration::from_millis).collect();
        Backlog { rows, cost: rows as u64, workers, running }
    }

    fn milliseconds(backlog: &Backlog) -> f64 {
        finish_in(&learned(), backlog, 1).unwrap().as_secs_f64() * 1e3
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 0.06, "{found} ms, not {expected}");
    }

    #[test]
    fn nothing_is_said_while_nothing_is_known() {
        let fresh = Learned::new(&BatchPolicy::default());
        assert_eq!(finish_in(&fresh, &backlog(10, 1, &[]), 1), None);
    }

    #[test]
    fn an_idle_worker_answers_in_the_time_of_one_call() {
        assert_near(milliseconds(&backlog(0, 1, &[])), 2.1);
        assert_near(milliseconds(&backlog(9, 1, &[])), 3.0);
    }

    #[test]
    fn what_runs_and_what_waits_comes_first() {
        assert_near(milliseconds(&backlog(0, 1, &[30])), 32.1);
        // Two full batches of 7 ms, then its own with 20 others.
        assert_near(milliseconds(&backlog(120, 1, &[10])), 10.0 + 14.0 + 4.1);
    }

    #[test]
    fn workers_share_what_waits() {
        assert_near(milliseconds(&backlog(0, 2, &[30])), 2.1);
        // Three run where two may from here on: the first of them makes no room.
        assert_near(milliseconds(&backlog(0, 2, &[3, 40, 20])), 20.0 + 2.1);
        assert_near(milliseconds(&backlog(100, 2, &[3, 6])), 10.0 + 2.1);
        // More batches than are dealt one by one: 200 on four workers.
        assert_near(milliseconds(&backlog(10_000, 4, &[])), 50.0 * 7.0 + 2.1);
    }

    #[test]
    fn a_budget_makes_batches_smaller() {
        let budget = crate::batch::Budget { max_batch: Some(100), ..crate::batch::Budget::default() };
        let policy = BatchPolicy { max_size: 50, budget: Some(budget), ..BatchPolicy::default() };
        let mut learned = Learned::new(&policy);
        for _ in 0..50 {
            learned.observe(&policy, 10, 100, Duration::from_millis(10));
        }
        let backlog = Backlog { rows: 40, cost: 400, workers: 1, running: smallvec![] };
        let found = finish_in(&learned, &backlog, 10).unwrap();
        assert!(found >= Duration::from_millis(40) && found <= Duration::from_millis(52), "{found:?}");
    }

    proptest! {
        /// More before it never makes an answer come earlier, and more workers never make it come later.
        #[test]
        fn a_forecast_is_monotonous(
            batches in 0_usize..400,
            workers in 1_usize..9,
            running in proptest::collection::vec(0_u64..50, 0..8),
        ) {
            let at = |batches: usize, workers| finish_in(&learned(), &backlog(batches * 50, workers, &running), 1).unwrap();
            let here = at(batches, workers);
            prop_assert!(at(batches + 1, workers) >= here);
            if running.len() <= workers {
                prop_assert!(at(batches, workers + 1) <= here);
            }
        }
    }
}
