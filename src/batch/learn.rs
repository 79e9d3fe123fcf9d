//! What the batches of one group teach: how long a batch takes, and how large it should be.
//!
//! The cap rises by equal steps while batches fill it and a fuller one is expected to leave room for the target, and is
//! cut by a share where one did not. Where memory runs out it is halved at once and comes back one row at a time.

use std::time::Duration;

use super::BatchPolicy;
use super::fit::CostFit;

/// What is left of the cap after a batch that took too long.
const CUT: f64 = 0.7;
/// Steps from the smallest cap to the largest.
const STEPS: usize = 16;
/// Batches that must run whole at the cap before it rises by one row after memory ran out; doubled each further time.
const CLEAN: u32 = 16;
const CLEAN_AT_MOST: u32 = 4_096;
/// What a newer batch counts for in the mean cost of a row.
const SHARE: f64 = 0.125;

/// What is known of the batches of one group; it starts with what the policy says.
#[derive(Debug, Clone)]
pub struct Learned {
    fit: CostFit,
    /// The cap that the target allows.
    cap: usize,
    max_size: usize,
    /// Cost of one batch at most, where the policy says one.
    max_cost: Option<u64>,
    /// What a row costs on average, padding included.
    row_cost: f64,
    memory: Option<Memory>,
}

/// A cap that memory set.
#[derive(Debug, Clone, Copy)]
struct Memory {
    cap: usize,
    /// Batches that ran whole at it.
    clean: u32,
    /// How many there must be before it rises.
    needed: u32,
}

impl Learned {
    /// Nothing learned yet: the smallest batch where the policy has a target to keep, else the largest.
    pub fn new(policy: &BatchPolicy) -> Self {
        let low = policy.adaptive.filter(|adaptive| adaptive.target.is_some()).map(|adaptive| adaptive.low);
        Self {
            fit: CostFit::default(),
            cap: low.unwrap_or(policy.max_size).clamp(1, policy.max_size.max(1)),
            max_size: policy.max_size.max(1),
            max_cost: policy.budget.and_then(|budget| budget.max_batch),
            row_cost: 1.0,
            memory: None,
        }
    }

    /// Rows that a batch may have now; at least 1.
    pub fn cap(&self) -> usize {
        self.memory.map_or(self.cap, |memory| memory.cap.min(self.cap))
    }

    /// How long the function will take for a batch, as a high quantile; `None` before the second batch.
    pub fn predict(&self, _rows: usize, padded_cost: u64) -> Option<Duration> {
        self.fit.predict(padded_cost)
    }

    /// What a call costs besides its rows, in units of their cost: infinite where rows cost nothing, `None` until
    /// batches of different sizes have told it.
    pub fn overhead(&self) -> Option<f64> {
        self.fit.overhead()
    }

    /// Learns from a batch that ran whole.
    pub fn observe(&mut self, policy: &BatchPolicy, rows: usize, padded_cost: u64, took: Duration) {
        let rows = rows.max(1);
        let share = if self.fit.predict(1).is_some() { SHARE } else { 1.0 };
        self.row_cost += share * (decimal(padded_cost) / decimal(rows as u64) - self.row_cost);
        self.fit.observe(padded_cost, took);
        self.recover(rows);
        let Some(adaptive) = policy.adaptive else { return };
        let low = adaptive.low.clamp(1, self.max_size);
        // A request waits for the batch in front of it and then for its own.
        if let Some(room) = adaptive.target.map(|target| target / 2) {
            if took > room {
                self.cut(low, rows, room);
            } else if self.was_full(policy, rows) {
                self.raise(low, rows, room);
            }
        }
    }

    /// Learns that memory ran out with so many rows: half of them are the most from now on.
    pub fn out_of_memory(&mut self, rows: usize) {
        let cap = (rows / 2).max(1);
        self.memory = Some(match self.memory {
            None => Memory { cap, clean: 0, needed: CLEAN },
            // It was cut before the cap was: no news, but perhaps a smaller half.
            Some(memory) if rows > memory.cap => Memory { cap: memory.cap.min(cap), clean: 0, ..memory },
            Some(memory) => {
                Memory { cap, clean: 0, needed: memory.needed.saturating_mul(2).min(CLEAN_AT_MOST) }
            }
        });
    }

    /// Rows of the average cost that fit into a batch.
    pub(super) fn rows_per_batch(&self) -> usize {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is cut to the cap")]
        let affordable = self.max_cost.map_or(usize::MAX, |cost| (decimal(cost) / self.row_cost) as usize);
        self.cap().min(affordable).max(1)
    }

    /// What so many rows of the average kind cost.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "costs are far below 2^52")]
    fn cost_of(&self, rows: usize) -> u64 {
        (decimal(rows as u64) * self.row_cost).ceil() as u64
    }

    /// A batch under the present cap took too long. One that was cut before the cap fell says nothing of it, and one far
    /// below the cap only where the cap itself is expected to take too long.
    fn cut(&mut self, low: usize, rows: usize, room: Duration) {
        if rows > self.cap || (rows * 2 <= self.cap && self.fits(self.cap, room)) {
            return;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is below the cap")]
        let less = (decimal(self.cap as u64) * CUT) as usize;
        self.cap = less.clamp(low, self.max_size);
    }

    /// A step up, as far as a batch of that size is expected to keep within `room`.
    fn raise(&mut self, low: usize, rows: usize, room: Duration) {
        let step = ((self.max_size - low) / STEPS).max(1);
        let wanted = (self.cap + step).min(self.max_size).min(rows.saturating_mul(2));
        if wanted > self.cap && self.fits(wanted, room) {
            self.cap = wanted;
        }
    }

    fn fits(&self, rows: usize, room: Duration) -> bool {
        self.fit.predict(self.cost_of(rows)).is_some_and(|expected| expected <= room)
    }

    /// True where the cap was what kept the batch from being larger.
    fn was_full(&self, policy: &BatchPolicy, rows: usize) -> bool {
        let cap = self.cap();
        let liked = policy.preferred.iter().copied().filter(|size| *size <= cap).max();
        rows >= liked.unwrap_or(cap)
    }

    fn recover(&mut self, rows: usize) {
        let Some(memory) = self.memory.as_mut().filter(|memory| rows >= memory.cap.min(self.cap)) else {
            return;
        };
        memory.clean += 1;
        if memory.clean >= memory.needed {
            // What the target does not allow anyway need not be tried.
            memory.cap = (memory.cap + 1).min(self.max_size);
            memory.clean = 0;
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn decimal(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::Adaptive;

    fn adaptive(low: usize, high: usize, target: Option<f64>) -> BatchPolicy {
        let target = target.map(Duration::from_secs_f64);
        BatchPolicy { max_size: high, adaptive: Some(Adaptive { low, target }), ..BatchPolicy::default() }
    }

    /// Runs so many full batches of a function that takes 2 ms and 0.1 ms a row, times `slow`.
    fn run(learned: &mut Learned, policy: &BatchPolicy, batches: usize, slow: f64) {
        for _ in 0..batches {
            let rows = learned.cap();
            learned.observe(policy, rows, rows as u64, time(rows).mul_f64(slow));
        }
    }

    fn time(rows: usize) -> Duration {
        Duration::from_micros(2_000 + 100 * rows as u64)
    }

    #[test]
    fn without_a_target_the_cap_is_the_largest() {
        let policy = adaptive(25, 200, None);
        let mut learned = Learned::new(&policy);
        assert_eq!(learned.cap(), 200);
        run(&mut learned, &policy, 50, 10.0);
        assert_eq!(learned.cap(), 200);
        assert_eq!(Learned::new(&BatchPolicy::default()).cap(), 100);
    }

    #[test]
    fn with_a_target_it_rises_as_far_as_half_of_the_target_allows() {
        let policy = adaptive(25, 200, Some(0.030));
        let mut learned = Learned::new(&policy);
        assert_eq!(learned.cap(), 25);
        run(&mut learned, &policy, 40, 1.0);
        // 15 ms hold 130 rows; a step is 10.
        assert!((115..=130).contains(&learned.cap()), "{}", learned.cap());
        let roomy = adaptive(25, 200, Some(1.0));
        let mut learned = Learned::new(&roomy);
        run(&mut learned, &roomy, 40, 1.0);
        assert_eq!(learned.cap(), 200);
    }

    #[test]
    fn a_cap_that_nothing_fills_stays() {
        let policy = adaptive(25, 200, Some(1.0));
        let mut learned = Learned::new(&policy);
        for _ in 0..100 {
            learned.observe(&policy, 24, 24, time(24));
        }
        assert_eq!(learned.cap(), 25);
    }

    #[test]
    fn a_miss_cuts_once_and_the_rest_of_its_burst_does_not() {
        let policy = adaptive(25, 200, Some(0.030));
        let mut learned = Learned::new(&policy);
        run(&mut learned, &policy, 40, 1.0);
        let before = learned.cap();
        for _ in 0..4 {
            learned.observe(&policy, before, before as u64, Duration::from_millis(40));
        }
        assert_eq!(learned.cap(), before * 7 / 10);
    }

    #[test]
    fn it_never_leaves_its_range_and_comes_back_when_the_function_does() {
        let policy = adaptive(25, 200, Some(0.030));
        let mut learned = Learned::new(&policy);
        run(&mut learned, &policy, 100, 20.0);
        assert_eq!(learned.cap(), 25);
        run(&mut learned, &policy, 200, 1.0);
        assert!(learned.cap() >= 110, "{}", learned.cap());
    }

    #[test]
    fn one_slow_small_batch_does_not_cut() {
        let policy = adaptive(25, 200, Some(0.030));
        let mut learned = Learned::new(&policy);
        run(&mut learned, &policy, 40, 1.0);
        let before = learned.cap();
        learned.observe(&policy, 3, 3, Duration::from_millis(100));
        assert_eq!(learned.cap(), before);
    }

    #[test]
    fn preferred_sizes_count_as_full() {
        let policy = BatchPolicy { preferred: vec![16, 32, 64, 128], ..adaptive(25, 200, Some(0.030)) };
        let mut learned = Learned::new(&policy);
        for _ in 0..60 {
            let rows = [16, 32, 64, 128].into_iter().filter(|size| *size <= learned.cap()).max().unwrap();
            learned.observe(&policy, rows, rows as u64, time(rows));
        }
        assert!(learned.cap() >= 110, "{}", learned.cap());
    }

    #[test]
    fn memory_halves_at_once_below_everything_and_comes_back_slowly() {
        let policy = adaptive(25, 200, None);
        let mut learned = Learned::new(&policy);
        learned.out_of_memory(40);
        assert_eq!(learned.cap(), 20);
        run(&mut learned, &policy, 16, 1.0);
        assert_eq!(learned.cap(), 21);
        learned.out_of_memory(21);
        assert_eq!(learned.cap(), 10);
        run(&mut learned, &policy, 31, 1.0);
        assert_eq!(learned.cap(), 10);
        run(&mut learned, &policy, 1, 1.0);
        assert_eq!(learned.cap(), 11);
        learned.out_of_memory(1);
        assert_eq!(learned.cap(), 1);
    }

    #[test]
    fn memory_runs_out_for_policies_that_do_not_adapt_too() {
        let policy = BatchPolicy::default();
        let mut learned = Learned::new(&policy);
        learned.out_of_memory(100);
        assert_eq!(learned.cap(), 50);
        // Batches of other workers, cut before the cap fell, are no further reason to wait longer.
        learned.out_of_memory(100);
        assert_eq!(learned.cap(), 50);
        run(&mut learned, &policy, 16, 1.0);
        assert_eq!(learned.cap(), 51);
        run(&mut learned, &policy, 16 * 60, 1.0);
        assert_eq!(learned.cap(), 100);
    }

    proptest! {
        #[test]
        fn the_cap_stays_in_its_range_whatever_happens(
            low in 1_usize..50,
            more in 0_usize..200,
            target in proptest::option::of(0.0001_f64..1.0),
            steps in proptest::collection::vec((any::<u8>(), 1_usize..300, 0_u64..1_000_000_000), 1..200),
        ) {
            let policy = adaptive(low, low + more, target);
            let mut learned = Learned::new(&policy);
            let mut exhausted = false;
            for (kind, rows, nanos) in steps {
                let before = learned.cap();
                if kind < 10 {
                    learned.out_of_memory(rows);
                    exhausted = true;
                    prop_assert!(learned.cap() <= (rows / 2).max(1));
                } else {
                    learned.observe(&policy, rows, rows as u64 * 3, Duration::from_nanos(nanos));
                    prop_assert!(learned.cap() <= before + (more / STEPS).max(1));
                }
                prop_assert!((1..=low + more).contains(&learned.cap()));
                prop_assert!(exhausted || learned.cap() >= low);
            }
        }
    }
}
