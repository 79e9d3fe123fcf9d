//! Wanting a model that is not there, and wanting it no more.

use std::sync::Arc;

use super::model::Pending;
use super::resident::{Resident, Stage};
use super::{Effect, State};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Moment, Priority};
use crate::models::failures::explain;
use crate::models::queue::{Class, Want};
use crate::models::{Cause, ModelId, Reason, Residency};

impl State {
    /// The load of a model is wanted: one that is wanted already is that one.
    pub(super) fn want(&mut self, id: ModelId, now: Moment) -> Result<()> {
        if self.coming(id).is_some() {
            return Ok(());
        }
        self.refusal(id, now)?;
        self.enter(id, now);
        Ok(())
    }

    /// Puts a model in the queue, whatever is known of it.
    pub(super) fn enter(&mut self, id: ModelId, now: Moment) -> Option<Residency> {
        let spec = Arc::clone(&self.model(id)?.spec);
        let residency = self.residents.insert(Resident::new(id, spec, now));
        self.known(id)?.pending = Some(Pending::new(residency));
        self.pending.insert(id);
        self.changed = true;
        Some(residency)
    }

    /// What keeps a model from being loaded now, known before anything is tried.
    pub(super) fn refusal(&self, id: ModelId, now: Moment) -> Result<()> {
        let closure = self.graph.closure(&[id])?;
        for needed in &closure {
            if *needed != id && self.current(*needed).is_some() {
                continue;
            }
            let stuck = self.models.get(needed.0 as usize).is_some_and(|model| model.stuck.is_some());
            let failure = self.failures.standing(*needed, now).or_else(|| {
                let last = self.failures.last(*needed);
                last.filter(|_| stuck)
            });
            if let Some(failure) = failure {
                let wait = failure.until.since(now);
                return Err(explain(&self.chain(id, *needed, &closure), &failure.error, Some(wait)));
            }
        }
        self.fits_at_all(id, &closure)
    }

    /// The models on the way from one to another that it needs, as they stand in texts.
    pub(super) fn chain(&self, from: ModelId, to: ModelId, closure: &[ModelId]) -> Vec<Arc<str>> {
        let mut chain = vec![to];
        // Dependents stand behind what they need: one look through the rest finds the way.
        let after = closure.iter().skip_while(|id| **id != to).skip(1);
        let mut reaches: Vec<(ModelId, ModelId)> = Vec::new();
        for id in after {
            let needs = self.graph.requires(*id).unwrap_or_default();
            let next =
                needs.into_iter().find(|need| *need == to || reaches.iter().any(|(from, _)| from == need));
            if let Some(next) = next {
                reaches.push((*id, next));
            }
        }
        let mut way = vec![from];
        while let Some(last) = way.last().copied().filter(|last| *last != to) {
            let Some((_, next)) = reaches.iter().find(|(from, _)| *from == last) else { break };
            way.push(*next);
        }
        if way.last() == Some(&to) {
            chain = way;
        } else {
            chain.insert(0, from);
        }
        chain.dedup();
        chain.into_iter().map(|id| self.label(id)).collect()
    }

    pub(super) fn label(&self, id: ModelId) -> Arc<str> {
        self.graph.label(id)
    }

    /// Brings the queue up to date: who wants what, and how much waits behind it.
    pub(super) fn sort_queue(&mut self, now: Moment) {
        let mut order: Vec<ModelId> = Vec::new();
        let mut wants = vec![None::<Want>; self.models.len()];
        let mut seen = vec![false; self.models.len()];
        for id in &self.pending {
            for needed in self.graph.closure(&[*id]).unwrap_or_else(|_| vec![*id]) {
                if let Some(seen) = seen.get_mut(needed.0 as usize).filter(|seen| !**seen) {
                    *seen = true;
                    order.push(needed);
                }
            }
        }
        for id in order.iter().rev() {
            let Some(want) = self.with_own_want(*id, wants.get(id.0 as usize).copied().flatten(), now) else {
                continue;
            };
            if let Some(place) = wants.get_mut(id.0 as usize) {
                *place = Some(want);
            }
            for needed in self.graph.requires(*id).unwrap_or_default() {
                if let Some(place) = wants.get_mut(needed.0 as usize) {
                    let inherited = want.of_dependencies();
                    *place = Some(place.map_or(inherited, |known| known.with(inherited)));
                }
            }
        }
        self.inherit_held(&mut wants);
        let ranks = self.graph.ranks(&order, |id| self.cost(id));
        for (id, rank) in order.iter().zip(ranks) {
            let Some(residency) = self.coming(*id) else { continue };
            let Some(want) = wants.get(id.0 as usize).copied().flatten() else { continue };
            if self.stage(residency).is_some_and(Stage::waits) {
                self.queue.set(residency, want, rank);
            }
        }
    }

    /// What a load that has its memory holds is wanted as it is, whatever its references lead to by now.
    fn inherit_held(&self, wants: &mut [Option<Want>]) {
        let mut open: Vec<ModelId> = self.pending.iter().copied().collect();
        while let Some(id) = open.pop() {
            let Some(inherited) = wants.get(id.0 as usize).copied().flatten().map(Want::of_dependencies)
            else {
                continue;
            };
            let held = self.coming(id).and_then(|residency| self.residents.get(residency));
            for needed in held.into_iter().flat_map(|held| held.requires.iter().copied()) {
                let queued = self.residents.get(needed).filter(|resident| resident.stage.waits());
                let Some(needed) = queued.map(|resident| resident.model) else { continue };
                let Some(place) = wants.get_mut(needed.0 as usize) else { continue };
                let together = place.map_or(inherited, |known| known.with(inherited));
                if *place != Some(together) {
                    *place = Some(together);
                    open.push(needed);
                }
            }
        }
    }

    /// Seconds that are still to be spent on a model before what needs it can begin.
    fn cost(&self, id: ModelId) -> f64 {
        let Some(model) = self.models.get(id.0 as usize) else { return 0.0 };
        if model.pending.is_none() && model.current.is_some() {
            return 0.0;
        }
        if model.facts.load_seconds > 0.0 { model.facts.load_seconds } else { self.usual_seconds() }
    }

    /// What a load takes that was never measured.
    pub(super) fn usual_seconds(&self) -> f64 {
        let loads = self.counts.load_times.len();
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let loads = loads as f64;
        if loads > 0.0 { self.counts.load_seconds / loads } else { 1.0 }
    }

    /// What others want of a model and what it is wanted for itself, together.
    fn with_own_want(&self, id: ModelId, inherited: Option<Want>, now: Moment) -> Option<Want> {
        let own = self.models.get(id.0 as usize)?.pending.as_ref().and_then(|pending| {
            let since = self.residents.get(pending.residency).map_or(now, |resident| resident.since);
            let live =
                Priority::ALL.into_iter().find(|priority| pending.urgency.get(*priority as usize) > Some(&0));
            let live = live.map(|priority| (Class::Live, priority));
            let preloads = pending.preloads.iter().chain(&pending.again);
            let preloads = preloads.map(|(_, cause, priority)| match cause {
                Cause::Predicted => (Class::Predicted, *priority),
                Cause::Start | Cause::Preload => (Class::Preload, *priority),
            });
            let (class, priority) = live.into_iter().chain(preloads).min()?;
            Some(Want { class, priority, since })
        });
        match (own, inherited) {
            (Some(own), Some(inherited)) => Some(own.with(inherited)),
            (own, inherited) => own.or(inherited),
        }
    }

    /// Takes a load out that waits and that nobody wants any more, and what only it needed.
    pub(super) fn drop_unwanted(&mut self, id: ModelId, now: Moment) {
        let Some(pending) = self.models.get(id.0 as usize).and_then(|model| model.pending.as_ref()) else {
            return;
        };
        let residency = pending.residency;
        let Some(resident) = self.residents.get(residency) else { return };
        if pending.is_wanted() || !resident.holders.is_empty() || !resident.stage.waits() {
            return;
        }
        if let Some(model) = self.known(id) {
            model.pending = None;
            model.tally.cancelled += 1;
        }
        self.pending.remove(&id);
        self.discard(residency, now);
    }

    /// A residency that is not loaded, or not any more, is over; what it held is free of it.
    pub(super) fn discard(&mut self, residency: Residency, now: Moment) {
        self.put(residency, Stage::Queued, 0);
        self.queue.remove(residency);
        let Some(resident) = self.residents.remove(residency) else { return };
        for needed in resident.requires {
            self.let_go(needed, residency, now);
        }
        self.changed = true;
        self.drained(residency);
    }

    /// `holder` needs this one no longer, once.
    pub(super) fn let_go(&mut self, needed: Residency, holder: Residency, now: Moment) {
        let Some(resident) = self.residents.get_mut(needed) else { return };
        if let Some(at) = resident.holders.iter().position(|other| *other == holder) {
            resident.holders.swap_remove(at);
        }
        let (id, stage) = (resident.model, resident.stage);
        if stage == Stage::Draining {
            self.unload_if_free(needed, now);
        } else if stage.waits() && self.coming(id) == Some(needed) {
            self.drop_unwanted(id, now);
        }
    }

    /// Takes the memory of a load back that has not begun: it stands in the line for memory again.
    pub(super) fn revoke(&mut self, residency: Residency, now: Moment) {
        if !self.stage(residency).is_some_and(|stage| stage.waits() && stage.has_memory()) {
            return;
        }
        // Nothing can be begun on top of it, either.
        let holders =
            self.residents.get(residency).map(|resident| resident.holders.clone()).unwrap_or_default();
        holders.into_iter().for_each(|holder| self.revoke(holder, now));
        self.put(residency, Stage::Queued, 0);
        let Some(resident) = self.residents.get_mut(residency) else { return };
        let id = resident.model;
        for needed in std::mem::take(&mut resident.requires) {
            self.let_go(needed, residency, now);
        }
        self.drop_unwanted(id, now);
    }

    /// Begins the wanted load of a model anew, with what is registered now; whoever waits goes on waiting.
    pub(super) fn restart(&mut self, id: ModelId, reason: Reason, now: Moment) {
        let Some(residency) = self.coming(id) else { return };
        let holders =
            self.residents.get(residency).map(|resident| resident.holders.clone()).unwrap_or_default();
        holders.into_iter().for_each(|holder| self.revoke(holder, now));
        // It may have gone with those that needed it.
        if self.coming(id) != Some(residency) {
            return;
        }
        let Some(spec) = self.model(id).map(|model| Arc::clone(&model.spec)) else { return };
        let since = self.residents.get(residency).map_or(now, |resident| resident.since);
        let mut fresh = Resident::new(id, spec, now);
        fresh.since = since;
        let fresh = self.residents.insert(fresh);
        if let Some(pending) = self.known(id).and_then(|model| model.pending.as_mut()) {
            (pending.residency, pending.short_since) = (fresh, None);
        }
        self.abandon(residency, reason, now);
        // Whoever had it loaded may have left since it began.
        self.drop_unwanted(id, now);
    }

    /// Gives a load up that no model's wish leads to any more: one that runs is cancelled, and its value unloaded.
    pub(super) fn abandon(&mut self, residency: Residency, reason: Reason, now: Moment) {
        let Some(resident) = self.residents.get_mut(residency) else { return };
        let id = resident.model;
        if resident.stage.waits() {
            self.discard(residency, now);
        } else if resident.stage.runs() && resident.unwanted.is_none() {
            resident.unwanted = Some(reason);
            if !resident.stuck {
                self.out.push_back(Effect::Cancel(residency));
            }
        } else {
            return;
        }
        if let Some(model) = self.known(id) {
            model.tally.cancelled += 1;
        }
    }

    /// Nobody gets the load of a model that is wanted: everybody is told, and it is given up.
    pub(super) fn cancel(&mut self, id: ModelId, error: &Error, reason: Reason, now: Moment) {
        let Some(pending) = self.known(id).and_then(|model| model.pending.as_mut()) else { return };
        let again = std::mem::take(&mut pending.again);
        pending.preloads.extend(again);
        let residency = pending.residency;
        self.refuse_dependents(residency, &[self.label(id)], error, now);
        self.dissolve(id, error, now);
        self.abandon(residency, reason, now);
    }

    pub(super) fn unloaded_meanwhile(&self, id: ModelId) -> Error {
        let text = format!("model '{}' was unloaded while it was being loaded", self.label(id));
        Error::new(ErrorKind::ModelNotReady, text)
    }
}
