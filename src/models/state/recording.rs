//! What is needed to ask what another memory would have done.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use super::model::Model;
use crate::models::recall::Recording;
use crate::models::simulate::Loaded;
use crate::models::{LoadSpec, ModelId};

impl State {
    /// What is remembered, and what is known of the models that it names.
    pub(in crate::models) fn recording(&self) -> Recording {
        let (asks, whole) = self.recall.accesses();
        let models = (0..).map(ModelId).zip(&self.models).map(|(id, model)| self.loaded_again(id, model));
        Recording { settings: self.settings.clone(), models: models.collect(), asks, whole }
    }

    /// A model by its number: names lead elsewhere with time, and numbers do not.
    fn loaded_again(&self, id: ModelId, model: &Model) -> Loaded {
        let name = |id: ModelId| Arc::from(id.0.to_string());
        // Of one that cannot be loaded as things are, what it needs cannot be told.
        let requires = self.graph.requires(id).unwrap_or_default();
        let current = model.current.and_then(|residency| self.residents.get(residency));
        let bytes = current.map_or_else(|| self.estimate(id), |resident| resident.bytes);
        let spec = LoadSpec {
            requires: requires.into_iter().map(name).collect(),
            size: Some(bytes),
            timeout: Duration::MAX,
            pinned: model.registered && model.pinned,
            ..LoadSpec::new(name(id), "1")
        };
        Loaded {
            spec,
            bytes,
            load: Duration::try_from_secs_f64(model.facts.load_seconds).unwrap_or_default(),
        }
    }
}
