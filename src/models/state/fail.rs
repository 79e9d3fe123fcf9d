//! Loads that fail, and who learns of it.

use std::sync::Arc;

use super::{Stage, State};
use crate::error::{Error, ErrorKind};
use crate::flow::Moment;
use crate::models::failures::explain;
use crate::models::{ModelId, Residency};

impl State {
    /// The loader could not load a model.
    pub(in crate::models) fn failed(&mut self, residency: Residency, error: Error, retry: bool, now: Moment) {
        let Some(resident) = self.residents.get_mut(residency).filter(|resident| resident.stage.runs())
        else {
            return self.bury(error);
        };
        let (id, stuck, unwanted) = (resident.model, resident.stuck, resident.unwanted.is_some());
        let took = now.since(resident.started);
        let again = resident.attempts.again(now, &mut self.random).filter(|_| retry && !stuck && !unwanted);
        self.counts.paid_seconds += took.as_secs_f64();
        if !stuck {
            self.loading = self.loading.saturating_sub(1);
        }
        if stuck || unwanted {
            self.bury(error);
            self.no_longer_stuck(id, residency);
            self.discard(residency, now);
        } else if let Some(again) = again {
            self.bury(error);
            self.pause(residency, again, now);
        } else {
            self.give_up(residency, error, now);
        }
        self.pump(now);
    }

    pub(super) fn no_longer_stuck(&mut self, id: ModelId, residency: Residency) {
        if let Some(model) = self.known(id).filter(|model| model.stuck == Some(residency)) {
            model.stuck = None;
        }
    }

    /// It is tried again later, in the same request.
    fn pause(&mut self, residency: Residency, again: Moment, now: Moment) {
        self.counts.retries += 1;
        let Some(resident) = self.residents.get(residency) else { return };
        let (id, bytes) = (resident.model, resident.bytes);
        self.put(residency, Stage::Paused(again), bytes);
        // Whoever wanted it may have left while it ran.
        self.drop_unwanted(id, now);
    }

    /// It failed for good.
    fn give_up(&mut self, residency: Residency, error: Error, now: Moment) {
        let Some(id) = self.residents.get(residency).map(|resident| resident.model) else { return };
        self.count_failure(id);
        self.remember(id, &error, now);
        let own = [self.label(id)];
        self.refuse_dependents(residency, &own, &error, now);
        self.dissolve(id, &explain(&own, &error, self.wait(id, now)), now);
        self.discard(residency, now);
        self.bury(error);
    }

    pub(super) fn count_failure(&mut self, id: ModelId) {
        if let Some(model) = self.known(id) {
            model.tally.failures += 1;
        }
    }

    /// Whoever asks next is told at once; not where an older load serves on.
    pub(super) fn remember(&mut self, id: ModelId, error: &Error, now: Moment) {
        self.changed = true;
        let Some(model) = self.known(id) else { return };
        if model.current.is_some() {
            model.complaint = Some(error.message().into());
        } else {
            self.blame(id, error, now);
        }
    }

    fn blame(&mut self, id: ModelId, error: &Error, now: Moment) {
        if let Some(before) = self.failures.last(id).map(|failure| failure.error.clone()) {
            self.bury(before);
        }
        self.failures.remember(id, error.clone(), now);
    }

    pub(super) fn wait(&self, id: ModelId, now: Moment) -> Option<std::time::Duration> {
        self.failures.standing(id, now).map(|failure| failure.until.since(now))
    }

    /// What waits for this load to begin with its own never begins: who waits for that is told the chain.
    pub(super) fn refuse_dependents(
        &mut self,
        residency: Residency,
        chain: &[Arc<str>],
        error: &Error,
        now: Moment,
    ) {
        let Some(resident) = self.residents.get(residency) else { return };
        let failed = resident.model;
        for holder in resident.holders.clone() {
            // One that stands there twice is gone after the first time.
            let Some(dependent) = self.residents.get(holder).filter(|holder| holder.stage.waits()) else {
                continue;
            };
            let id = dependent.model;
            let mut longer = vec![self.label(id)];
            longer.extend_from_slice(chain);
            self.refuse_dependents(holder, &longer, error, now);
            if self.coming(id) == Some(holder) {
                self.dissolve(id, &explain(&longer, error, self.wait(failed, now)), now);
            }
            self.discard(holder, now);
        }
    }

    /// Everybody who wanted the load of a model is told; nobody wants it then, but those who wanted another after it.
    pub(super) fn dissolve(&mut self, id: ModelId, error: &Error, now: Moment) {
        let Some(mut pending) = self.known(id).and_then(|model| model.pending.take()) else { return };
        self.pending.remove(&id);
        let again = std::mem::take(&mut pending.again);
        for number in pending.waiters {
            self.refuse(number, error.clone(), now);
        }
        for (preload, ..) in pending.preloads {
            self.settle(preload, id, Err(error.clone()), now);
        }
        self.load_again(id, again, now);
    }

    /// A load has taken longer than its time-out. Whoever waits is told; its slot is free; its memory is not, before its
    /// loader says what became of it.
    pub(super) fn time_out(&mut self, residency: Residency, now: Moment) {
        let Some(resident) = self.residents.get_mut(residency) else { return };
        resident.stuck = true;
        let (id, unwanted, limit) = (resident.model, resident.unwanted, resident.spec.timeout);
        self.loading = self.loading.saturating_sub(1);
        let text = format!("it took longer than its timeout of {} seconds", limit.as_secs_f64());
        let error = Error::new(ErrorKind::LoadTimeout, text);
        if let Some(model) = self.known(id) {
            model.tally.timeouts += 1;
        }
        self.drained(residency);
        let own = [self.label(id)];
        let waits_for_it = self.coming(id).filter(|coming| *coming != residency);
        match (unwanted, waits_for_it) {
            // A new registration, or the end: the next load does not wait for this one.
            (Some(reason), _) if reason != crate::models::Reason::Unload => {}
            (Some(_), None) => self.keep_stuck(id, residency, &error, now),
            (Some(_), Some(next)) => {
                self.keep_stuck(id, residency, &error, now);
                self.refuse_dependents(next, &own, &error, now);
                self.dissolve(id, &explain(&own, &error, self.wait(id, now)), now);
                self.discard(next, now);
            }
            (None, _) => {
                self.out.push_back(super::Effect::Cancel(residency));
                self.count_failure(id);
                self.keep_stuck(id, residency, &error, now);
                self.refuse_dependents(residency, &own, &error, now);
                self.dissolve(id, &explain(&own, &error, self.wait(id, now)), now);
            }
        }
    }

    fn keep_stuck(&mut self, id: ModelId, residency: Residency, error: &Error, now: Moment) {
        if self.current(id).is_some() {
            self.remember(id, error, now);
        }
        // Also where an older one serves: it may go before this one ends.
        self.blame(id, error, now);
        if let Some(model) = self.known(id) {
            model.stuck = Some(residency);
        }
    }
}
