//! When the requests of an open loop fall due, and who takes them.

use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::alarm::Alarm;
use super::plan::Spacing;
use crate::error::Result;

/// The moments at which requests fall due, counted from the start of the run.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    rate_per_second: f64,
    duration: Duration,
    gaps: Gaps,
}

/// What the next moment follows from.
#[derive(Debug, Clone)]
enum Gaps {
    /// The moment is computed from the number of those before it: adding up gaps would drift.
    Constant {
        passed: f64,
    },
    Poisson {
        random: fastrand::Rng,
        last_seconds: f64,
    },
}

impl Schedule {
    pub(super) fn new(rate_per_second: f64, duration: Duration, spacing: Spacing) -> Self {
        let gaps = match spacing {
            Spacing::Constant => Gaps::Constant { passed: 0.0 },
            Spacing::Poisson { seed } => {
                Gaps::Poisson { random: fastrand::Rng::with_seed(seed), last_seconds: 0.0 }
            }
        };
        Self { rate_per_second, duration, gaps }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match &mut self.gaps {
            Gaps::Constant { passed } => {
                let seconds = *passed / self.rate_per_second;
                *passed += 1.0;
                seconds
            }
            Gaps::Poisson { random, last_seconds } => {
                *last_seconds -= (1.0 - random.f64()).ln() / self.rate_per_second;
                *last_seconds
            }
        };
        Duration::try_from_secs_f64(seconds).ok().filter(|due| *due < self.duration)
    }
}

/// A request that fell due.
pub(super) struct Arrival {
    /// Its place in the schedule, from 0.
    pub(super) number: usize,
    /// When it fell due.
    pub(super) due: Instant,
    /// True where a client was waiting for it, so that any lateness is the load generator's own.
    pub(super) awaited: bool,
}

/// Hands requests that fell due to whichever client asks next.
///
/// The clients walk the same schedule as the task that paces it; a permit stands for a request that fell due. So the
/// queue of a server that falls behind is a number, and costs no memory.
pub(super) struct Arrivals {
    start: Instant,
    ahead: Mutex<std::iter::Enumerate<Schedule>>,
    permits: Semaphore,
    /// Requests that fell due so far and count; those of the warm-up do not.
    counted: AtomicU64,
    counted_from: Duration,
    /// Requests that waited for a client when the last one had fallen due.
    backlog: AtomicU64,
}

impl Arrivals {
    /// The next request, when it has fallen due; none when the schedule is at its end.
    ///
    /// Dropping the future loses no request.
    pub(super) async fn next(&self) -> Option<Arrival> {
        let awaited = self.permits.available_permits() == 0;
        self.permits.acquire().await.ok()?.forget();
        let (number, due) = self.ahead.lock().next()?;
        Some(Arrival { number, due: self.start + due, awaited })
    }

    /// How many requests have fallen due so far, those of the warm-up left out.
    pub(super) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// How many requests waited for a client when the last one had fallen due.
    pub(super) fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Hands out what has fallen due by now, and says when the next request does; none at the end of the schedule.
    fn release(&self, upcoming: &mut Peekable<Schedule>) -> Option<Instant> {
        let now = self.start.elapsed();
        let (mut fallen_due, mut counted) = (0, 0);
        while let Some(due) = upcoming.next_if(|due| *due <= now) {
            fallen_due += 1;
            counted += u64::from(due >= self.counted_from);
        }
        self.counted.fetch_add(counted, Ordering::Relaxed);
        self.permits.add_permits(fallen_due);
        upcoming.peek().map(|due| self.start + *due)
    }

    /// Releases requests as they fall due, until the schedule ends.
    async fn pace(&self, schedule: Schedule, alarm: Alarm, clients: usize) -> Result<()> {
        let mut upcoming = schedule.peekable();
        while let Some(due) = self.release(&mut upcoming) {
            alarm.wait_until(due).await?;
        }
        self.backlog.store(self.permits.available_permits() as u64, Ordering::Relaxed);
        // Past the end of the schedule, one permit for each client lets it find out.
        self.permits.add_permits(clients);
        Ok(())
    }
}

/// Owns the task that paces arrivals; dropping it ends the task.
pub(super) struct Pacer {
    arrivals: Arc<Arrivals>,
    task: JoinSet<Result<()>>,
}

impl Pacer {
    /// Paces the schedule from `start` on, for that many clients; what falls due within the warm-up is not counted.
    pub(super) fn start(
        schedule: Schedule,
        start: Instant,
        clients: usize,
        warmup: Duration,
    ) -> Result<Self> {
        let alarm = Alarm::new()?;
        let arrivals = Arc::new(Arrivals {
            start,
            ahead: Mutex::new(schedule.clone().enumerate()),
            permits: Semaphore::new(0),
            counted: AtomicU64::new(0),
            counted_from: warmup,
            backlog: AtomicU64::new(0),
        });
        let paced = Arc::clone(&arrivals);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let ended = paced.pace(schedule, alarm, clients).await;
            if ended.is_err() {
                // Nobody waits for what never falls due.
                paced.permits.close();
            }
            ended
        });
        Ok(Self { arrivals, task })
    }

    pub(super) fn arrivals(&self) -> &Arc<Arrivals> {
        &self.arrivals
    }

    /// Fails where the pacing did.
    pub(super) fn finish(mut self) -> Result<()> {
        self.task.try_join_next().and_then(std::result::Result::ok).unwrap_or(Ok(()))
    }
}
