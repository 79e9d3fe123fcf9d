//! What the batches of one group teach: how long a batch takes, and how large it should be.

use std::time::Duration;

use super::BatchPolicy;

/// What is known of the batches of one group; it starts with what the policy says.
#[derive(Debug, Clone)]
pub struct Learned {
    cap: usize,
}

impl Learned {
    /// Nothing learned yet.
    pub fn new(policy: &BatchPolicy) -> Self {
        Self { cap: policy.max_size }
    }

    /// Rows that a batch may have now.
    pub fn cap(&self) -> usize {
        self.cap
    }

    /// How long the function will take for a batch, as a high quantile; `None` while too little is known.
    pub fn predict(&self, _rows: usize, _padded_cost: u64) -> Option<Duration> {
        None
    }

    /// What a call costs besides its rows, in units of their cost; `None` while too little is known.
    pub fn overhead(&self) -> Option<f64> {
        None
    }

    /// Learns from a batch that ran whole.
    pub fn observe(&mut self, _policy: &BatchPolicy, _rows: usize, _padded_cost: u64, _took: Duration) {}

    /// Learns that memory ran out with so many rows.
    pub fn out_of_memory(&mut self, _rows: usize) {}
}
