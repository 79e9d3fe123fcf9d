//! Models that are asked for at regular times: by a timer, or in turn with others.

use std::time::Duration;

/// What the latest gap weighs at least beside those before it.
const LATEST: f64 = 0.25;
/// Gaps after which they can be called regular.
const ENOUGH: u32 = 3;
/// How far gaps of a regular model are off their mean, on average, as a share of it.
const REGULAR: f64 = 0.15;
/// By how much of its gap one may be late and still be waited for.
const LATE: f64 = 0.2;

/// The gaps between the uses of a model: their mean, and how far they are off it on average.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rhythm {
    gap: f64,
    spread: f64,
    gaps: u32,
}

impl Rhythm {
    /// It was used again after so long.
    pub fn add(&mut self, gap: Duration) {
        let gap = gap.as_secs_f64();
        self.gaps = self.gaps.saturating_add(1);
        if self.gaps == 1 {
            // One gap says nothing about the next.
            (self.gap, self.spread) = (gap, gap / 2.0);
            return;
        }
        let weight = LATEST.max(1.0 / f64::from(self.gaps));
        self.spread += weight * ((gap - self.gap).abs() - self.spread);
        self.gap += weight * (gap - self.gap);
    }

    /// Time until the next use, that long after the last one, and never less than the gaps are usually off; `None` where it does
    /// not come regularly, or stays away.
    pub fn due_in(&self, since: Duration) -> Option<Duration> {
        let regular = self.gaps >= ENOUGH && self.spread < REGULAR * self.gap;
        let due = self.gap - since.as_secs_f64();
        let least = self.spread.max(self.gap / 50.0);
        (regular && due > -LATE * self.gap).then(|| Duration::from_secs_f64(due.max(least)))
    }
}
