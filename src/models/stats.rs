//! What a cache says about itself.

use std::sync::Arc;
use std::time::Duration;

use super::predict::PredictReport;
use super::{LoadState, ModelId, Reason};

/// The numbers of a cache since it was made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CacheStats {
    /// Acquires that found their model.
    pub hits: u64,
    /// Acquires that found neither their model nor a load of it that was wanted already.
    pub misses: u64,
    /// Acquires that joined a load that was wanted already.
    pub joins: u64,
    /// Hits among all acquires; 0 before the first.
    pub hit_rate: f64,
    /// The same with each acquire weighed by the bytes of its model.
    pub byte_hit_rate: f64,
    /// 1 less the seconds spent loading per second that would have been spent if every acquire had begun a load; what was
    /// loaded in vain lowers it, below 0 in the worst case.
    pub cost_hit_rate: f64,
    /// Loads that ended well.
    pub loads: u64,
    /// Loads that failed for good, time-outs among them.
    pub failures: u64,
    /// Loads that took longer than their time-out.
    pub timeouts: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Loads that were taken back, while they were queued or while they ran.
    pub cancelled: u64,
    /// How long the loads that ended well took.
    pub load_seconds: LoadSeconds,
    /// Seconds that loads have waited for their turn, their dependencies and memory, in all.
    pub queue_seconds: f64,
    /// Loads that wait now.
    pub queued: usize,
    /// Loads that run now, those that are stuck not counted.
    pub loading: usize,
    /// Loads that run on though their time is up.
    pub stuck: usize,
    /// What ended, by why.
    pub evictions: Evictions,
    /// What is in memory.
    pub bytes: CacheBytes,
    /// Loads that nobody waited for when they were asked for.
    pub preloads: Preloads,
    /// What prediction says of itself, where it was asked for.
    pub predictions: Option<PredictReport>,
    /// Every registered model.
    pub models: Vec<ModelStats>,
}

/// How long loads took, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LoadSeconds {
    /// All together.
    pub sum: f64,
    /// Half of them took no longer.
    pub p50: f64,
    /// Nineteen of twenty took no longer.
    pub p95: f64,
}

/// Residencies that ended, by why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evictions([u64; Reason::COUNT]);

impl Evictions {
    /// How many ended for that reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }

    /// How many ended in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }

    pub(super) fn count(&mut self, reason: Reason) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count += 1;
        }
    }
}

/// What is in memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheBytes {
    /// All that counts: the sum of the four that follow.
    pub used: u64,
    /// Models that can be used.
    pub ready: u64,
    /// Kept for loads that were let in.
    pub reserved: u64,
    /// Models that leave and are not gone yet.
    pub draining: u64,
    /// Unloaded, but still looked at by somebody.
    pub viewed: u64,
    /// The limit; `None` for none.
    pub memory: Option<u64>,
    /// Above the limit, because models turned out larger than they were taken to be.
    pub deficit: u64,
}

/// Loads that nobody waited for when they were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preloads {
    /// Loads that began for no other reason.
    pub issued: u64,
    /// Of those, models that were acquired once they were ready.
    pub used: u64,
    /// Of those, models that left before anybody acquired them.
    pub wasted: u64,
    /// Of those, loads that somebody came to wait for.
    pub joined: u64,
}

/// The numbers of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelStats {
    /// Which model.
    pub model: ModelId,
    /// What it is called.
    pub name: Arc<str>,
    /// Which of that name it is.
    pub version: Arc<str>,
    /// Acquires that found it.
    pub hits: u64,
    /// Acquires that found neither it nor a load of it that was wanted already.
    pub misses: u64,
    /// Acquires that joined a load that was wanted already.
    pub joins: u64,
    /// Loads that ended well.
    pub loads: u64,
    /// Loads that failed for good, time-outs among them.
    pub failures: u64,
    /// Loads that took longer than their time-out.
    pub timeouts: u64,
    /// Loads that were taken back.
    pub cancelled: u64,
    /// Seconds that a load takes, the latest weighing most; 0 before the first.
    pub load_seconds: f64,
    /// Residencies that ended, by why.
    pub evictions: Evictions,
    /// The last of those.
    pub last_eviction: Option<LastEviction>,
}

/// How a residency ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEviction {
    /// Why.
    pub reason: Reason,
    /// How long it had been ready.
    pub age: Duration,
    /// How long ago that was.
    pub ago: Duration,
}

/// One model in the index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexRow {
    /// Which model.
    pub model: ModelId,
    /// What it is called.
    pub name: Arc<str>,
    /// Which of that name it is.
    pub version: Arc<str>,
    /// How far it is. `Ready` as long as one of its residencies serves, whatever else goes on.
    pub state: LoadState,
    /// Why it is not ready, where that is known; what became of the last reload, where that failed.
    pub reason: Option<Arc<str>>,
    /// The residency that serves.
    pub serving: Option<super::Residency>,
    /// Bytes of the residency that serves, else what it is taken to need.
    pub bytes: u64,
    /// Leases on all its residencies.
    pub leases: usize,
    /// True where it is not evicted.
    pub pinned: bool,
    /// True where its name alone leads to it.
    pub default: bool,
    /// Aliases that lead to it.
    pub aliases: Vec<Arc<str>>,
    /// What it requires, as registered.
    pub requires: Vec<Arc<str>>,
}

/// Whether a cache is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Time since its task was last seen; `None` where no task keeps it.
    pub beat: Option<Duration>,
    /// True where its task was seen of late, or none keeps it, and its loader takes up what it is told.
    pub beating: bool,
    /// Models that were to be there from the start and have not been ready yet.
    pub waiting: Vec<ModelId>,
    /// Models whose load runs on though its time is up.
    pub stuck: Vec<ModelId>,
    /// True once it closes.
    pub closing: bool,
}

impl Health {
    /// True where everything that was to be there from the start has been ready, its task runs, and it does not close.
    pub fn is_ready(&self) -> bool {
        self.beating && !self.closing && self.waiting.is_empty()
    }
}

/// What the last accesses would have been with another memory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WhatIf {
    /// The memory that was asked about, in bytes.
    pub memory: u64,
    /// Accesses that were replayed.
    pub accesses: u64,
    /// How many would have been hits.
    pub hits: u64,
    /// Hits among accesses.
    pub hit_rate: f64,
    /// Seconds that would have been spent loading.
    pub load_seconds: f64,
}
