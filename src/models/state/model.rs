//! A model as the state knows it.

use std::sync::Arc;

use hdrhistogram::Histogram;
use smallvec::SmallVec;

use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Moment, Priority};
use crate::models::policy::Facts;
use crate::models::stats::{Evictions, Preloads};
use crate::models::{Cause, LoadSpec, ModelId, Reason, Residency};

/// Load times are kept to three digits up to a day, in microseconds.
const LONGEST_LOAD: u64 = 24 * 3600 * 1_000_000;

/// A registered model, and what is known of it.
#[expect(clippy::struct_excessive_bools, reason = "four answers that do not depend on one another")]
pub(super) struct Model {
    pub(super) spec: Arc<LoadSpec>,
    /// False once it was taken out.
    pub(super) registered: bool,
    /// The residency that serves.
    pub(super) current: Option<Residency>,
    /// The load that is under way or waits.
    pub(super) pending: Option<Pending>,
    /// A load that runs on though its time is up: there is no other until it ends.
    pub(super) stuck: Option<Residency>,
    /// Somebody said that it stays.
    pub(super) pinned: bool,
    /// It stays, by itself or because one that stays needs it.
    pub(super) kept: bool,
    /// It was to be there from the start and was not ready yet.
    pub(super) expected: bool,
    /// Bytes that it took when it was measured last.
    pub(super) measured: Option<u64>,
    pub(super) facts: Facts,
    /// What the residency that serves needs, directly or not, dependencies first: it is used whenever that one is.
    pub(super) beneath: SmallVec<[ModelId; 4]>,
    /// What became of the last reload, where it failed.
    pub(super) complaint: Option<Arc<str>>,
    pub(super) tally: Tally,
}

impl Model {
    pub(super) fn new(spec: Arc<LoadSpec>) -> Self {
        Self {
            pinned: spec.pinned,
            spec,
            registered: true,
            current: None,
            pending: None,
            stuck: None,
            kept: false,
            expected: false,
            measured: None,
            facts: Facts::default(),
            beneath: SmallVec::new(),
            complaint: None,
            tally: Tally::default(),
        }
    }
}

/// What has happened to a model.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) joins: u64,
    pub(super) loads: u64,
    pub(super) failures: u64,
    pub(super) timeouts: u64,
    pub(super) cancelled: u64,
    pub(super) evictions: Evictions,
    /// Why the last residency ended, how long it was ready in nanoseconds since it was, and when it ended.
    pub(super) last_eviction: Option<(Reason, std::time::Duration, Moment)>,
}

/// A load that somebody wants: one for each model, however many want it.
pub(super) struct Pending {
    pub(super) residency: Residency,
    /// Who waits for it, by number.
    pub(super) waiters: Vec<usize>,
    /// How many of them wait with each priority.
    pub(super) urgency: [usize; Priority::COUNT],
    /// Preloads that it belongs to.
    pub(super) preloads: Vec<(usize, Cause, Priority)>,
    /// Preloads that want it loaded once more after this.
    pub(super) again: Vec<(usize, Cause, Priority)>,
    /// Since when it has stood first in the line for memory.
    pub(super) short_since: Option<Moment>,
}

impl Pending {
    pub(super) fn new(residency: Residency) -> Self {
        Self {
            residency,
            waiters: Vec::new(),
            urgency: [0; Priority::COUNT],
            preloads: Vec::new(),
            again: Vec::new(),
            short_since: None,
        }
    }

    /// True where somebody wants this very model, and not only another that needs it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiters.is_empty() || !self.preloads.is_empty() || !self.again.is_empty()
    }

    /// True where all that want it only guess that it will be asked for.
    pub(super) fn is_guess(&self) -> bool {
        let guessed = |(_, cause, _): &(usize, Cause, Priority)| *cause == Cause::Predicted;
        self.waiters.is_empty() && !self.preloads.is_empty() && self.preloads.iter().all(guessed)
    }
}

/// What is counted for the cache as a whole.
pub(super) struct Counts {
    pub(super) retries: u64,
    /// Questions that the loader was asked.
    pub(super) questions: u64,
    pub(super) preloads: Preloads,
    /// Seconds that loads have waited before they began.
    pub(super) queue_seconds: f64,
    /// Seconds that loads have taken, those that failed and those that were taken back among them.
    pub(super) paid_seconds: f64,
    pub(super) load_seconds: f64,
    pub(super) load_times: Histogram<u64>,
    /// Bytes of what was measured and how often, for models of which nothing is known.
    pub(super) measured: (u128, u64),
}

impl Counts {
    pub(super) fn new() -> Result<Self> {
        let load_times = Histogram::new_with_bounds(1, LONGEST_LOAD, 3).map_err(|error| {
            Error::with_source(ErrorKind::Internal, "a histogram of load times cannot be made", error)
        })?;
        Ok(Self {
            retries: 0,
            questions: 0,
            preloads: Preloads::default(),
            queue_seconds: 0.0,
            paid_seconds: 0.0,
            load_seconds: 0.0,
            load_times,
            measured: (0, 0),
        })
    }

    pub(super) fn loaded(&mut self, took: std::time::Duration) {
        self.load_seconds += took.as_secs_f64();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.load_times.saturating_record(micros.max(1));
    }
}
