//! Where a client's next request comes from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::arrivals::Arrivals;
use super::plan::{Mode, Plan};

/// A request that a client has turned to.
pub(super) struct Job {
    pub(super) number: usize,
    /// Where its latency counts from.
    pub(super) since: Instant,
    /// How late the load generator itself was with it, where that can be told.
    pub(super) lag: Option<Duration>,
    /// True for one of the warm-up, which no figure counts.
    pub(super) uncounted: bool,
}

/// What all clients of a run take their requests from.
pub(super) struct Source {
    /// When the warm-up ends.
    counted_from: Instant,
    /// Requests of a closed loop that were taken from it, by all clients together; those of the warm-up apart.
    taken: AtomicUsize,
    warming: AtomicUsize,
    limits: Limits,
}

enum Limits {
    Each { clients: usize, requests: usize },
    All { requests: usize },
    Until(Instant),
    Schedule(Arc<Arrivals>),
}

impl Source {
    /// The requests of a plan whose run begins at `start`. The arrivals are those of an open loop.
    pub(super) fn new(plan: &Plan, start: Instant, arrivals: Option<&Arc<Arrivals>>) -> Option<Self> {
        let counted_from = start + plan.warmup;
        let limits = match plan.mode {
            Mode::Closed { requests_per_client } => {
                Limits::Each { clients: plan.clients, requests: requests_per_client }
            }
            Mode::Shared { requests } => Limits::All { requests },
            Mode::Timed { duration } => Limits::Until(counted_from + duration),
            Mode::Open { .. } => Limits::Schedule(Arc::clone(arrivals?)),
        };
        Some(Self { counted_from, taken: AtomicUsize::new(0), warming: AtomicUsize::new(0), limits })
    }

    /// When the figures begin.
    pub(super) fn counted_from(&self) -> Instant {
        self.counted_from
    }

    /// How many requests the run had to send, as far as it went.
    pub(super) fn planned(&self) -> u64 {
        let planned = match &self.limits {
            Limits::Each { clients, requests } => clients.saturating_mul(*requests),
            Limits::All { requests } => *requests,
            Limits::Until(_) => self.taken.load(Ordering::Relaxed),
            Limits::Schedule(arrivals) => return arrivals.counted(),
        };
        planned as u64
    }
}

/// One client's view of the source.
pub(super) struct Feed {
    source: Arc<Source>,
    client: usize,
    turn: usize,
}

impl Feed {
    pub(super) fn new(source: Arc<Source>, client: usize) -> Self {
        Self { source, client, turn: 0 }
    }

    pub(super) async fn next(&mut self) -> Option<Job> {
        if let Limits::Schedule(arrivals) = &self.source.limits {
            let arrival = arrivals.next().await?;
            let lag = arrival.awaited.then(|| arrival.due.elapsed());
            let uncounted = arrival.due < self.source.counted_from;
            return Some(Job { number: arrival.number, since: arrival.due, lag, uncounted });
        }
        let since = Instant::now();
        if since < self.source.counted_from {
            let number = self.source.warming.fetch_add(1, Ordering::Relaxed);
            return Some(Job { number, since, lag: None, uncounted: true });
        }
        let number = self.take(since)?;
        Some(Job { number, since, lag: None, uncounted: false })
    }

    fn take(&mut self, now: Instant) -> Option<usize> {
        let source = &self.source;
        match source.limits {
            Limits::Each { clients, requests } => {
                // All first requests come before all second ones.
                let number = self.turn * clients + self.client;
                self.turn += 1;
                (self.turn <= requests).then_some(number)
            }
            Limits::All { requests } => {
                let number = source.taken.fetch_add(1, Ordering::Relaxed);
                (number < requests).then_some(number)
            }
            Limits::Until(end) if now < end => Some(source.taken.fetch_add(1, Ordering::Relaxed)),
            Limits::Until(_) | Limits::Schedule(_) => None,
        }
    }
}
