//! A model in use, or the wish for one.

use std::sync::Arc;
use std::time::Duration;

use super::cache::Inside;
use super::{ModelId, Residency};

/// A lease on a model, or a place among those who wait for one. While it lives, what it leases is not unloaded.
///
/// Dropping it gives the lease back, or gives up waiting; what was to be told then is not told any more, unless that is
/// under way on another thread already. It may be dropped on any thread and never waits.
pub struct Claim {
    inside: Arc<Inside>,
    asked: ModelId,
    kind: Kind,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A lease, had at once.
    Hit(Residency, ModelId),
    /// The number of somebody who waits, or waited.
    Waiting(usize),
}

impl Claim {
    pub(super) fn new(inside: Arc<Inside>, asked: ModelId, kind: Kind) -> Self {
        Self { inside, asked, kind }
    }

    /// True where the lease was had at once: nothing is told then.
    pub fn at_once(&self) -> bool {
        matches!(self.kind, Kind::Hit(..))
    }

    /// What it leases; `None` while it waits, and where it waited in vain.
    pub fn residency(&self) -> Option<Residency> {
        match self.kind {
            Kind::Hit(residency, _) => Some(residency),
            Kind::Waiting(entry) => self.inside.look(|state, _| state.entry_residency(entry)),
        }
    }

    /// True where the model was not there when it was asked for.
    pub fn cold(&self) -> bool {
        !self.at_once()
    }

    /// How long it has waited, or had to.
    pub fn waited(&self) -> Duration {
        match self.kind {
            Kind::Hit(..) => Duration::ZERO,
            Kind::Waiting(entry) => self.inside.look(|state, now| state.entry_waited(entry, now)),
        }
    }

    /// The model that it leases or waits for: the fallback, where that was given.
    pub fn model(&self) -> ModelId {
        match self.kind {
            Kind::Hit(_, model) => model,
            Kind::Waiting(entry) => {
                self.inside.look(|state, _| state.entry_model(entry)).unwrap_or(self.asked)
            }
        }
    }

    /// The model that was asked for.
    pub fn asked(&self) -> ModelId {
        self.asked
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inside.give_back(self.kind);
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = out.debug_struct("Claim");
        out.field("asked", &self.asked);
        match self.kind {
            Kind::Hit(residency, _) => out.field("residency", &residency),
            Kind::Waiting(entry) => out.field("waiting", &entry),
        };
        out.finish_non_exhaustive()
    }
}
