//! The time of day of moments that were taken by the steady clock.

use std::time::{Instant, SystemTime};

/// Both clocks, read at once.
///
/// Whatever is timed is timed by the steady clock; when it was by the calendar is worked out where it is told, and not
/// where it happens.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    moment: Instant,
    time: SystemTime,
}

impl WallClock {
    /// As they are now.
    pub fn read() -> Self {
        Self { moment: Instant::now(), time: SystemTime::now() }
    }

    /// The time of day at a moment, if nobody has set the clock since.
    pub fn at(&self, moment: Instant) -> SystemTime {
        let told = match self.moment.checked_duration_since(moment) {
            Some(ago) => self.time.checked_sub(ago),
            None => self.time.checked_add(moment.duration_since(self.moment)),
        };
        told.unwrap_or(self.time)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_is_as_far_away_by_both_clocks() {
        let wall = WallClock::read();
        let second = Duration::from_secs(1);
        let later = WallClock { moment: wall.moment + second, time: wall.time + second };
        assert_eq!(wall.at(wall.moment), wall.time);
        assert_eq!(wall.at(later.moment), later.time);
        assert_eq!(later.at(wall.moment), wall.time);
    }
}
