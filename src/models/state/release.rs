//! Leases that end, and residencies that leave.

use super::{Effect, Stage, State};
use crate::error::Error;
use crate::flow::Moment;
use crate::models::{ModelId, Reason, Residency};

impl State {
    /// A lease ends. True where something may follow from that, for [`released`](Self::released).
    pub(in crate::models) fn release(&mut self, residency: Residency) -> bool {
        let Some(resident) = self.residents.get_mut(residency) else { return false };
        resident.leases = resident.leases.saturating_sub(1);
        resident.leases == 0 && (self.short || resident.stage == Stage::Draining)
    }

    /// The last lease of a residency has ended.
    pub(in crate::models) fn released(&mut self, residency: Residency, now: Moment) {
        if self.stage(residency) == Some(Stage::Draining) {
            self.unload_if_free(residency, now);
        }
        self.pump(now);
    }

    /// A residency serves nobody new; it is unloaded as soon as nobody uses it.
    pub(super) fn retire(&mut self, residency: Residency, reason: Reason, now: Moment) {
        let Some(resident) =
            self.residents.get_mut(residency).filter(|resident| resident.stage == Stage::Ready)
        else {
            return;
        };
        resident.leaving = Some(reason);
        let (id, bytes) = (resident.model, resident.bytes);
        if let Some(model) = self.known(id).filter(|model| model.current == Some(residency)) {
            model.current = None;
            self.policy.gone(id, now);
        }
        self.put(residency, Stage::Draining, bytes);
        self.unload_if_free(residency, now);
    }

    pub(super) fn unload_if_free(&mut self, residency: Residency, now: Moment) {
        let Some(resident) = self.residents.get(residency) else { return };
        if resident.stage == Stage::Draining && resident.is_free() {
            let bytes = resident.bytes;
            self.count_eviction(residency, now);
            self.put(residency, Stage::Unloading, bytes);
            self.out.push_back(Effect::Unload(residency));
        }
    }

    fn count_eviction(&mut self, residency: Residency, now: Moment) {
        let Some(resident) = self.residents.get(residency) else { return };
        let (id, age) = (resident.model, now.since(resident.ready));
        let reason = resident.leaving.unwrap_or(Reason::Unload);
        if resident.cause.is_some() && !resident.used {
            self.counts.preloads.wasted += 1;
        }
        let last_used = self
            .models
            .get(id.0 as usize)
            .map_or(resident.ready, |model| model.facts.last_used.max(resident.ready));
        self.wishes.gone(id, (reason == Reason::Space).then(|| now.since(last_used)), now);
        if let Some(model) = self.known(id) {
            model.tally.evictions.count(reason);
            model.tally.last_eviction = Some((reason, age, now));
        }
    }

    /// What was to make room and is asked for before its loader was told is not torn away.
    pub(super) fn revive(&mut self, id: ModelId, now: Moment) {
        if self.closing.is_some() || self.current(id).is_some() || self.coming(id).is_some() {
            return;
        }
        let spared = |resident: &super::resident::Resident| {
            resident.model == id
                && resident.stage == Stage::Draining
                && resident.leaving == Some(Reason::Space)
        };
        let Some((residency, resident)) = self.residents.iter().find(|(_, resident)| spared(resident)) else {
            return;
        };
        // It would keep an older load of what it needs beside the newer one: there was no room for that.
        if self.is_outdated(residency) {
            return;
        }
        let bytes = resident.bytes;
        self.put(residency, Stage::Ready, bytes);
        if let Some(resident) = self.residents.get_mut(residency) {
            resident.leaving = None;
        }
        let Some(model) = self.known(id) else { return };
        model.current = Some(residency);
        let facts = model.facts;
        self.policy.loaded(id, &facts, now);
    }

    /// The same for what a model needs.
    pub(super) fn keep_what_leaves(&mut self, id: ModelId, now: Moment) {
        for needed in self.graph.closure(&[id]).unwrap_or_default() {
            if needed != id {
                self.revive(needed, now);
            }
        }
    }

    /// The loader has let a model go. What it needed is free of it now.
    pub(in crate::models) fn unloaded(&mut self, residency: Residency, viewed: u64, now: Moment) {
        if self.stage(residency) != Some(Stage::Unloading) {
            return;
        }
        if viewed == 0 {
            self.discard(residency, now);
        } else {
            self.put(residency, Stage::Viewed, viewed);
            let needed =
                self.residents.get_mut(residency).map(|resident| std::mem::take(&mut resident.requires));
            needed.into_iter().flatten().for_each(|needed| self.let_go(needed, residency, now));
            self.drained(residency);
        }
        self.pump(now);
    }

    /// Bytes of what was unloaded are no longer looked at.
    pub(in crate::models) fn returned(&mut self, residency: Residency, bytes: u64, now: Moment) {
        let Some(resident) = self.residents.get(residency).filter(|resident| resident.stage == Stage::Viewed)
        else {
            return;
        };
        let left = resident.bytes.saturating_sub(bytes);
        if left == 0 {
            self.discard(residency, now);
        } else {
            self.put(residency, Stage::Viewed, left);
        }
        self.pump(now);
    }

    /// A model broke.
    pub(in crate::models) fn dead(&mut self, residency: Residency, why: Error, now: Moment) {
        let Some(resident) = self.residents.get(residency) else { return self.bury(why) };
        if resident.stage.runs() {
            return self.failed(residency, why, false, now);
        }
        let id = resident.model;
        if let Some(model) = self.known(id).filter(|model| model.current == Some(residency)) {
            model.complaint = Some(why.message().into());
        }
        self.bury(why);
        self.retire(residency, Reason::Dead, now);
        self.pump(now);
    }
}
