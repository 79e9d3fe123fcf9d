//! The end of a cache.

use super::{Effect, Stage, State};
use crate::flow::Moment;
use crate::models::{ModelId, Reason};

impl State {
    pub(in crate::models) fn close(&mut self, told: Box<dyn FnOnce() + Send>, now: Moment) {
        if let Some(waiting) = &mut self.closing {
            waiting.push(told);
            return self.tell_if_closed();
        }
        self.closing = Some(vec![told]);
        self.changed = true;
        let wanted: Vec<_> = self.pending.iter().copied().collect();
        for id in wanted {
            self.cancel(id, &Self::closed(), Reason::Close, now);
        }
        for at in 0..self.models.len() {
            let id = ModelId(u32::try_from(at).unwrap_or(u32::MAX));
            if let Some(current) = self.current(id) {
                self.retire(current, Reason::Close, now);
            }
        }
        self.tell_if_closed();
    }

    /// Who waits for the end is told when only what nobody can end is left.
    pub(super) fn tell_if_closed(&mut self) {
        let ended = |resident: &super::resident::Resident| resident.stuck || resident.stage == Stage::Viewed;
        if self.closing.is_none() || !self.residents.iter().all(|(_, resident)| ended(resident)) {
            return;
        }
        if let Some(waiting) = &mut self.closing {
            for told in std::mem::take(waiting) {
                self.out.push_back(Effect::Closed(told));
            }
        }
    }
}
