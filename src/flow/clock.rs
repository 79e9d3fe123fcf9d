//! Time as a number that policies can reason about, and clocks that supply it.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Monitor;

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

/// The clock of the runtime's timers: the operating system's, unless a test has paused it.
#[derive(Debug)]
pub struct RuntimeClock {
    beginning: tokio::time::Instant,
}

impl RuntimeClock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self { beginning: tokio::time::Instant::now() }
    }
}

impl Default for RuntimeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Moment {
        Moment(u64::try_from(self.beginning.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Somebody who waits for a moment of a clock that a test moves.
pub trait OnMove: Send + Sync {
    /// The clock has moved: what was waited for may have come.
    fn moved(&self);
}

/// Whoever waits on the state is woken to look at the clock again.
impl<T: Send> OnMove for Monitor<T> {
    fn moved(&self) {
        // Who has read the old time and holds the lock still is asleep, or has seen the new one, once it is ours.
        drop(self.lock());
        self.wake_all();
    }
}

/// A clock that stands still until it is told to move.
#[derive(Default)]
pub struct VirtualClock {
    nanos: AtomicU64,
    waiting: Monitor<Vec<Weak<dyn OnMove>>>,
}

impl VirtualClock {
    /// A clock that stands at its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward and tells everyone who waits.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let moved = |now: u64| Some(now.saturating_add(nanos));
        // It always moves: the closure never refuses.
        let _ = self.nanos.fetch_update(Ordering::AcqRel, Ordering::Acquire, moved);
        self.tell();
    }

    /// Moves the clock forward to a moment; a moment that has passed leaves it where it is.
    pub fn advance_to(&self, moment: Moment) {
        self.nanos.fetch_max(moment.0, Ordering::AcqRel);
        self.tell();
    }

    /// Has `waiting` told whenever the clock has moved, for as long as it lives.
    pub fn on_move(&self, waiting: Weak<dyn OnMove>) {
        let mut known = self.waiting.lock();
        known.retain(|other| other.strong_count() > 0);
        known.push(waiting);
    }

    fn tell(&self) {
        let waiting: Vec<_> = self.waiting.lock().iter().filter_map(Weak::upgrade).collect();
        // Not under the lock: whoever is told takes a lock of its own.
        for waiting in &waiting {
            waiting.moved();
        }
    }
}

impl std::fmt::Debug for VirtualClock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("VirtualClock").field(&self.now()).finish()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Moment {
        Moment(self.nanos.load(Ordering::Acquire))
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
    fn moving_the_clock_wakes_whoever_waits_for_it() {
        let clock = Arc::new(VirtualClock::new());
        let woken = Arc::new(Monitor::new(()));
        clock.on_move(Arc::downgrade(&woken) as Weak<dyn OnMove>);
        let sleeper = std::thread::spawn({
            let (clock, woken) = (Arc::clone(&clock), Arc::clone(&woken));
            move || {
                let mut held = woken.lock();
                while clock.now() < Moment::from_nanos(5) {
                    held = woken.wait(held, None);
                }
            }
        });
        clock.advance_to(Moment::from_nanos(3));
        clock.advance_to(Moment::from_nanos(2));
        assert_eq!(clock.now(), Moment::from_nanos(3));
        clock.advance(Duration::from_nanos(2));
        sleeper.join().unwrap();
        drop(woken);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Moment::from_nanos(u64::MAX));
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
