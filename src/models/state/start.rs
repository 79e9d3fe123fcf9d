//! Which load begins, and when.

use super::space::Space;
use super::{Effect, Stage, State};
use crate::flow::Moment;
use crate::models::{Cause, Load, LoadState, ModelId, Residency};

impl State {
    /// Begins what can begin. Called whenever something has changed that a load may have waited for.
    pub(super) fn pump(&mut self, now: Moment) {
        self.short = false;
        self.repay(now);
        while self.advance(now) {
            self.repay(now);
        }
        self.short |= self.memory.deficit() > 0;
    }

    /// One step of one load; false where none can take one.
    fn advance(&mut self, now: Moment) -> bool {
        let waits =
            |id: &ModelId| self.coming(*id).and_then(|coming| self.stage(coming)).is_some_and(Stage::waits);
        if self.loading >= self.settings.max_loads || !self.pending.iter().any(waits) {
            return false;
        }
        self.sort_queue(now);
        let in_debt = self.memory.deficit() > 0;
        // While memory is overdrawn nothing begins, but whoever is first has others leave: also those that overdrew it.
        let mut blocked = false;
        for residency in self.queue.in_order(now) {
            match self.stage(residency) {
                Some(Stage::Queued) => match self.reserve(residency, blocked, now) {
                    Space::Had | Space::Refused => return true,
                    Space::Short => blocked = true,
                    Space::Behind => {}
                },
                Some(_) if in_debt => {}
                Some(_) if self.may_start(residency, now) => {
                    self.start(residency, now);
                    return true;
                }
                _ => {}
            }
        }
        self.short = blocked;
        false
    }

    fn may_start(&self, residency: Residency, now: Moment) -> bool {
        let Some(resident) = self.residents.get(residency) else { return false };
        let due = match resident.stage {
            Stage::Reserved => true,
            Stage::Paused(until) => until <= now,
            _ => false,
        };
        let there = |needed: &Residency| self.stage(*needed).is_some_and(Stage::is_there);
        due && resident.requires.iter().all(there) && !self.runs_already(resident.model)
    }

    /// True while a load of this model that nobody wants any more has not ended.
    fn runs_already(&self, id: ModelId) -> bool {
        let other = |resident: &super::resident::Resident| {
            resident.model == id
                && resident.stage.runs()
                && resident.unwanted.is_some_and(|reason| reason != crate::models::Reason::Replaced)
        };
        self.residents.iter().any(|(_, resident)| other(resident))
    }

    fn start(&mut self, residency: Residency, now: Moment) {
        let live = self.is_live(residency);
        let Some(resident) = self.residents.get_mut(residency) else { return };
        let attempt = resident.attempts.begin();
        resident.started = now;
        let (bytes, waited, id) = (resident.bytes, now.since(resident.since), resident.model);
        let cause = self.cause(id).filter(|_| !live);
        let Some(resident) = self.residents.get_mut(residency) else { return };
        if attempt == 1 {
            self.counts.queue_seconds += waited.as_secs_f64();
            self.counts.preloads.issued += u64::from(cause.is_some());
            resident.cause = cause;
            self.wishes.begun(id, now);
        }
        self.out.push_back(Effect::Load(Load {
            residency,
            model: id,
            name: resident.spec.name.clone(),
            version: resident.spec.version.clone(),
            attempt,
            requires: resident.requires.clone(),
        }));
        self.put(residency, Stage::Loading, bytes);
        self.queue.remove(residency);
        self.loading += 1;
    }

    /// Why a model is wanted that nobody waits for: the strongest of the reasons.
    pub(super) fn cause(&self, id: ModelId) -> Option<Cause> {
        let pending = self.models.get(id.0 as usize)?.pending.as_ref()?;
        pending.preloads.iter().chain(&pending.again).map(|(_, cause, _)| *cause).min()
    }

    /// True where somebody waits for this load, or for one that needs it.
    pub(super) fn is_live(&self, residency: Residency) -> bool {
        let Some(resident) = self.residents.get(residency) else { return false };
        let pending = self.models.get(resident.model.0 as usize).and_then(|model| model.pending.as_ref());
        pending.is_some_and(|pending| pending.residency == residency && !pending.waiters.is_empty())
            || resident.holders.iter().any(|holder| self.is_live(*holder))
    }

    /// How far a model is, all its residencies together.
    pub(super) fn state_of(&self, id: ModelId, now: Moment) -> LoadState {
        let Some(model) = self.models.get(id.0 as usize) else { return LoadState::Unloaded };
        if model.current.is_some() {
            return LoadState::Ready;
        }
        if let Some(pending) = &model.pending {
            let shown = self.stage(pending.residency).map_or(LoadState::Queued, Stage::shown);
            let short = pending.short_since.is_some() && shown == LoadState::Queued;
            return if short { LoadState::WaitingForSpace } else { shown };
        }
        if model.stuck.is_some() || self.failures.standing(id, now).is_some() {
            return LoadState::Failed;
        }
        let left = self.residents.iter().filter(|(_, resident)| resident.model == id);
        let leaves =
            |stage| matches!(stage, Stage::Draining | Stage::Unloading | Stage::Loading | Stage::Warming);
        let leaving = left.into_iter().any(|(_, resident)| leaves(resident.stage));
        if leaving { LoadState::Draining } else { LoadState::Unloaded }
    }
}
