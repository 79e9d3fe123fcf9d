//! Unloading by name.

use super::preload::Done;
use super::{Effect, State};
use crate::error::{Error, ErrorKind};
use crate::flow::Moment;
use crate::models::{ModelId, Reason, Residency};

/// Somebody who waits until residencies are gone.
pub(super) struct Drain {
    id: ModelId,
    left: Vec<Residency>,
    until: Option<Moment>,
    /// How long that was.
    limit: f64,
    told: Option<Done>,
}

impl State {
    pub(in crate::models) fn unload(
        &mut self,
        id: ModelId,
        dependents: bool,
        drain: Option<std::time::Duration>,
        told: Done,
        now: Moment,
    ) {
        if self.model(id).is_none() {
            let error = self.unknown(id);
            return self.out.push_back(Effect::Done(told, Err(error)));
        }
        let above = self.above(id);
        if !dependents && !above.is_empty() {
            let names: Vec<_> = above.iter().map(|id| format!("'{}'", self.label(*id))).collect();
            let text = format!(
                "model '{}' cannot be unloaded while {} need it: unload them, too, with dependents=true",
                self.label(id),
                names.join(", ")
            );
            return self.out.push_back(Effect::Done(told, Err(Error::new(ErrorKind::Config, text))));
        }
        let mut left = Vec::new();
        for dependent in above {
            // An older load of a dependent may stand on something else, and stay for that.
            let taken = self.take_down(dependent, Reason::Unload, now);
            left.extend(taken.into_iter().filter(|residency| self.stands_on(*residency, id)));
        }
        left.extend(self.take_down(id, Reason::Unload, now));
        let until = drain.map(|drain| now + drain);
        let limit = drain.map_or(0.0, |drain| drain.as_secs_f64());
        self.drains.push(Drain { id, left, until, limit, told: Some(told) });
        self.settle_drains();
        self.pump(now);
    }

    /// The models whose residencies need one of this model, or are to be loaded on top of one: the last to be loaded first.
    fn above(&self, id: ModelId) -> Vec<ModelId> {
        let mut found: Vec<ModelId> = Vec::new();
        // Also one that leaves: what was loaded on top of it keeps it.
        let own = self.residents.iter().filter(|(_, resident)| resident.model == id);
        let mut open: Vec<Residency> = own.map(|(residency, _)| residency).collect();
        while let Some(residency) = open.pop() {
            let Some(resident) = self.residents.get(residency) else { continue };
            for holder in &resident.holders {
                let Some(dependent) = self.residents.get(*holder) else { continue };
                let serves = self.current(dependent.model) == Some(*holder);
                // One that is stuck may still come to serve.
                let may_serve = serves || dependent.stuck || self.coming(dependent.model) == Some(*holder);
                if may_serve && dependent.model != id {
                    found.retain(|other| *other != dependent.model);
                    found.push(dependent.model);
                }
                // What is above one that leaves keeps it.
                open.push(*holder);
            }
        }
        found.reverse();
        found
    }

    fn stands_on(&self, residency: Residency, id: ModelId) -> bool {
        let Some(resident) = self.residents.get(residency) else { return false };
        resident.model == id || resident.requires.iter().any(|needed| self.stands_on(*needed, id))
    }

    /// Ends everything of a model; who waits for its load is told. What is to be waited for until it is gone.
    pub(super) fn take_down(&mut self, id: ModelId, reason: Reason, now: Moment) -> Vec<Residency> {
        if self.coming(id).is_some() {
            let error = self.unloaded_meanwhile(id);
            self.cancel(id, &error, reason, now);
        }
        if let Some(current) = self.current(id) {
            self.retire(current, reason, now);
        }
        for (_, resident) in self.residents.iter_mut().filter(|(_, resident)| resident.model == id) {
            // One that is stuck is not waited for, and serves nobody when it comes.
            if resident.stuck {
                resident.unwanted = resident.unwanted.or(Some(reason));
            }
            // One that made room is not spared any more.
            if resident.stage == super::Stage::Draining {
                resident.leaving = Some(reason);
            }
        }
        let of_it = |(_, resident): &(Residency, &super::resident::Resident)| {
            resident.model == id
                && !resident.stuck
                && resident.stage != super::Stage::Viewed
                && !resident.stage.waits()
        };
        self.residents.iter().filter(of_it).map(|(residency, _)| residency).collect()
    }

    /// A residency is gone, or will not be waited for any more.
    pub(super) fn drained(&mut self, residency: Residency) {
        for drain in &mut self.drains {
            drain.left.retain(|other| *other != residency);
        }
        self.settle_drains();
    }

    fn settle_drains(&mut self) {
        let out = &mut self.out;
        self.drains.retain_mut(|drain| {
            if !drain.left.is_empty() {
                return true;
            }
            if let Some(told) = drain.told.take() {
                out.push_back(Effect::Done(told, Ok(())));
            }
            false
        });
        self.tell_if_closed();
    }

    /// Who waited until leases end is told that they last.
    pub(super) fn expire_drains(&mut self, now: Moment) {
        for mut drain in std::mem::take(&mut self.drains) {
            if drain.until.is_none_or(|until| until > now) {
                self.drains.push(drain);
                continue;
            }
            let leases: usize =
                drain.left.iter().filter_map(|left| self.residents.get(*left)).map(|left| left.leases).sum();
            let text = format!(
                "model '{}' was not unloaded within drain={} seconds: {leases} leases last, and it goes on draining",
                self.label(drain.id),
                drain.limit
            );
            if let Some(told) = drain.told.take() {
                self.out.push_back(Effect::Done(told, Err(Error::new(ErrorKind::DeadlineExceeded, text))));
            }
        }
    }

    pub(super) fn next_drain(&self) -> Option<Moment> {
        self.drains.iter().filter_map(|drain| drain.until).min()
    }
}
