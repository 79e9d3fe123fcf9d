//! Models that are registered, replaced and taken out.

use std::sync::Arc;

use super::State;
use super::model::Model;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;
use crate::models::graph::Node;
use crate::models::{LoadSpec, ModelId, Reason};

impl State {
    pub(in crate::models) fn register(&mut self, spec: LoadSpec, now: Moment) -> Result<ModelId> {
        if self.closing.is_some() {
            return Err(Self::closed());
        }
        spec.check()?;
        if spec.pinned {
            self.pin_fits(&spec)?;
        }
        let node =
            Node { name: spec.name.clone(), version: spec.version.clone(), requires: spec.requires.clone() };
        let id = self.graph.register(node)?;
        let spec = Arc::new(spec);
        if (id.0 as usize) < self.models.len() {
            self.replace(id, spec, now);
        } else {
            self.models.push(Model::new(spec));
        }
        self.refresh_pins();
        self.changed = true;
        self.pump(now);
        Ok(id)
    }

    /// As [`register`](Self::register), but what is loaded goes on serving until a reload takes its place.
    pub(in crate::models) fn amend(&mut self, spec: LoadSpec, now: Moment) -> Result<ModelId> {
        let known = self.graph.find(&format!("{}@{}", spec.name, spec.version)).ok();
        let known = known.filter(|id| self.current(*id).is_some() || self.coming(*id).is_some());
        if self.closing.is_some() || known.is_none() {
            return self.register(spec, now);
        }
        spec.check()?;
        if spec.pinned {
            self.pin_fits(&spec)?;
        }
        let node =
            Node { name: spec.name.clone(), version: spec.version.clone(), requires: spec.requires.clone() };
        let id = self.graph.register(node)?;
        if let Some(model) = self.known(id) {
            model.pinned = spec.pinned;
            model.spec = Arc::new(spec);
        }
        self.let_stuck_go(id);
        self.restart(id, Reason::Replaced, now);
        self.refresh_pins();
        self.changed = true;
        self.pump(now);
        Ok(id)
    }

    /// The same name and version, registered again: what is loaded goes, and what was known of its size and failures.
    fn replace(&mut self, id: ModelId, spec: Arc<LoadSpec>, now: Moment) {
        self.forgive(id);
        if let Some(model) = self.known(id) {
            model.pinned = spec.pinned;
            model.spec = spec;
            (model.registered, model.measured, model.complaint) = (true, None, None);
        }
        self.let_stuck_go(id);
        if let Some(current) = self.current(id) {
            self.retire(current, Reason::Replaced, now);
        }
        self.restart(id, Reason::Replaced, now);
    }

    /// A load that is stuck is of no concern to the model any more.
    fn let_stuck_go(&mut self, id: ModelId) {
        let Some(stuck) = self.known(id).and_then(|model| model.stuck.take()) else { return };
        if let Some(resident) = self.residents.get_mut(stuck) {
            resident.unwanted = Some(Reason::Replaced);
        }
    }

    pub(in crate::models) fn unregister(&mut self, id: ModelId, now: Moment) {
        if self.model(id).is_none() {
            return;
        }
        let label = self.label(id);
        let error = Error::new(ErrorKind::ModelNotFound, format!("model '{label}' was taken out"));
        self.cancel(id, &error, Reason::Replaced, now);
        self.graph.remove(id);
        self.forgive(id);
        self.let_stuck_go(id);
        if let Some(model) = self.known(id) {
            (model.registered, model.expected) = (false, false);
        }
        if let Some(current) = self.current(id) {
            self.retire(current, Reason::Replaced, now);
        }
        self.refresh_pins();
        self.changed = true;
        self.pump(now);
    }

    pub(in crate::models) fn find(&self, reference: &str) -> Result<ModelId> {
        self.graph.find(reference)
    }
}
