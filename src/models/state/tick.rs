//! What time brings.

use super::{Stage, State};
use crate::flow::Moment;
use crate::models::Residency;

impl State {
    /// Does what is due.
    pub(in crate::models) fn tick(&mut self, now: Moment) {
        self.expire(now);
        for residency in self.late(now) {
            self.time_out(residency, now);
        }
        for (id, residency) in self.short_for_too_long(now) {
            if self.coming(id) == Some(residency) {
                self.space_out(id, residency, now);
            }
        }
        for residency in self.rested(now) {
            let bytes = self.residents.get(residency).map_or(0, |resident| resident.bytes);
            self.put(residency, Stage::Reserved, bytes);
        }
        self.expire_drains(now);
        self.wish(now);
        self.pump(now);
    }

    /// Loads that have run for longer than they may.
    fn late(&self, now: Moment) -> Vec<Residency> {
        let late = |resident: &super::resident::Resident| {
            resident.stage.runs() && !resident.stuck && resident.started + resident.spec.timeout <= now
        };
        self.residents.iter().filter(|(_, resident)| late(resident)).map(|(residency, _)| residency).collect()
    }

    /// Loads that have waited long enough to be tried again.
    fn rested(&self, now: Moment) -> Vec<Residency> {
        let rested = |stage| matches!(stage, Stage::Paused(until) if until <= now);
        self.residents
            .iter()
            .filter(|(_, resident)| rested(resident.stage))
            .map(|(residency, _)| residency)
            .collect()
    }

    fn short_for_too_long(&self, now: Moment) -> Vec<(crate::models::ModelId, Residency)> {
        let limit = self.settings.space_timeout;
        let waits = self.pending.iter().filter_map(|id| {
            let pending = self.models.get(id.0 as usize)?.pending.as_ref()?;
            let since = pending.short_since?;
            let queued = self.stage(pending.residency) == Some(Stage::Queued);
            (queued && since + limit <= now).then_some((*id, pending.residency))
        });
        waits.collect()
    }

    /// When it wants to be called again.
    pub(in crate::models) fn due(&mut self, _now: Moment) -> Option<Moment> {
        let due = self.next_due();
        self.alarm = due;
        due
    }

    /// True where its owner should come earlier than it was told.
    pub(in crate::models) fn is_early(&mut self) -> bool {
        let due = self.next_due();
        let early = match (due, self.alarm) {
            (Some(due), Some(alarm)) => due < alarm,
            (due, None) => due.is_some(),
            (None, Some(_)) => false,
        };
        if early {
            self.alarm = due;
        }
        early
    }

    /// The same after a hit, which moves nothing but what is expected.
    pub(in crate::models) fn is_early_to_wish(&mut self) -> bool {
        let Some(due) = self.wishes.due() else { return false };
        let early = self.alarm.is_none_or(|alarm| due < alarm);
        if early {
            self.alarm = Some(due);
        }
        early
    }

    fn next_due(&self) -> Option<Moment> {
        let waiter = self.untils.first().map(|(until, _)| *until);
        let running = self.running_until();
        let wish = self.wishes.due().filter(|_| self.closing.is_none());
        let pending = self.pending.iter().filter_map(|id| {
            let pending = self.models.get(id.0 as usize)?.pending.as_ref()?;
            match self.stage(pending.residency)? {
                Stage::Paused(until) => Some(until),
                Stage::Queued => Some(pending.short_since? + self.settings.space_timeout),
                _ => None,
            }
        });
        let others = [waiter, running, self.next_drain(), wish];
        pending.chain(others.into_iter().flatten()).min()
    }

    /// When the first of the loads that run has run for too long.
    fn running_until(&self) -> Option<Moment> {
        if self.loading == 0 {
            return None;
        }
        let runs = self.residents.iter().filter(|(_, resident)| resident.stage.runs() && !resident.stuck);
        runs.map(|(_, resident)| resident.started + resident.spec.timeout).min()
    }
}
