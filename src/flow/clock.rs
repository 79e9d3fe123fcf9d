//! Time as a number that policies can reason about, and clocks that supply it.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A point in time: nanoseconds since the clock that gave it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanoseconds` after the clock's beginning.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Time passed since `earlier`; zero where `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment that much earlier; the clock's beginning where it would be before that.
    #[must_use]
    pub fn earlier_by(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where "now" comes from.
pub trait Clock: Send + Sync + 'static {
    /// The present moment; never earlier than one it gave before.
    fn now(&self) -> Moment;
}

/// The operating system's monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    beginning: Instant,
}

impl SystemClock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self { beginning: Instant::now() }
    }

    /// The instant that `moment` stands for, for waits on the operating system.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.beginning + Duration::from_nanos(moment.0)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment(u64::try_from(self.beginning.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct VirtualClock(AtomicU64);

impl VirtualClock {
    /// A clock that stands at its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }
}

/// The clock that something lives by.
#[derive(Debug, Clone)]
pub enum TimeSource {
    /// The operating system's.
    System(Arc<SystemClock>),
    /// One that a test moves.
    Virtual(Arc<VirtualClock>),
}

impl TimeSource {
    /// The operating system's clock, beginning now.
    pub fn system() -> Self {
        Self::System(Arc::new(SystemClock::new()))
    }

    /// The instant to wait for on the operating system; `None` where a test moves the time, and says so.
    pub fn instant(&self, moment: Moment) -> Option<Instant> {
        match self {
            Self::System(clock) => Some(clock.instant(moment)),
            Self::Virtual(_) => None,
        }
    }
}

impl Clock for TimeSource {
    fn now(&self) -> Moment {
        match self {
            Self::System(clock) => clock.now(),
            Self::Virtual(clock) => clock.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_virtual_clock_moves_only_when_told() {
        let clock = VirtualClock::new();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_millis(5));
        assert_eq!(clock.now().since(start), Duration::from_millis(5));
        assert_eq!(start.since(clock.now()), Duration::ZERO);
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second >= first);
        assert!(clock.instant(second) >= clock.instant(first));
    }
}
