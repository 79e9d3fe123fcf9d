//! The batches of late, and sums over all of them: what there is to say when somebody asks why.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::BatchAccount;

/// Batches that are kept.
const KEPT: usize = 256;

/// The last batches of a batcher, and sums over all that there were.
#[derive(Debug, Default)]
pub struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: VecDeque<Arc<BatchAccount>>,
    totals: Totals,
}

/// Sums over all batches that are done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Their requests.
    pub requests: u64,
    /// What a request spent in each part, added up over the requests.
    pub spent: [Duration; 5],
    /// Batches whose time was predicted, and that ran whole.
    pub predicted: u64,
    /// By how much their time was not as predicted, added up.
    pub misjudged: Duration,
}

impl History {
    /// Keeps a batch that is done.
    pub fn keep(&self, batch: &Arc<BatchAccount>) {
        let mut kept = self.0.lock();
        kept.totals.add(batch);
        if kept.last.len() >= KEPT {
            kept.last.pop_front();
        }
        kept.last.push_back(Arc::clone(batch));
    }

    /// The last batches that `wanted` wants, at most so many, in the order in which they were done.
    pub fn last(&self, most: usize, wanted: impl Fn(&BatchAccount) -> bool) -> Vec<Arc<BatchAccount>> {
        let kept = self.0.lock();
        let mut found: Vec<_> =
            kept.last.iter().rev().filter(|batch| wanted(batch)).take(most).cloned().collect();
        found.reverse();
        found
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        self.0.lock().totals.clone()
    }
}

impl Totals {
    fn add(&mut self, batch: &BatchAccount) {
        let parts = batch.parts();
        let rows = u32::try_from(batch.rows).unwrap_or(u32::MAX);
        let of_all = [parts.gather, parts.model, parts.scatter].map(|part| part.saturating_mul(rows));
        let [gather, model, scatter] = of_all;
        for (sum, part) in
            self.spent.iter_mut().zip([batch.waited.queue, batch.waited.slot, gather, model, scatter])
        {
            *sum = sum.saturating_add(part);
        }
        self.requests += batch.rows as u64;
        if let Some(error) = batch.misjudged() {
            self.predicted += 1;
            self.misjudged += error;
        }
    }

    /// Seconds that a request spent in each part on average; 0 before the first.
    #[allow(clippy::cast_precision_loss, reason = "counters stay far below 2^52")]
    pub fn mean_spent(&self) -> [f64; 5] {
        let requests = self.requests.max(1) as f64;
        self.spent.map(|part| part.as_secs_f64() / requests)
    }

    /// Seconds by which a batch's time was not as predicted, on average; `None` before the first that was.
    #[allow(clippy::cast_precision_loss, reason = "counters stay far below 2^52")]
    pub fn prediction_error(&self) -> Option<f64> {
        (self.predicted > 0).then(|| self.misjudged.as_secs_f64() / self.predicted as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Cut, Ran, Waited};

    fn millis(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn batch(number: u64, rows: usize) -> BatchAccount {
        let cut = Cut { number, ..Cut::default() };
        BatchAccount::open(rows, "tick", cut)
    }

    #[test]
    fn the_last_are_kept_and_no_more() {
        let history = History::default();
        for number in 0..KEPT as u64 + 10 {
            history.keep(&Arc::new(batch(number, 1)));
        }
        let numbers = |kept: Vec<Arc<BatchAccount>>| -> Vec<u64> {
            kept.iter().map(|batch| batch.cut.number).collect()
        };
        assert_eq!(numbers(history.last(3, |_| true)), [263, 264, 265]);
        assert_eq!(history.last(usize::MAX, |_| true).len(), KEPT);
        assert_eq!(numbers(history.last(9, |batch| batch.cut.number < 12)), [10, 11]);
        assert_eq!(history.totals().requests, 266, "what is kept no more still counts");
    }

    #[test]
    fn sums_weigh_a_batch_by_its_requests() {
        let history = History::default();
        assert!(history.totals().mean_spent().iter().all(|mean| mean.abs() < f64::EPSILON));
        let mut large = batch(1, 3);
        large.waited = Waited { queue: millis(9), slot: millis(3) };
        (large.model, large.done) = (millis(4), large.taken + millis(4));
        history.keep(&Arc::new(large));
        let mut small = batch(2, 1);
        small.waited = Waited { queue: millis(3), slot: millis(1) };
        history.keep(&Arc::new(small));
        let totals = history.totals();
        let expected = [0.003, 0.001, 0.0, 0.003, 0.0];
        for (mean, expected) in totals.mean_spent().into_iter().zip(expected) {
            assert!((mean - expected).abs() < 1e-9, "{:?}", totals.mean_spent());
        }
    }

    #[test]
    fn an_error_of_prediction_is_a_mean_of_distances() {
        let history = History::default();
        assert_eq!(history.totals().prediction_error(), None);
        for took in [8, 14] {
            let mut whole = batch(1, 1);
            (whole.cut.predicted, whole.ran) = (Some(millis(10)), Ran::Whole(millis(took)));
            history.keep(&Arc::new(whole));
        }
        let error = history.totals().prediction_error().unwrap();
        assert!((error - 0.003).abs() < 1e-9, "{error}");
    }
}
