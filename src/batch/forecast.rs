//! When a request that comes now would be answered: a pure function of what waits, what runs, and what was learned.

use std::time::Duration;

use smallvec::SmallVec;

use super::Learned;

/// What stands before a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows that go before it.
    pub rows: usize,
    /// What they cost.
    pub cost: u64,
    /// Workers that take batches.
    pub workers: usize,
    /// For each batch that runs, how much longer it is expected to.
    pub running: SmallVec<[Duration; 4]>,
}

/// In how long a request of that cost would be answered; `None` while too little is known.
pub fn finish_in(_learned: &Learned, _backlog: &Backlog, _cost: u64) -> Option<Duration> {
    None
}
