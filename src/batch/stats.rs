//! What happened in a batcher, in numbers that never disagree with one another.

use super::Reason;

/// A snapshot of a batcher's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchStats {
    /// Requests that were put into a batch.
    pub requests: u64,
    /// Batches that were cut.
    pub batches: u64,
    /// Requests in the largest batch.
    pub largest: u64,
    /// Batches by the reason they were cut for, in the order of [`Reason::ALL`].
    pub reasons: [u64; Reason::ALL.len()],
    /// Requests refused because the queue was full.
    pub rejected: u64,
    /// Requests that left before the model saw them.
    pub abandoned: u64,
    /// Requests refused because they could not have been answered in time; they are among the rejected.
    pub hopeless: u64,
    /// Requests whose deadline passed while they waited, or could not be met any more; they are among the abandoned.
    pub expired: u64,
    /// Requests that joined a batch while it ran; they are among the requests.
    pub joined: u64,
    /// Times that memory ran out.
    pub out_of_memory: u64,
    /// What requests in batches cost.
    pub cost: u64,
    /// What their batches cost, with what rows were filled up by.
    pub padded_cost: u64,
    /// Requests waiting now.
    pub queued: usize,
    /// Requests that a batch of the last group that ran may have.
    pub cap: usize,
}

impl BatchStats {
    /// Counts one batch.
    pub fn count(&mut self, requests: usize, reason: Reason) {
        self.requests += requests as u64;
        self.batches += 1;
        self.largest = self.largest.max(requests as u64);
        for (count, candidate) in self.reasons.iter_mut().zip(Reason::ALL) {
            *count += u64::from(candidate == reason);
        }
    }

    /// Requests in a batch on average; 0 before the first.
    #[allow(clippy::cast_precision_loss, reason = "counters stay far below 2^52")]
    pub fn mean_size(&self) -> f64 {
        if self.batches == 0 { 0.0 } else { self.requests as f64 / self.batches as f64 }
    }

    /// Share of what batches cost that is padding; 0 before the first.
    #[allow(clippy::cast_precision_loss, reason = "counters stay far below 2^52")]
    pub fn padding(&self) -> f64 {
        self.padded_cost.saturating_sub(self.cost) as f64 / self.padded_cost.max(1) as f64
    }

    /// Share of model calls that batching saved: (requests − batches) / requests; 0 before the first.
    #[allow(clippy::cast_precision_loss, reason = "counters stay far below 2^52")]
    pub fn efficiency(&self) -> f64 {
        if self.requests == 0 {
            0.0
        } else {
            (self.requests - self.batches.min(self.requests)) as f64 / self.requests as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_efficiency_follow_the_counts() {
        let mut stats = BatchStats::default();
        assert!(stats.mean_size().abs() < f64::EPSILON && stats.efficiency().abs() < f64::EPSILON);
        stats.count(100, Reason::Full);
        stats.count(20, Reason::Tick);
        assert!((stats.mean_size() - 60.0).abs() < 1e-12);
        assert!((stats.efficiency() - 118.0 / 120.0).abs() < 1e-12);
        assert!(stats.padding().abs() < f64::EPSILON);
        (stats.cost, stats.padded_cost) = (30, 40);
        assert!((stats.padding() - 0.25).abs() < 1e-12);
        assert_eq!((stats.largest, stats.reasons), (100, [1, 1, 0, 0, 0, 0, 0]));
    }
}
