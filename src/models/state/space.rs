//! Memory for loads: all that a request still needs, or nothing of it.

use super::{Stage, State};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;
use crate::models::memory::narrow;
use crate::models::{ModelId, Reason, Residency};

/// What became of asking for memory.
pub(super) enum Space {
    Had,
    /// It is short of it, and stands first in line: what becomes free is kept for it.
    Short,
    /// Somebody stands before it.
    Behind,
    /// It cannot be loaded, and who waited was told.
    Refused,
}

/// What a request needs to be loaded.
pub(super) struct Need {
    /// Still to be loaded, in the order of loading, the model itself last.
    missing: Vec<ModelId>,
    /// Loaded, or under way.
    pub(super) there: Vec<Residency>,
    pub(super) bytes: u128,
    /// Of these, for each model of which no size is known.
    unknown: u64,
}

impl State {
    /// Memory for a load and everything that it needs.
    pub(super) fn reserve(&mut self, residency: Residency, blocked: bool, now: Moment) -> Space {
        let Some(id) = self.residents.get(residency).map(|resident| resident.model) else {
            return Space::Behind;
        };
        // What leaves because the memory is overdrawn would only be chosen again.
        if !blocked && self.memory.deficit() == 0 {
            self.keep_what_leaves(id, now);
        }
        let need = match self.need(id, now) {
            Ok(need) => need,
            Err(error) => {
                self.refuse_load(id, residency, &error, now);
                self.bury(error);
                return Space::Refused;
            }
        };
        if need.bytes > 0 || self.memory.deficit() > 0 {
            if blocked {
                return Space::Behind;
            }
            if self.memory.missing(need.bytes, 0) > 0 {
                return self.seek(id, residency, &need, now);
            }
        }
        self.let_in(&need, now);
        Space::Had
    }

    /// Whoever wanted a load that cannot be is told why; nothing of that is remembered.
    fn refuse_load(&mut self, id: ModelId, residency: Residency, error: &Error, now: Moment) {
        self.count_failure(id);
        self.refuse_dependents(residency, &[self.label(id)], error, now);
        self.dissolve(id, error, now);
        self.discard(residency, now);
    }

    fn short(&mut self, id: ModelId, now: Moment) {
        if let Some(pending) = self.known(id).and_then(|model| model.pending.as_mut())
            && pending.short_since.is_none()
        {
            pending.short_since = Some(now);
            self.changed = true;
        }
    }

    /// Has others leave for the first in line.
    fn seek(&mut self, id: ModelId, residency: Residency, need: &Need, now: Moment) -> Space {
        if self.give_up_old(id, need, now) {
            let error = self.capacity(id, need);
            self.refuse_load(id, residency, &error, now);
            return Space::Refused;
        }
        let guess = self.is_guess(id);
        // Where an older load of it must go first in any case, nobody else needs to.
        let old = Some(id).filter(|_| !self.fits_beside_old(id, need));
        self.make_room(id, old, need, guess, now);
        // What takes no bytes is gone at once.
        if self.memory.missing(need.bytes, 0) == 0 {
            self.let_in(need, now);
            return Space::Had;
        }
        if guess && self.memory.missing(need.bytes, self.leaving(None)) > 0 {
            // Nobody waits for a guess to find room.
            let text = format!("there is no room for model '{}', which nobody has asked for", self.label(id));
            let error = Error::new(ErrorKind::Capacity, text);
            self.refuse_dependents(residency, &[self.label(id)], &error, now);
            self.dissolve(id, &error, now);
            self.discard(residency, now);
            return Space::Refused;
        }
        self.short(id, now);
        Space::Short
    }

    /// Where a model and what is to replace it do not fit together, the old one goes first. True where it cannot go.
    fn give_up_old(&mut self, id: ModelId, need: &Need, now: Moment) -> bool {
        let Some(old) = self.current(id).filter(|_| !self.fits_beside_old(id, need)) else { return false };
        let held = self.residents.get(old).is_some_and(|resident| !resident.holders.is_empty());
        if !held {
            self.retire(old, Reason::Reload, now);
        }
        held
    }

    /// True where a model fits into the memory together with its older loads that serve or drain.
    fn fits_beside_old(&self, id: ModelId, need: &Need) -> bool {
        let Some(limit) = self.memory.limit() else { return true };
        let older = |resident: &&super::resident::Resident| resident.model == id && resident.stage.is_there();
        let residents = self.residents.iter().map(|(_, resident)| resident);
        let old: u128 = residents.filter(older).map(|resident| u128::from(resident.bytes)).sum();
        self.whole(need) + self.kept_beside(&self.closure_of(need)) + old <= u128::from(limit)
    }

    fn closure_of(&self, need: &Need) -> Vec<ModelId> {
        let there = need.there.iter().filter_map(|there| Some(self.residents.get(*there)?.model));
        need.missing.iter().copied().chain(there).collect()
    }

    /// What a load still needs, where nothing that it needs is known to fail.
    fn need(&self, id: ModelId, now: Moment) -> Result<Need> {
        self.refusal(id, now)?;
        let mut need = Need { missing: Vec::new(), there: Vec::new(), bytes: 0, unknown: 0 };
        let mut wanted = vec![id];
        // What is loaded holds what it needs, maybe an older load of it: nothing beneath it is to be loaded.
        for needed in self.graph.closure(&[id])?.into_iter().rev() {
            if !wanted.contains(&needed) {
                continue;
            }
            if let Some(residency) = self.usable(needed).filter(|_| needed != id) {
                need.there.push(residency);
            } else {
                need.bytes += u128::from(self.said(needed).unwrap_or_default());
                need.missing.push(needed);
                wanted.extend(self.graph.requires(needed)?);
            }
        }
        need.missing.reverse();
        self.presume(&mut need);
        Ok(need)
    }

    /// For models of which no size is known the mean of the others is reserved, as far as it fits: nobody is refused, or
    /// waits, for the sake of what is presumed.
    fn presume(&self, need: &mut Need) {
        let unknown = need.missing.iter().filter(|id| self.said(**id).is_none()).count() as u128;
        if unknown == 0 {
            return;
        }
        let goes =
            |(residency, _): &(Residency, &super::resident::Resident)| self.may_go(*residency, &need.there);
        let evictable: u128 = self.residents.iter().filter(goes).map(|(_, one)| u128::from(one.bytes)).sum();
        let room = self.memory.limit().map_or(u128::MAX, |limit| {
            (u128::from(limit) + evictable).saturating_sub(u128::from(self.memory.used()) + need.bytes)
        });
        let each = u128::from(self.mean()).min(room / unknown);
        need.unknown = narrow(each);
        need.bytes += each * unknown;
    }

    /// The residency that others are loaded on top of: one that serves, or one that has its memory.
    pub(super) fn usable(&self, id: ModelId) -> Option<Residency> {
        let coming = || self.coming(id).filter(|coming| self.stage(*coming).is_some_and(Stage::has_memory));
        self.current(id).or_else(coming)
    }

    /// Bytes that a model is taken to need: the mean of the others, where nothing is known of it.
    pub(super) fn estimate(&self, id: ModelId) -> u64 {
        self.said(id).unwrap_or_else(|| self.mean())
    }

    /// Bytes that a model took the last time, or is said to take.
    fn said(&self, id: ModelId) -> Option<u64> {
        let model = self.models.get(id.0 as usize)?;
        model.measured.or(model.spec.size)
    }

    fn mean(&self) -> u64 {
        let (sum, count) = self.counts.measured;
        sum.checked_div(u128::from(count)).map_or(0, narrow)
    }

    fn let_in(&mut self, need: &Need, now: Moment) {
        for id in &need.missing {
            let Some(residency) = self.coming(*id).or_else(|| self.enter(*id, now)) else { continue };
            let requires: Vec<_> = self
                .graph
                .requires(*id)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|needed| self.usable(needed))
                .collect();
            for needed in &requires {
                if let Some(resident) = self.residents.get_mut(*needed) {
                    resident.holders.push(residency);
                }
            }
            let bytes = self.said(*id).unwrap_or(need.unknown);
            if let Some(resident) = self.residents.get_mut(residency) {
                resident.requires = requires;
            }
            if let Some(pending) = self.known(*id).and_then(|model| model.pending.as_mut()) {
                pending.short_since = None;
            }
            self.put(residency, Stage::Reserved, bytes);
        }
    }

    /// `Capacity` where a model and all that it needs could not be loaded if everything left that may ever leave.
    pub(super) fn fits_at_all(&self, id: ModelId, closure: &[ModelId]) -> Result<()> {
        let Some(limit) = self.memory.limit() else { return Ok(()) };
        let bytes = |id: &ModelId| u128::from(self.known_bytes_of(*id));
        let required: u128 = closure.iter().map(bytes).sum();
        if required + self.kept_beside(closure) <= u128::from(limit) {
            return Ok(());
        }
        Err(self.capacity_error(id, required, closure))
    }

    /// Bytes of a model that is loaded, else what it is taken to need.
    pub(super) fn bytes_of(&self, id: ModelId) -> u64 {
        self.known_size(id).unwrap_or_else(|| self.mean())
    }

    /// Bytes of a model that is loaded, else what it took or is said to take; none, where nothing is known.
    pub(super) fn known_bytes_of(&self, id: ModelId) -> u64 {
        self.known_size(id).unwrap_or_default()
    }

    fn known_size(&self, id: ModelId) -> Option<u64> {
        let there = self.usable(id).and_then(|residency| self.residents.get(residency));
        there.map(|resident| resident.bytes).or_else(|| self.said(id))
    }

    /// Bytes of what is loaded and stays, other than these models.
    pub(super) fn kept_beside(&self, closure: &[ModelId]) -> u128 {
        let stays = |resident: &&super::resident::Resident| {
            resident.stage == Stage::Ready
                && !closure.contains(&resident.model)
                && self.models.get(resident.model.0 as usize).is_some_and(|model| model.kept)
        };
        let residents = self.residents.iter().map(|(_, resident)| resident);
        residents.filter(stays).map(|resident| u128::from(resident.bytes)).sum()
    }

    fn whole(&self, need: &Need) -> u128 {
        let there = need.there.iter().filter_map(|residency| self.residents.get(*residency));
        need.bytes + there.map(|resident| u128::from(resident.bytes)).sum::<u128>()
    }

    fn capacity(&self, id: ModelId, need: &Need) -> Error {
        self.capacity_error(id, self.whole(need), &self.closure_of(need))
    }

    /// A load stood first in line for too long.
    pub(super) fn space_out(&mut self, id: ModelId, residency: Residency, now: Moment) {
        let waited = self.settings.space_timeout.as_secs_f64();
        let error = match self.need(id, now) {
            Ok(need) => {
                let capacity = self.capacity(id, &need);
                let text = format!("{capacity}, after waiting for space_timeout of {waited} seconds");
                Error::new(ErrorKind::Capacity, text)
            }
            Err(error) => error,
        };
        self.refuse_load(id, residency, &error, now);
        self.bury(error);
    }

    pub(super) fn capacity_error(&self, id: ModelId, required: u128, closure: &[ModelId]) -> Error {
        let limit = self.memory.limit().unwrap_or(u64::MAX);
        let beside = |resident: &super::resident::Resident| !closure.contains(&resident.model);
        let (mut leased, mut evictable) = (0_u128, 0_u128);
        for (residency, resident) in self.residents.iter().filter(|(_, resident)| beside(resident)) {
            let bytes = u128::from(resident.bytes);
            if resident.leases > 0 {
                leased += bytes;
            } else if self.may_go(residency, &[]) {
                evictable += bytes;
            }
        }
        let text = format!(
            "model '{}' and what it needs require {required} bytes of a memory of {limit}: {} are pinned, {leased} \
             leased, {evictable} evictable",
            self.label(id),
            self.kept_beside(closure),
        );
        Error::new(ErrorKind::Capacity, text)
    }

    fn is_guess(&self, id: ModelId) -> bool {
        let pending = self.models.get(id.0 as usize).and_then(|model| model.pending.as_ref());
        pending.is_some_and(super::model::Pending::is_guess)
    }
}
