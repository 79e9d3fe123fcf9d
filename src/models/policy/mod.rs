//! Which model goes when there is no room: the order of victims, as plain state.
//!
//! A policy names candidates; whether one may go (nobody uses it, needs it or has pinned it) the owner says, in the same
//! critical section. Nothing is kept out of memory for being cold: who is not let in is loaded again at the next request, and
//! a load takes seconds.

mod facts;
mod gdsf;
mod recency;
mod rhythm;
#[cfg(test)]
mod tests;

pub use facts::{Facts, Uses};
pub use gdsf::Gdsf;
pub use recency::Lru;
pub use rhythm::Rhythm;

use super::ModelId;
use crate::flow::Moment;

/// How victims are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PolicyKind {
    /// The model whose last use is the longest ago.
    #[default]
    Lru,
    /// The model whose memory saves the fewest seconds of loading: see [`Gdsf`].
    Gdsf,
    /// The caller ranks; the longest unused goes where there is no answer.
    Ranked,
}

impl PolicyKind {
    /// As it is written in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Gdsf => "gdsf",
            Self::Ranked => "ranked",
        }
    }

    /// A policy that knows of no model yet.
    pub fn start(self) -> Box<dyn Policy> {
        match self {
            Self::Lru | Self::Ranked => Box::new(Lru::default()),
            Self::Gdsf => Box::new(Gdsf::default()),
        }
    }
}

/// The order in which resident models go.
///
/// It hears of every use, so [`used`](Self::used) is the hit's path and must be cheap; a victim is looked for once a
/// load, and may cost a look at each resident model.
pub trait Policy: Send {
    /// A resident model is used; `facts` know of it already. Of a model and what it needs, what it needs comes first: what is
    /// told of last is the most recent. A model that is not resident is none of the policy's business.
    fn used(&mut self, id: ModelId, facts: &Facts, now: Moment);

    /// A model has become resident, or is resident and has been measured anew.
    fn loaded(&mut self, id: ModelId, facts: &Facts, now: Moment);

    /// A model is no longer resident.
    fn gone(&mut self, id: ModelId, now: Moment);

    /// The model that goes next, of those that may go. It counts as resident until [`gone`](Self::gone).
    fn victim(&mut self, now: Moment, may_go: &dyn Fn(ModelId) -> bool) -> Option<ModelId>;
}
