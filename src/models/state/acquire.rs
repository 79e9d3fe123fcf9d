//! Asking for a model: a hit, or a place among those who wait for its load.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Effect, Stage, State};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Moment, Priority};
use crate::models::{Asked, ModelId, Residency};

pub(super) type Told = Box<dyn FnOnce(Result<Residency>) + Send>;

/// What became of an acquire that was no hit of the model itself.
pub(in crate::models) enum Acquired {
    /// It was there after all, or its fallback was.
    Hit(Residency, ModelId),
    /// It waits, by this number, or was refused and is told so.
    Waits(usize),
}

/// Somebody who had to wait.
pub(super) struct Entry {
    /// Whom it waits for: the fallback, where it was sent there.
    pub(super) model: ModelId,
    since: Moment,
    standing: Standing,
}

enum Standing {
    Waits(Waiter),
    /// It leases a residency, after so long.
    Holds(Residency, Duration),
    /// It was told that it waits in vain, after so long.
    Over(Duration),
}

pub(super) struct Waiter {
    told: Told,
    priority: Priority,
    until: Option<Moment>,
    /// Its place among the waiters of the load.
    at: usize,
    /// Models that could not be had: no fallback leads back to them.
    tried: SmallVec<[ModelId; 2]>,
}

/// Where somebody who asks for a model is sent.
enum Place {
    There(Residency),
    Waits,
}

impl State {
    /// A lease on a model that is there. Counts nothing where it is not.
    pub(in crate::models) fn hit(
        &mut self,
        id: ModelId,
        asked: &Asked<'_>,
        now: Moment,
    ) -> Option<Residency> {
        let residency = self.models.get(id.0 as usize)?.current?;
        if self.closing.is_some() {
            return None;
        }
        self.lend(residency)?;
        if let Some(model) = self.models.get_mut(id.0 as usize) {
            model.tally.hits += 1;
        }
        self.used(id, now);
        self.recall.note(id, now);
        self.wishes.note(id, asked.session, now);
        Some(residency)
    }

    /// Asks for a model that was not there a moment ago.
    pub(in crate::models) fn acquire(
        &mut self,
        id: ModelId,
        asked: &Asked<'_>,
        told: Told,
        now: Moment,
    ) -> Acquired {
        if let Some(residency) = self.hit(id, asked, now) {
            self.out.push_back(Effect::Forget(told));
            return Acquired::Hit(residency, id);
        }
        self.missed(id, asked, now);
        let waiter =
            Waiter { told, priority: asked.priority, until: asked.until, at: 0, tried: SmallVec::new() };
        let number =
            self.entries.insert(Entry { model: id, since: now, standing: Standing::Over(Duration::ZERO) });
        let given = self.send(number, id, waiter, None, now);
        let model = self.entries.get(number).map_or(id, |entry| entry.model);
        self.pump(now);
        match given {
            Some((residency, told)) => {
                self.out.push_back(Effect::Forget(told));
                self.entries.remove(number);
                Acquired::Hit(residency, model)
            }
            None => Acquired::Waits(number),
        }
    }

    fn missed(&mut self, id: ModelId, asked: &Asked<'_>, now: Moment) {
        if self.closing.is_some() {
            return;
        }
        let Some(model) = self.models.get_mut(id.0 as usize).filter(|model| model.registered) else { return };
        match &model.pending {
            Some(pending) => {
                model.tally.joins += 1;
                let begun =
                    self.residents.get(pending.residency).is_some_and(|resident| resident.cause.is_some());
                if begun && pending.waiters.is_empty() {
                    self.counts.preloads.joined += 1;
                }
            }
            None => model.tally.misses += 1,
        }
        for needed in self.graph.closure(&[id]).unwrap_or_else(|_| vec![id]) {
            self.touch(needed, now);
        }
        self.recall.note(id, now);
        self.wishes.note(id, asked.session, now);
    }

    /// Sends a waiter to a model, and on to fallbacks: it is given a lease, which its caller tells it of, or waits, or is told
    /// what went wrong first.
    fn send(
        &mut self,
        number: usize,
        mut id: ModelId,
        mut waiter: Waiter,
        mut error: Option<Error>,
        now: Moment,
    ) -> Option<(Residency, Told)> {
        loop {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.model = id;
            }
            waiter.tried.push(id);
            let placed = self.place(id, now);
            let next = placed.as_ref().err().and_then(|error| self.fallback(id, error, &waiter.tried));
            let stale = match placed {
                Err(latest) if error.is_some() => Some(latest),
                Err(latest) => {
                    error = Some(latest);
                    None
                }
                Ok(place) => {
                    self.bury_any(error);
                    return match place {
                        Place::There(residency) => Some((residency, waiter.told)),
                        Place::Waits => {
                            self.join(number, id, waiter);
                            None
                        }
                    };
                }
            };
            self.bury_any(stale);
            let Some(next) = next else {
                let error = error.unwrap_or_else(Self::closed);
                self.tell_in_vain(number, waiter.told, error, now);
                return None;
            };
            id = next;
        }
    }

    /// A lease on a model, where it is there; else its load is wanted from now on.
    fn place(&mut self, id: ModelId, now: Moment) -> Result<Place> {
        if self.closing.is_some() {
            return Err(Self::closed());
        }
        if self.model(id).is_none() {
            return Err(self.unknown(id));
        }
        self.keep_what_leaves(id, now);
        self.revive(id, now);
        if let Some(residency) = self.current(id)
            && self.lend(residency).is_some()
        {
            self.used(id, now);
            return Ok(Place::There(residency));
        }
        self.want(id, now)?;
        Ok(Place::Waits)
    }

    pub(super) fn unknown(&self, id: ModelId) -> Error {
        match self.models.get(id.0 as usize) {
            Some(model) => {
                let text = format!("model '{}@{}' was taken out", model.spec.name, model.spec.version);
                Error::new(ErrorKind::ModelNotFound, text)
            }
            None => Error::new(ErrorKind::ModelNotFound, format!("no model has the number {}", id.0)),
        }
    }

    /// The model that is given where `id` cannot be had for that reason.
    fn fallback(&self, id: ModelId, error: &Error, tried: &[ModelId]) -> Option<ModelId> {
        if matches!(error.kind(), ErrorKind::Closed | ErrorKind::DeadlineExceeded) {
            return None;
        }
        let reference = self.model(id)?.spec.fallback.as_ref()?;
        self.graph.find(reference).ok().filter(|next| !tried.contains(next))
    }

    fn join(&mut self, number: usize, id: ModelId, mut waiter: Waiter) {
        let Some(pending) = self.known(id).and_then(|model| model.pending.as_mut()) else { return };
        waiter.at = pending.waiters.len();
        pending.waiters.push(number);
        if let Some(waiting) = pending.urgency.get_mut(waiter.priority as usize) {
            *waiting += 1;
        }
        if let Some(until) = waiter.until {
            self.untils.insert((until, number));
        }
        if let Some(entry) = self.entries.get_mut(number) {
            entry.standing = Standing::Waits(waiter);
        }
    }

    fn tell_in_vain(&mut self, number: usize, told: Told, error: Error, now: Moment) {
        if let Some(entry) = self.entries.get_mut(number) {
            entry.standing = Standing::Over(now.since(entry.since));
        }
        self.out.push_back(Effect::Tell(told, Err(error)));
    }

    /// Takes a waiter from its load. Whoever calls it takes it from the load's list.
    fn take_waiter(&mut self, number: usize, now: Moment) -> Option<Waiter> {
        let entry = self.entries.get_mut(number)?;
        let over = Standing::Over(now.since(entry.since));
        let Standing::Waits(waiter) = std::mem::replace(&mut entry.standing, over) else { return None };
        if let Some(until) = waiter.until {
            self.untils.remove(&(until, number));
        }
        Some(waiter)
    }

    /// Takes a waiter from its load and from the list of those who wait for it.
    fn withdraw(&mut self, number: usize, now: Moment) -> Option<Waiter> {
        let id = self.entries.get(number)?.model;
        let Some(Entry { standing: Standing::Waits(_), .. }) = self.entries.get(number) else { return None };
        let waiter = self.take_waiter(number, now)?;
        let pending = self.known(id)?.pending.as_mut()?;
        if let Some(waiting) = pending.urgency.get_mut(waiter.priority as usize) {
            *waiting -= 1;
        }
        pending.waiters.swap_remove(waiter.at);
        if let Some(moved) = pending.waiters.get(waiter.at).copied()
            && let Some(Entry { standing: Standing::Waits(other), .. }) = self.entries.get_mut(moved)
        {
            other.at = waiter.at;
        }
        Some(waiter)
    }

    /// The load that somebody waited for is there: it is theirs before anything else is decided.
    pub(super) fn grant(&mut self, number: usize, residency: Residency, now: Moment) {
        let Some(waiter) = self.take_waiter(number, now) else { return };
        let Some(entry) = self.entries.get_mut(number) else { return };
        entry.standing = Standing::Holds(residency, now.since(entry.since));
        self.lend(residency);
        self.out.push_back(Effect::Tell(waiter.told, Ok(residency)));
    }

    /// The load that somebody waited for is not to be: they are sent to the fallback, or told.
    pub(super) fn refuse(&mut self, number: usize, error: Error, now: Moment) {
        let Some(waiter) = self.take_waiter(number, now) else { return };
        let Some(id) = self.entries.get(number).map(|entry| entry.model) else { return };
        let Some(next) = self.fallback(id, &error, &waiter.tried) else {
            return self.tell_in_vain(number, waiter.told, error, now);
        };
        if let Some((residency, told)) = self.send(number, next, waiter, Some(error), now) {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.standing = Standing::Holds(residency, now.since(entry.since));
            }
            self.out.push_back(Effect::Tell(told, Ok(residency)));
        }
    }

    /// Whoever waits until now is told that the time is up.
    pub(super) fn expire(&mut self, now: Moment) {
        while let Some((until, number)) = self.untils.first().copied().filter(|(until, _)| *until <= now) {
            self.untils.remove(&(until, number));
            let Some(id) = self.entries.get(number).map(|entry| entry.model) else { continue };
            let Some(waiter) = self.withdraw(number, now) else { continue };
            let text = format!("model '{}' was not loaded in the time that the caller gave", self.label(id));
            self.tell_in_vain(number, waiter.told, Error::new(ErrorKind::DeadlineExceeded, text), now);
            self.drop_unwanted(id, now);
        }
    }

    /// A claim that waited, or waits, goes.
    pub(in crate::models) fn leave(&mut self, number: usize, now: Moment) {
        let waiter = self.withdraw(number, now);
        let Some(entry) = self.entries.try_remove(number) else { return };
        match (waiter, entry.standing) {
            (Some(waiter), _) => {
                self.out.push_back(Effect::Forget(waiter.told));
                self.drop_unwanted(entry.model, now);
                self.pump(now);
            }
            (None, Standing::Holds(residency, _)) => {
                if self.release(residency) {
                    self.released(residency, now);
                }
            }
            (None, _) => {}
        }
    }

    pub(in crate::models) fn entry_residency(&self, number: usize) -> Option<Residency> {
        match self.entries.get(number)?.standing {
            Standing::Holds(residency, _) => Some(residency),
            _ => None,
        }
    }

    pub(in crate::models) fn entry_waited(&self, number: usize, now: Moment) -> Duration {
        match self.entries.get(number) {
            Some(Entry { standing: Standing::Waits(_), since, .. }) => now.since(*since),
            Some(Entry { standing: Standing::Holds(_, waited) | Standing::Over(waited), .. }) => *waited,
            None => Duration::ZERO,
        }
    }

    pub(in crate::models) fn entry_model(&self, number: usize) -> Option<ModelId> {
        Some(self.entries.get(number)?.model)
    }

    /// One more lease on a residency that serves.
    fn lend(&mut self, residency: Residency) -> Option<()> {
        let resident = self.residents.get_mut(residency).filter(|resident| resident.stage == Stage::Ready)?;
        resident.leases += 1;
        if !resident.used {
            resident.used = true;
            let preloaded = resident.cause.is_some();
            self.counts.preloads.used += u64::from(preloaded);
        }
        Some(())
    }

    /// A model that is there is used, and what it needs with it.
    pub(super) fn used(&mut self, id: ModelId, now: Moment) {
        let Some(model) = self.models.get_mut(id.0 as usize) else { return };
        model.facts.used(now);
        let (facts, beneath) = (model.facts, model.beneath.len());
        for at in 0..beneath {
            let next = self.models.get(id.0 as usize).and_then(|model| model.beneath.get(at).copied());
            if let Some(beneath) = next {
                self.touch(beneath, now);
            }
        }
        self.policy.used(id, &facts, now);
    }

    fn touch(&mut self, id: ModelId, now: Moment) {
        if let Some(model) = self.models.get_mut(id.0 as usize) {
            model.facts.used(now);
            self.policy.used(id, &model.facts, now);
        }
    }
}
