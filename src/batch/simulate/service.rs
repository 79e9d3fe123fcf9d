//! How long the function takes.

use std::time::Duration;

/// A batch that the function is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Rows in it.
    pub rows: usize,
    /// What they cost.
    pub cost: u64,
    /// What the batch costs: more than that where rows are padded.
    pub padded_cost: u64,
}

/// A function, as far as its time goes.
pub trait Service {
    /// How long it takes for a batch.
    fn takes(&mut self, call: &Call, rng: &mut fastrand::Rng) -> Duration;
}

/// A time for each call and a time for each unit of cost, padding included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    /// Time for each call.
    pub fixed: Duration,
    /// Time for each unit of cost.
    pub per_cost: Duration,
    /// Calls take up to this share longer, evenly spread.
    pub noise: f64,
}

impl Service for Linear {
    fn takes(&mut self, call: &Call, rng: &mut fastrand::Rng) -> Duration {
        let cost = u32::try_from(call.padded_cost).unwrap_or(u32::MAX);
        (self.fixed + self.per_cost * cost).mul_f64(1.0 + self.noise * rng.f64())
    }
}
