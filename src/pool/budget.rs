//! How many retries a client may send: a share of its requests, so that retries never become the load.

use std::time::Duration;

use crate::flow::Moment;

/// Unused retries are kept for this time at the steady rate.
const KEPT: Duration = Duration::from_secs(10);
/// Unused retries of this many requests are kept.
const REQUESTS_KEPT: f64 = 100.0;

/// A bucket of retries: each request adds a share of one, each second some more, each retry takes one.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    share: f64,
    per_second: f64,
    retries: f64,
    filled: Moment,
}

impl Default for RetryBudget {
    /// A fifth of all requests and ten a second, as Finagle's.
    fn default() -> Self {
        Self::new(0.2, 10.0)
    }
}

impl RetryBudget {
    /// A full bucket. `share` retries are added by each request and `per_second` by each second; it holds what 100 requests
    /// and 10 seconds add.
    pub fn new(share: f64, per_second: f64) -> Self {
        let (share, per_second) = (share.max(0.0), per_second.max(0.0));
        let mut budget = Self { share, per_second, retries: 0.0, filled: Moment::default() };
        budget.retries = budget.most();
        budget
    }

    /// A request begins; its retries do not count as requests.
    pub fn request(&mut self) {
        self.retries = (self.retries + self.share).min(self.most());
    }

    /// Takes a retry out of the bucket; answers whether there was one.
    pub fn retry(&mut self, now: Moment) -> bool {
        let added = now.since(self.filled).as_secs_f64() * self.per_second;
        self.filled = self.filled.max(now);
        self.retries = (self.retries + added).min(self.most());
        let enough = self.retries >= 1.0;
        if enough {
            self.retries -= 1.0;
        }
        enough
    }

    fn most(&self) -> f64 {
        self.per_second * KEPT.as_secs_f64() + self.share * REQUESTS_KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(budget: &mut RetryBudget, now: Moment) -> usize {
        (0..1_000_000).take_while(|_| budget.retry(now)).count()
    }

    #[test]
    fn retries_stay_a_share_of_the_requests_and_a_few_a_second() {
        let mut budget = RetryBudget::default();
        let mut now = Moment::from_nanos(5);
        assert_eq!(spend(&mut budget, now), 120, "it begins full");
        assert!(!budget.retry(now));
        (0..11).for_each(|_| budget.request());
        assert_eq!(spend(&mut budget, now), 2);
        now = now + Duration::from_secs(1);
        assert_eq!(spend(&mut budget, now), 10);
        now = now + Duration::from_hours(1);
        assert_eq!(spend(&mut budget, now), 120, "it keeps no more than it holds");
        assert_eq!(spend(&mut budget, Moment::default()), 0, "time that goes back adds nothing");
    }

    #[test]
    fn an_empty_budget_allows_no_retry() {
        let mut budget = RetryBudget::new(0.0, 0.0);
        budget.request();
        assert!(!budget.retry(Moment::from_nanos(u64::MAX)));
    }
}
