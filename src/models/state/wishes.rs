//! What is loaded because it is expected to be asked for, and what stays for the same reason.

use std::time::Duration;

use ahash::RandomState;

use super::{Stage, State};
use crate::error::Result;
use crate::flow::{Moment, Priority};
use crate::models::predict::{PredictReport, Predictor, Prospect};
use crate::models::{CacheSettings, Cause, ModelId};

/// What prediction keeps between calls; nothing where it was not asked for.
pub(super) struct Wishes {
    predictor: Option<Box<Predictor>>,
    keys: RandomState,
}

impl Wishes {
    pub(super) fn new(settings: &CacheSettings) -> Result<Self> {
        let predictor = settings.predict.map(Predictor::new).transpose()?.map(Box::new);
        Ok(Self { predictor, keys: RandomState::new() })
    }

    /// A model is asked for, found or not. On the hit's path.
    pub(super) fn note(&mut self, id: ModelId, session: Option<&str>, now: Moment) {
        if let Some(predictor) = &mut self.predictor {
            predictor.note(now, id, session.map(|session| self.keys.hash_one(session)));
        }
    }

    /// When prediction wants to be asked again.
    pub(super) fn due(&self) -> Option<Moment> {
        self.predictor.as_ref()?.next()
    }

    /// A load has begun.
    pub(super) fn begun(&mut self, id: ModelId, now: Moment) {
        if let Some(predictor) = &mut self.predictor {
            predictor.begun(now, id);
        }
    }

    /// A model has left; where that was for space, after lying idle for so long.
    pub(super) fn gone(&mut self, id: ModelId, idle: Option<Duration>, now: Moment) {
        if let Some(predictor) = &mut self.predictor {
            predictor.gone(now, id, idle);
        }
    }

    /// True where some models had better leave before others, and some stay.
    pub(super) fn are_minded(&self) -> bool {
        self.predictor.as_ref().is_some_and(|predictor| predictor.is_on())
    }

    /// True for a model that will not be asked for as long as it could stay.
    pub(super) fn is_spent(&self, id: ModelId, now: Moment) -> bool {
        self.predictor.as_ref().is_some_and(|predictor| predictor.is_spent(now, id))
    }

    /// True for a model that will probably be asked for soon.
    pub(super) fn keep(&self, id: ModelId, now: Moment) -> bool {
        self.predictor.as_ref().is_some_and(|predictor| predictor.keeps(now, id))
    }

    /// What prediction says of itself.
    pub(super) fn report(&self) -> Option<PredictReport> {
        self.predictor.as_ref().map(|predictor| predictor.report())
    }
}

impl State {
    /// Loads what is expected.
    pub(super) fn wish(&mut self, now: Moment) {
        if self.closing.is_some() || self.wishes.due().is_none_or(|due| due > now) {
            return;
        }
        let Some(mut predictor) = self.wishes.predictor.take() else { return };
        let is_over = |id: &ModelId| self.current(*id).is_none() && self.coming(*id).is_none();
        let over: Vec<_> = predictor.waiting().filter(is_over).collect();
        for id in over {
            predictor.gone(now, id, None);
        }
        let wishes = predictor.wishes(now, self.settings.memory, &|id| self.prospect(id, now));
        for wish in &wishes {
            predictor.granted(wish);
        }
        self.wishes.predictor = Some(predictor);
        for wish in wishes {
            let number = self.open_preload(vec![wish.model]);
            self.preload_one(number, wish.model, Cause::Predicted, Priority::Low, now);
            self.close_if_settled(number);
            self.preload_forget(number);
        }
    }

    /// What a load of a model would take, where it could be loaded, and has been.
    fn prospect(&self, id: ModelId, now: Moment) -> Option<Prospect> {
        let model = self.model(id)?;
        let there = model.current.is_some() || model.pending.is_some() || model.stuck.is_some();
        if there || model.facts.load_seconds <= 0.0 {
            return None;
        }
        let mut prospect = Prospect { bytes: 0, load_seconds: 0.0 };
        for needed in self.graph.closure(&[id]).ok()? {
            if self.failures.standing(needed, now).is_some() {
                return None;
            }
            let is_there = self
                .current(needed)
                .or_else(|| self.coming(needed).filter(|coming| self.has_memory(*coming)));
            if is_there.is_none() {
                prospect.bytes = prospect.bytes.saturating_add(self.estimate(needed));
                prospect.load_seconds += self.models.get(needed.0 as usize)?.facts.load_seconds;
            }
        }
        Some(prospect)
    }

    fn has_memory(&self, residency: crate::models::Residency) -> bool {
        self.stage(residency).is_some_and(Stage::has_memory)
    }

    /// True where `victim` is worth less than what `wanted`, which nobody has asked for yet, would bring: seconds of loading,
    /// each with the chance that they are needed.
    pub(super) fn worth_less(&self, victim: ModelId, wanted: ModelId) -> bool {
        let Some(predictor) = &self.wishes.predictor else { return false };
        let load_seconds = self.models.get(victim.0 as usize).map_or(0.0, |model| model.facts.load_seconds);
        predictor.likely(victim) * load_seconds < predictor.saves(wanted)
    }
}
