//! What happened in a pool, in numbers, and why a request waits, in words.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::Place;
use crate::error::{Error, ErrorKind, Result};

/// Why a connection took no more requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retired {
    /// It was idle for `idle_timeout`, and more were open than `min_size` asks for.
    Idle,
    /// It was open for `max_age`.
    Age,
    /// The server had said that it would close it soon.
    KeepAlive,
    /// A health check failed.
    Health,
    /// The other side closed it.
    Broken,
    /// The other side said that it takes no more.
    Draining,
    /// Its last exchange made it useless, `connection: close` for one.
    Spent,
    /// Its lease ended in the middle of an exchange.
    Abandoned,
    /// The pool was closed.
    Closed,
}

impl Retired {
    /// Every reason, in the order of [`PoolStats::retired`].
    pub const ALL: [Self; 9] = [
        Self::Idle,
        Self::Age,
        Self::KeepAlive,
        Self::Health,
        Self::Broken,
        Self::Draining,
        Self::Spent,
        Self::Abandoned,
        Self::Closed,
    ];

    /// Its name in statistics and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Age => "age",
            Self::KeepAlive => "keep_alive",
            Self::Health => "health",
            Self::Broken => "broken",
            Self::Draining => "draining",
            Self::Spent => "spent",
            Self::Abandoned => "abandoned",
            Self::Closed => "closed",
        }
    }
}

/// A snapshot of a pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolStats {
    /// Connections that are open.
    pub size: usize,
    /// Of these, how many carry nothing and may be taken.
    pub idle: usize,
    /// Of these, how many carry a request.
    pub in_use: usize,
    /// Leases that have not ended; more than `in_use` where connections are shared.
    pub leases: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Connections that are being opened.
    pub connecting: usize,
    /// Connections that were opened.
    pub created: u64,
    /// Connections that could not be opened.
    pub failed: u64,
    /// Leases that were given.
    pub acquired: u64,
    /// Of these, how many got a connection that had carried a request before.
    pub reused: u64,
    /// Of these, how many had to wait.
    pub waited: u64,
    /// Requests that waited until their time was up.
    pub timed_out: u64,
    /// Requests that left while they waited.
    pub cancelled: u64,
    /// Requests that were told why no connection could be opened.
    pub refused: u64,
    /// Health checks that went well.
    pub checks_passed: u64,
    /// Health checks that failed.
    pub checks_failed: u64,
    /// Leases that were held for longer than `held_too_long`.
    pub held_too_long: u64,
    /// Connections that took no more requests, by why, in the order of [`Retired::ALL`].
    pub retired: [u64; Retired::ALL.len()],
    /// The mean wait for a lease; those that were had at once count as zero.
    pub wait_mean: Duration,
    /// The wait that half of all leases did not exceed.
    pub wait_p50: Duration,
    /// The wait that 99 % of all leases did not exceed.
    pub wait_p99: Duration,
    /// The longest wait for a lease.
    pub wait_max: Duration,
}

impl PoolStats {
    /// Share of leases that reused a connection; 0 before the first.
    #[allow(clippy::cast_precision_loss, reason = "counters stay far below 2^52")]
    pub fn reuse_rate(&self) -> f64 {
        if self.acquired == 0 { 0.0 } else { self.reused as f64 / self.acquired as f64 }
    }

    /// Fills in how long leases were waited for.
    pub(super) fn with_waits(self, waits: &Histogram<u64>) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of times is within them"
        )]
        let mean = waits.mean() as u64;
        Self {
            wait_mean: Duration::from_micros(mean),
            wait_p50: Duration::from_micros(waits.value_at_quantile(0.5)),
            wait_p99: Duration::from_micros(waits.value_at_quantile(0.99)),
            wait_max: Duration::from_micros(waits.max()),
            ..self
        }
    }

    /// Connections that were retired for `reason`.
    pub fn retired_for(&self, reason: Retired) -> u64 {
        let counts = Retired::ALL.iter().zip(self.retired);
        counts.filter(|(candidate, _)| **candidate == reason).map(|(_, count)| count).sum()
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Every connection is in use, and no more may be opened.
    AtMax,
    /// Every connection carries as many streams as it can, and no more may be opened.
    StreamsFull,
    /// A connection is being opened.
    Connecting,
    /// The last connect failed, and the next begins after a pause.
    BackingOff,
    /// The idle connections are being checked.
    Checking,
    /// The pool is closed.
    Closed,
}

impl Display for Obstacle {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::AtMax => "every connection is in use and max_size are open",
            Self::StreamsFull => "every connection is full of streams and max_size are open",
            Self::Connecting => "a connection is being opened",
            Self::BackingOff => "the last connect failed and the next begins after a pause",
            Self::Checking => "the idle connections are being checked",
            Self::Closed => "the pool is closed",
        })
    }
}

/// A lease that has not ended, for whoever asks who holds the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// Where it was taken.
    pub place: Place,
    /// For how long it has been held.
    pub age: Duration,
}

/// Why requests wait, and who holds what they wait for.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What stands in the way; `None` where a request would be served at once or would open a connection.
    pub obstacle: Option<Obstacle>,
    /// Requests that wait.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest: Option<Duration>,
    /// Why the last connect failed, unless one has succeeded since.
    pub last_error: Option<Error>,
    /// When the next connect may begin, where the last failed.
    pub retry_in: Option<Duration>,
    /// The leases that were held for longest, the longest first; ten at most.
    pub held: Vec<HeldLease>,
}

/// Most leases in an [`Explanation`].
pub(super) const HELD_SHOWN: usize = 10;
/// Waits are kept in microseconds from 1 to this; a longer one counts as this.
const LONGEST_WAIT: u64 = 3_600_000_000;

/// What is counted as it happens.
pub(super) struct Counts {
    /// Only the fields that count; those that tell how things stand now are filled in when somebody asks.
    pub(super) totals: PoolStats,
    /// Microseconds, of those that waited alone.
    waits: Histogram<u64>,
}

impl Counts {
    pub(super) fn new() -> Result<Self> {
        let waits = Histogram::new_with_bounds(1, LONGEST_WAIT, 2)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "no histogram could be made", error))?;
        Ok(Self { totals: PoolStats::default(), waits })
    }

    pub(super) fn acquired(&mut self, reused: bool) {
        self.totals.acquired += 1;
        self.totals.reused += u64::from(reused);
    }

    pub(super) fn waited(&mut self, wait: Duration) {
        self.totals.waited += 1;
        self.waits.saturating_record(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn retired(&mut self, reason: Retired) {
        for (count, candidate) in self.totals.retired.iter_mut().zip(Retired::ALL) {
            *count += u64::from(candidate == reason);
        }
    }

    /// Every wait for a lease, in microseconds, those that were had at once as zero.
    pub(super) fn waits(&self) -> Histogram<u64> {
        let mut waits = self.waits.clone();
        // Zero is within its bounds.
        let _ = waits.record_n(0, self.totals.acquired.saturating_sub(self.totals.waited));
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_that_were_none_count_as_zero() {
        let mut counts = Counts::new().unwrap();
        for _ in 0..99 {
            counts.acquired(true);
        }
        counts.acquired(false);
        counts.waited(Duration::from_millis(100));
        counts.retired(Retired::Age);
        let stats = counts.totals.clone().with_waits(&counts.waits());
        assert_eq!((stats.wait_p50, stats.waited), (Duration::ZERO, 1));
        assert!((stats.wait_max.as_secs_f64() - 0.1).abs() < 0.001);
        assert!((stats.wait_mean.as_secs_f64() - 0.001).abs() < 0.000_1);
        assert!((stats.reuse_rate() - 0.99).abs() < 1e-9);
        assert_eq!((stats.retired_for(Retired::Age), stats.retired_for(Retired::Idle)), (1, 0));
    }
}
