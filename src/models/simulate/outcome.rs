//! What became of a trace.

use std::time::Duration;

use crate::models::{CacheStats, Reason};

/// What became of a trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Requests.
    pub requests: u64,
    /// Of them, those that found their model.
    pub hits: u64,
    /// Of them, those that waited for a load that was under way already.
    pub joins: u64,
    /// Of them, those that were told an error.
    pub refused: u64,
    /// Time that was spent loading, in vain or not.
    pub loading: Duration,
    /// Time that it would have been, had every request loaded.
    pub cold: Duration,
    /// Time that requests waited for their models, all together.
    pub waited: Duration,
    /// Models that left because others needed their memory.
    pub evictions: u64,
    /// What the cache says about itself at the end.
    pub stats: CacheStats,
}

impl Outcome {
    /// Share of the requests that found their model.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.requests.max(1) as f64
    }

    /// Share of the load seconds that were saved.
    pub fn cost_hit_rate(&self) -> f64 {
        1.0 - self.loading.as_secs_f64() / self.cold.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Hours spent loading.
    pub fn load_hours(&self) -> f64 {
        self.loading.as_secs_f64() / 3600.0
    }

    /// Hours that requests waited.
    pub fn waited_hours(&self) -> f64 {
        self.waited.as_secs_f64() / 3600.0
    }
}

/// What is counted on the way.
#[derive(Debug, Default)]
pub(super) struct Tally {
    outcome: Outcome,
}

impl Tally {
    /// Somebody asks for a model that takes so long to load.
    pub(super) fn asked(&mut self, cold: Duration) {
        self.outcome.requests += 1;
        self.outcome.cold += cold;
    }

    pub(super) fn hit(&mut self) {
        self.outcome.hits += 1;
    }

    /// Somebody has their model, after so long.
    pub(super) fn answered(&mut self, waited: Duration) {
        self.outcome.waited += waited;
    }

    pub(super) fn refused(&mut self) {
        self.outcome.refused += 1;
    }

    /// A load has ended, well or not.
    pub(super) fn loaded(&mut self, took: Duration) {
        self.outcome.loading += took;
    }

    pub(super) fn finish(self, stats: &CacheStats) -> Outcome {
        Outcome {
            joins: stats.joins,
            evictions: stats.evictions.of(Reason::Space),
            stats: stats.clone(),
            ..self.outcome
        }
    }
}
