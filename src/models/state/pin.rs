//! Models that stay.

use super::State;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;
use crate::models::{LoadSpec, ModelId};

impl State {
    pub(in crate::models) fn pin(&mut self, id: ModelId, pinned: bool, now: Moment) -> Result<()> {
        if self.model(id).is_none() {
            return Err(self.unknown(id));
        }
        let before = self.models.get(id.0 as usize).is_some_and(|model| model.pinned);
        self.set_pinned(id, pinned);
        if pinned && let Err(error) = self.pins_fit(id) {
            self.set_pinned(id, before);
            return Err(error);
        }
        if pinned {
            self.keep_what_leaves(id, now);
            self.revive(id, now);
        }
        self.changed = true;
        self.pump(now);
        Ok(())
    }

    pub(super) fn set_pinned(&mut self, id: ModelId, pinned: bool) {
        if let Some(model) = self.known(id) {
            model.pinned = pinned;
        }
        self.refresh_pins();
    }

    /// What is pinned stays, and what that needs.
    pub(super) fn refresh_pins(&mut self) {
        let pinned = |id: &ModelId| self.model(*id).is_some_and(|model| model.pinned);
        let roots: Vec<_> = self.graph.ids().filter(pinned).collect();
        for model in &mut self.models {
            model.kept = false;
        }
        for root in roots {
            for id in self.graph.closure(&[root]).unwrap_or_else(|_| vec![root]) {
                if let Some(model) = self.known(id) {
                    model.kept = true;
                }
            }
        }
    }

    /// `Capacity` where a model that is to be registered and pinned would be too much for the memory.
    pub(super) fn pin_fits(&self, spec: &LoadSpec) -> Result<()> {
        let Some(limit) = self.memory.limit() else { return Ok(()) };
        let known = self.graph.find(&format!("{}@{}", spec.name, spec.version)).ok();
        let needs: Vec<_> = spec.requires.iter().filter_map(|needed| self.graph.find(needed).ok()).collect();
        let mut kept = self.graph.closure(&needs).unwrap_or(needs);
        kept.extend(self.graph.ids().filter(|id| self.model(*id).is_some_and(|model| model.kept)));
        kept.sort_unstable();
        kept.dedup();
        kept.retain(|id| Some(*id) != known);
        let beside: u128 = kept.iter().map(|id| u128::from(self.known_bytes_of(*id))).sum();
        let bytes = beside + u128::from(spec.size.unwrap_or_default());
        if bytes <= u128::from(limit) { Ok(()) } else { Err(pinned_too_much(&spec.name, bytes, limit)) }
    }

    /// `Capacity` where not all that is pinned could be in memory at once.
    pub(super) fn pins_fit(&self, id: ModelId) -> Result<()> {
        let Some(limit) = self.memory.limit() else { return Ok(()) };
        let kept = self.graph.ids().filter(|id| self.model(*id).is_some_and(|model| model.kept));
        let bytes: u128 = kept.map(|id| u128::from(self.known_bytes_of(id))).sum();
        if bytes <= u128::from(limit) {
            return Ok(());
        }
        Err(pinned_too_much(&self.label(id), bytes, limit))
    }
}

fn pinned_too_much(name: &str, bytes: u128, limit: u64) -> Error {
    let text = format!(
        "model '{name}' cannot be pinned: what is pinned would take {bytes} bytes of a memory of {limit}"
    );
    Error::new(ErrorKind::Capacity, text)
}
