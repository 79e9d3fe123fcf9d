//! Names that lead to models, and move.

use std::sync::Arc;

use super::State;
use crate::error::Result;
use crate::flow::{Moment, Priority};
use crate::models::{Cause, ModelId, Reason};

impl State {
    /// Has an alias lead to another model: at once where nothing is lost by it, else once that is loaded.
    pub(in crate::models) fn alias(&mut self, name: &str, target: &str, now: Moment) -> Result<usize> {
        if self.closing.is_some() {
            return Err(Self::closed());
        }
        let target = self.graph.find(target)?;
        // Also where it is to flip later: whatever is wrong with it, is said now.
        let before = self.graph.find(name).ok();
        let aliased = self.graph.set_alias(name, target)?;
        for (_, wanted) in &mut self.preloads {
            wanted.flip.take_if(|(alias, _)| **alias == *name);
        }
        self.changed = true;
        let serving = before.filter(|old| *old != target && self.current(*old).is_some());
        let number = self.open_preload(serving.map(|_| target).into_iter().collect());
        if let Some(old) = serving
            && self.current(target).is_none()
        {
            if self.fit_together(old, target) {
                match aliased {
                    Some(old) => _ = self.graph.set_alias(name, old)?,
                    None => _ = self.graph.remove_alias(name),
                }
                if let Some(wanted) = self.preloads.get_mut(number) {
                    wanted.flip = Some((Arc::from(name), target));
                }
            } else if let Some(current) = self.current(old) {
                self.retire(current, Reason::Reload, now);
            }
        }
        if serving.is_some() {
            self.preload_one(number, target, Cause::Preload, Priority::Normal, now);
        }
        self.close_if_settled(number);
        self.refresh_pins();
        self.pump(now);
        Ok(number)
    }

    /// The model that an alias waited for is loaded.
    pub(super) fn flip(&mut self, number: usize, alias: &str, target: ModelId, _now: Moment) {
        if let Err(error) = self.graph.set_alias(alias, target) {
            self.spoil(number, error);
        }
        self.refresh_pins();
        self.changed = true;
    }

    fn fit_together(&self, old: ModelId, new: ModelId) -> bool {
        let Some(limit) = self.memory.limit() else { return true };
        let Ok(closure) = self.graph.closure(&[old, new]) else { return true };
        let bytes: u128 = closure.iter().map(|id| u128::from(self.known_bytes_of(*id))).sum();
        bytes + self.kept_beside(&closure) <= u128::from(limit)
    }

    pub(in crate::models) fn remove_alias(&mut self, name: &str) -> bool {
        self.changed = true;
        let there = self.graph.remove_alias(name).is_some();
        self.refresh_pins();
        there
    }
}
