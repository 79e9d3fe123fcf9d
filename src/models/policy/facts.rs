//! What is known of a model, whether it is in memory or not.

use std::f64::consts::LN_2;
use std::time::Duration;

use super::rhythm::Rhythm;
use crate::flow::Moment;

/// What the latest load weighs beside those before it.
const LATEST: f64 = 0.3;
/// Half-lives, in seconds, over which uses are counted: from a burst to half a working day, the longest first. What was used at
/// some age then weighs about as much as one over that age, and no time scale is better known than another.
const HALF_LIVES: [f64; 4] = [16_384.0, 2_048.0, 256.0, 32.0];

/// How often a model is used, counted over several times at once: old uses count less and less in each.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Uses {
    counts: [f64; HALF_LIVES.len()],
    at: Moment,
}

impl Uses {
    /// One more.
    pub fn add(&mut self, now: Moment) {
        if now > self.at {
            self.counts = self.decayed(now);
            self.at = now;
        }
        self.counts.iter_mut().for_each(|count| *count += 1.0);
    }

    /// Uses a second: what the counts expect, on average. Whatever comes evenly is met by each of them.
    pub fn rate(&self, now: Moment) -> f64 {
        let counts = self.decayed(now).into_iter().zip(HALF_LIVES);
        let (sum, of) =
            counts.fold((0.0, 0.0), |(sum, of), (count, half_life)| (sum + count / half_life, of + 1.0));
        sum * LN_2 / of
    }

    fn decayed(&self, now: Moment) -> [f64; HALF_LIVES.len()] {
        let passed = now.since(self.at).as_secs_f64();
        let mut left = HALF_LIVES.first().map_or(0.0, |longest| (-passed / longest).exp2());
        self.counts.map(|count| {
            let count = count * left;
            // Each half-life is an eighth of the one before: what is left after it, to the eighth power.
            left *= left;
            left *= left;
            left *= left;
            count
        })
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
    /// Whether it is asked for at regular times.
    pub rhythm: Rhythm,
    /// When it was asked for last.
    pub last_used: Moment,
}

impl Facts {
    /// It is asked for.
    pub fn used(&mut self, now: Moment) {
        if self.last_used > Moment::default() {
            self.rhythm.add(now.since(self.last_used));
        }
        self.uses.add(now);
        self.last_used = self.last_used.max(now);
    }

    /// Uses a second that are to be expected: one over the time until the next is due, where it comes regularly, else what was
    /// counted of late.
    pub fn rate(&self, now: Moment) -> f64 {
        let due = self.rhythm.due_in(now.since(self.last_used));
        due.map_or_else(|| self.uses.rate(now), |due| 1.0 / due.as_secs_f64())
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
