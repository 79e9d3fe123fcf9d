//! Loading anew what is there.

use super::State;
use crate::flow::{Moment, Priority};
use crate::models::{Cause, ModelId};

impl State {
    /// Loads a model anew; a load of it that runs is followed by another.
    pub(in crate::models) fn reload(&mut self, id: ModelId, now: Moment) -> usize {
        let number = self.open_preload(vec![id]);
        for needed in self.graph.closure(&[id]).unwrap_or_else(|_| vec![id]) {
            if self.models.get(needed.0 as usize).is_some_and(|model| model.stuck.is_none()) {
                self.forgive(needed);
            }
            let limit = self.memory.limit();
            if let Some(model) = self.known(needed) {
                // It may be smaller now than what could never be loaded.
                model.measured = model.measured.filter(|bytes| limit.is_none_or(|limit| *bytes <= limit));
            }
        }
        self.reload_one(number, id, Cause::Preload, Priority::Normal, now);
        self.pump(now);
        number
    }

    fn reload_one(&mut self, number: usize, id: ModelId, cause: Cause, priority: Priority, now: Moment) {
        if self.closing.is_some()
            || self.model(id).is_none()
            || self.current(id).is_none() && self.coming(id).is_none()
        {
            return self.preload_one(number, id, cause, priority, now);
        }
        if let Some(coming) = self.coming(id) {
            let runs = self.stage(coming).is_some_and(super::Stage::runs);
            if let Some(pending) = self.known(id).and_then(|model| model.pending.as_mut()) {
                let list = if runs { &mut pending.again } else { &mut pending.preloads };
                list.push((number, cause, priority));
            }
            return;
        }
        match self.refusal(id, now) {
            Ok(()) => {
                self.enter(id, now);
                self.join_preload(number, id, cause, priority);
            }
            Err(error) => self.settle(number, id, Err(error), now),
        }
    }

    /// Those who asked for another load while one ran.
    pub(super) fn load_again(&mut self, id: ModelId, again: Vec<(usize, Cause, Priority)>, now: Moment) {
        if again.is_empty() {
            return;
        }
        self.forgive(id);
        for (number, cause, priority) in again {
            self.reload_one(number, id, cause, priority, now);
        }
    }
}
