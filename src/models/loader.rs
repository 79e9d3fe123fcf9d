//! What a cache needs from outside: somebody who loads and unloads.

use std::sync::Arc;
use std::time::Duration;

use super::{ModelId, Residency};

/// Loads and unloads models. Its methods are called without the cache's lock, one at a time and in the order in which they
/// were decided, on whatever thread moved the cache: they must not block, and hand the work to somebody else.
pub trait Loader: Send + Sync + 'static {
    /// Begin to load a model, and say [`loaded`](super::Cache::loaded) or [`failed`](super::Cache::failed) in the end,
    /// whatever happens. The same residency may come again with a higher `attempt` after a failure.
    fn load(&self, load: Load);

    /// Nobody wants this load any more, or its time is up: stop early where that can be done. `loaded` or `failed` is
    /// still to be said.
    fn cancel(&self, residency: Residency);

    /// Nobody uses this model: let it go, then say [`unloaded`](super::Cache::unloaded).
    fn unload(&self, residency: Residency);

    /// Which of these should leave first? To be answered by [`ranked`](super::Cache::ranked). Only asked under
    /// [`PolicyKind::Ranked`](super::PolicyKind::Ranked).
    fn rank(&self, question: Ranking);

    /// How long the oldest of what it was told has waited for somebody to take it up; zero where nothing waits.
    fn behind(&self) -> Duration {
        Duration::ZERO
    }
}

/// A load that is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// What the model will be known by.
    pub residency: Residency,
    /// Which model.
    pub model: ModelId,
    /// What it is called.
    pub name: Arc<str>,
    /// Which of that name it is.
    pub version: Arc<str>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// What it requires, in the order of its spec. They are there for as long as it is.
    pub requires: Vec<Residency>,
}

/// A question about who should leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// The number to answer with.
    pub question: u64,
    /// Who could leave.
    pub candidates: Vec<Candidate>,
}

/// A model that could leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which load of it.
    pub residency: Residency,
    /// Which model.
    pub model: ModelId,
    /// What it is called.
    pub name: Arc<str>,
    /// Which of that name it is.
    pub version: Arc<str>,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Seconds that a load of it takes.
    pub load_seconds: f64,
    /// Times it was asked for, in all.
    pub uses: u64,
    /// Seconds since it was asked for last, or since it was loaded where it never was.
    pub idle_seconds: f64,
    /// Seconds since it was loaded.
    pub age_seconds: f64,
}
