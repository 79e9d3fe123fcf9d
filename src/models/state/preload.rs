//! Loads that are asked for without a use.

use std::sync::Arc;

use super::{Effect, State};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Moment, Priority};
use crate::models::progress::Progress;
use crate::models::{Cause, ModelId, Reason};

pub(super) type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// Models that somebody wants loaded, together.
pub(super) struct Wanted {
    models: Vec<ModelId>,
    /// How many of them are not settled.
    left: usize,
    /// The first failure.
    error: Option<Error>,
    result: Option<Result<()>>,
    on_done: Vec<Done>,
    /// Nobody holds its handle any more.
    forgotten: bool,
    /// The alias that is to lead to a model once it is loaded.
    pub(super) flip: Option<(Arc<str>, ModelId)>,
}

impl State {
    pub(in crate::models) fn preload(
        &mut self,
        ids: &[ModelId],
        cause: Cause,
        priority: Priority,
        now: Moment,
    ) -> usize {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let number = self.open_preload(ids.clone());
        for id in ids {
            if cause == Cause::Start
                && let Some(model) = self.known(id)
            {
                model.expected = model.current.is_none();
            }
            self.preload_one(number, id, cause, priority, now);
        }
        self.close_if_settled(number);
        self.pump(now);
        number
    }

    pub(super) fn open_preload(&mut self, models: Vec<ModelId>) -> usize {
        let left = models.len();
        self.preloads.insert(Wanted {
            models,
            left,
            error: None,
            result: None,
            on_done: Vec::new(),
            forgotten: false,
            flip: None,
        })
    }

    /// Has one model of a preload loaded, where it is not there.
    pub(super) fn preload_one(
        &mut self,
        number: usize,
        id: ModelId,
        cause: Cause,
        priority: Priority,
        now: Moment,
    ) {
        if self.closing.is_some() {
            return self.settle(number, id, Err(Self::closed()), now);
        }
        if self.model(id).is_none() {
            let error = self.unknown(id);
            return self.settle(number, id, Err(error), now);
        }
        if self.current(id).is_some() {
            return self.settle(number, id, Ok(()), now);
        }
        match self.want(id, now) {
            Ok(()) => self.join_preload(number, id, cause, priority),
            Err(error) => self.settle(number, id, Err(error), now),
        }
    }

    pub(super) fn join_preload(&mut self, number: usize, id: ModelId, cause: Cause, priority: Priority) {
        if let Some(pending) = self.known(id).and_then(|model| model.pending.as_mut()) {
            pending.preloads.push((number, cause, priority));
        }
    }

    /// One model of a preload is ready, or could not be loaded.
    pub(super) fn settle(&mut self, number: usize, id: ModelId, result: Result<()>, now: Moment) {
        let Some(wanted) = self.preloads.get_mut(number) else {
            return result.err().into_iter().for_each(|error| self.bury(error));
        };
        let flip = wanted.flip.take_if(|(_, target)| *target == id && result.is_ok());
        wanted.left = wanted.left.saturating_sub(1);
        match result {
            Err(error) if wanted.error.is_none() => wanted.error = Some(error),
            Err(error) => self.bury(error),
            Ok(()) => {}
        }
        if let Some((alias, target)) = flip {
            self.flip(number, &alias, target, now);
        }
        self.close_if_settled(number);
    }

    pub(super) fn close_if_settled(&mut self, number: usize) {
        if let Some(wanted) =
            self.preloads.get(number).filter(|wanted| wanted.left == 0 && wanted.result.is_none())
        {
            let result = wanted.error.clone().map_or(Ok(()), Err);
            self.finish(number, result);
        }
    }

    pub(super) fn spoil(&mut self, number: usize, error: Error) {
        if let Some(wanted) = self.preloads.get_mut(number)
            && wanted.error.is_none()
        {
            wanted.error = Some(error);
        }
    }

    fn finish(&mut self, number: usize, result: Result<()>) {
        let Some(wanted) = self.preloads.get_mut(number) else { return };
        for told in std::mem::take(&mut wanted.on_done) {
            self.out.push_back(Effect::Done(told, result.clone()));
        }
        wanted.result = Some(result);
        self.changed = true;
        if wanted.forgotten {
            self.drop_preload(number);
        }
    }

    fn drop_preload(&mut self, number: usize) {
        let Some(wanted) = self.preloads.try_remove(number) else { return };
        let errors = wanted.error.into_iter().chain(wanted.result.and_then(Result::err));
        errors.for_each(|error| self.bury(error));
    }

    pub(in crate::models) fn preload_on_done(&mut self, number: usize, told: Done) {
        match self.preloads.get_mut(number) {
            Some(Wanted { result: Some(result), .. }) => {
                self.out.push_back(Effect::Done(told, result.clone()));
            }
            Some(wanted) => wanted.on_done.push(told),
            None => {}
        }
    }

    pub(in crate::models) fn preload_result(&self, number: usize) -> Option<Result<()>> {
        self.preloads.get(number)?.result.clone()
    }

    /// Its handle is gone.
    pub(in crate::models) fn preload_forget(&mut self, number: usize) {
        match self.preloads.get_mut(number) {
            Some(wanted) if wanted.result.is_none() => wanted.forgotten = true,
            _ => self.drop_preload(number),
        }
    }

    pub(in crate::models) fn preload_cancel(&mut self, number: usize, now: Moment) {
        let Some(wanted) = self.preloads.get_mut(number).filter(|wanted| wanted.result.is_none()) else {
            return;
        };
        wanted.flip = None;
        for id in wanted.models.clone() {
            self.withdraw_preload(number, id, now);
        }
        let error = Error::new(ErrorKind::ModelNotReady, "the preload was cancelled before it was done");
        self.finish(number, Err(error));
        self.pump(now);
    }

    fn withdraw_preload(&mut self, number: usize, id: ModelId, now: Moment) {
        let Some(pending) = self.known(id).and_then(|model| model.pending.as_mut()) else { return };
        let before = pending.preloads.len() + pending.again.len();
        pending.preloads.retain(|(other, ..)| *other != number);
        pending.again.retain(|(other, ..)| *other != number);
        if before == pending.preloads.len() + pending.again.len() {
            return;
        }
        let (residency, wanted) = (pending.residency, pending.is_wanted());
        self.drop_unwanted(id, now);
        let held = self.residents.get(residency).is_some_and(|resident| !resident.holders.is_empty());
        if !wanted && !held && self.coming(id) == Some(residency) {
            // It runs for nobody but this preload.
            if let Some(model) = self.known(id) {
                model.pending = None;
            }
            self.pending.remove(&id);
            self.abandon(residency, Reason::Unload, now);
        }
    }

    /// How far each model is, what they need included.
    pub(in crate::models) fn preload_progress(&mut self, number: usize, now: Moment) -> Vec<Progress> {
        let Some(wanted) = self.preloads.get(number) else { return Vec::new() };
        let models = wanted.models.clone();
        let order = self.graph.closure(&models).unwrap_or(models);
        order.into_iter().map(|id| self.progress(id, now)).collect()
    }
}
