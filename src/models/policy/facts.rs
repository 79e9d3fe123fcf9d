//! What is known of a model, whether it is in memory or not.

use std::time::Duration;

use crate::flow::Moment;

/// Time in which a use comes to count half.
const HALF_LIFE: Duration = Duration::from_secs(4 * 3600);
/// What the latest load weighs beside those before it.
const LATEST: f64 = 0.3;

/// Uses, of which the old ones count less: half after every half-life.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Uses {
    count: f64,
    at: Moment,
}

impl Uses {
    /// One more.
    pub fn add(&mut self, now: Moment) {
        *self = Self { count: self.now(now) + 1.0, at: now.max(self.at) };
    }

    /// What they come to.
    pub fn now(&self, now: Moment) -> f64 {
        let passed = now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.count * (-passed).exp2()
    }
}

/// What is known of a model; it outlives evictions, so that a model that comes back is no stranger.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Facts {
    /// Its size in memory, as last measured.
    pub bytes: u64,
    /// Seconds that its load takes: the latest weighs most. Zero until one was measured.
    pub load_seconds: f64,
    /// How often it is asked for of late, found or not.
    pub uses: Uses,
    /// When it was asked for last.
    pub last_used: Moment,
}

impl Facts {
    /// It is asked for.
    pub fn used(&mut self, now: Moment) {
        self.uses.add(now);
        self.last_used = self.last_used.max(now);
    }

    /// A load of it has ended well.
    pub fn loaded(&mut self, bytes: u64, took: Duration) {
        let took = took.as_secs_f64();
        let known = self.load_seconds > 0.0;
        self.load_seconds =
            if known { self.load_seconds + LATEST * (took - self.load_seconds) } else { took };
        self.bytes = bytes;
    }
}
