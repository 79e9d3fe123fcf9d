//! Who asks, and when.

use std::time::Duration;

use crate::flow::Moment;

/// Requests that come at one moment, whether earlier ones were answered or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Time since the beginning.
    pub at: Duration,
    /// Rows of the request; each waits for itself.
    pub rows: u32,
    /// What each costs.
    pub cost: u32,
    /// Time after which an answer is worth nothing.
    pub timeout: Option<Duration>,
}

/// What is asked of the batcher.
#[derive(Debug, Clone)]
pub enum Load {
    /// Requests at their moments, ascending.
    Open(Vec<Arrival>),
    /// Clients that ask again when they have been answered.
    Closed(Clients),
}

/// Clients of which each has one request out.
#[derive(Debug, Clone)]
pub struct Clients {
    /// How many there are, one phase after the other.
    pub phases: Vec<Phase>,
    /// Time from an answer to the next request of that client, at least.
    pub turnaround: Duration,
    /// It takes up to so much longer, evenly spread.
    pub turnaround_spread: Duration,
    /// What requests cost: one of these each time, by chance; 1 where there are none.
    pub costs: Vec<u32>,
    /// Time after which an answer is worth nothing.
    pub timeout: Option<Duration>,
}

/// So many clients for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// How many.
    pub clients: usize,
    /// For how long.
    pub lasts: Duration,
}

impl Clients {
    /// Clients in these phases that ask again after 100 µs.
    pub fn in_phases(phases: Vec<Phase>) -> Self {
        Self {
            phases,
            turnaround: Duration::from_micros(100),
            turnaround_spread: Duration::ZERO,
            costs: vec![1],
            timeout: None,
        }
    }

    /// How many there are at that moment; none after the last phase.
    pub(super) fn at(&self, moment: Moment) -> usize {
        let mut ends = Moment::default();
        let present = self.phases.iter().find(|phase| {
            ends = ends + phase.lasts;
            moment < ends
        });
        present.map_or(0, |phase| phase.clients)
    }
}

/// Arrivals by chance, so many a second on average; what each costs is drawn from `costs`.
pub fn poisson(
    per_second: f64,
    lasts: Duration,
    costs: &[u32],
    timeout: Option<Duration>,
    seed: u64,
) -> Vec<Arrival> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut seconds = 0.0;
    let next = move || {
        seconds -= (1.0 - rng.f64()).ln() / per_second;
        let at = Duration::try_from_secs_f64(seconds).ok().filter(|at| *at < lasts)?;
        let cost = rng.choice(costs).copied().unwrap_or(1);
        Some(Arrival { at, rows: 1, cost, timeout })
    };
    std::iter::from_fn(next).collect()
}
