//! What was asked for of late, and what another memory would have made of it.

use super::simulate::{Ask, Loaded, Setup, World};
use super::stats::WhatIf;
use super::{CacheSettings, ModelId, PolicyKind};
use crate::flow::Moment;

/// Accesses that are remembered.
const REMEMBERED: usize = 10_000;

/// The last accesses, found or not.
#[derive(Debug, Default)]
pub(super) struct Recall {
    ring: Vec<(Moment, ModelId)>,
    /// Where the oldest stands, once there is no more room.
    oldest: usize,
}

impl Recall {
    /// A model is asked for.
    pub(super) fn note(&mut self, id: ModelId, now: Moment) {
        if self.ring.len() < REMEMBERED {
            return self.ring.push((now, id));
        }
        if let Some(place) = self.ring.get_mut(self.oldest) {
            *place = (now, id);
            self.oldest = (self.oldest + 1) % REMEMBERED;
        }
    }

    /// The oldest first; and whether that is all there ever were.
    pub(super) fn accesses(&self) -> (Vec<Ask>, bool) {
        let (late, early) = self.ring.split_at_checked(self.oldest).unwrap_or_default();
        let asks = early.iter().chain(late).map(|(at, model)| Ask { at: *at, model: *model, session: None });
        (asks.collect(), self.ring.len() < REMEMBERED)
    }
}

/// All that a replay needs, taken from a cache at one moment.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) settings: CacheSettings,
    /// By their numbers, those that were taken out among them.
    pub(super) models: Vec<Loaded>,
    pub(super) asks: Vec<Ask>,
    /// Nothing came before: the cache was empty.
    pub(super) whole: bool,
}

impl Recording {
    /// Replays it through a cache of that much memory. Loads take what they took on average, and uses no time; nothing is
    /// preloaded. A ranking of the caller's own is not asked: the longest unused goes. Where there was more than is
    /// remembered, the first quarter fills the cache and does not count.
    pub(super) fn replay(self, memory: u64) -> WhatIf {
        let policy = match self.settings.policy {
            PolicyKind::Ranked => PolicyKind::Lru,
            policy => policy,
        };
        let settings = CacheSettings { memory: Some(memory), policy, predict: None, ..self.settings };
        let counted_from = if self.whole { 0 } else { self.asks.len() / 4 };
        let accesses = u64::try_from(self.asks.len() - counted_from).unwrap_or(u64::MAX);
        let nothing = WhatIf { memory, accesses, ..WhatIf::default() };
        // More is pinned than would fit, or nothing would: no such cache can be.
        let Ok(world) = World::new(self.models, self.asks, &Setup::instant(settings)) else { return nothing };
        let (outcome, _) = world.counting_from(counted_from).run();
        WhatIf {
            hits: outcome.hits,
            hit_rate: outcome.hit_rate(),
            load_seconds: outcome.loading.as_secs_f64(),
            ..nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recall = Recall::default();
        let at = |number: u32| Moment::default() + Duration::from_secs(number.into());
        let last = u32::try_from(REMEMBERED).unwrap() + 10;
        (0..10).for_each(|number| recall.note(ModelId(number), at(number)));
        assert_eq!((recall.accesses().0.len(), recall.accesses().1), (10, true));
        (10..last).for_each(|number| recall.note(ModelId(number), at(number)));
        let (asks, whole) = recall.accesses();
        assert!(!whole && asks.len() == REMEMBERED);
        assert!(
            asks.iter().zip(10..).all(|(ask, number)| ask.model == ModelId(number) && ask.at == at(number))
        );
    }
}
