//! What every door serves: models by name, and the numbers of all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::repository::Repository;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Registry;
use crate::models::{Cache, ModelId};
use crate::pipeline::{Endpoint, ModelSpec};

/// The models of a server.
pub struct Service {
    /// The versions of each name, the highest first.
    models: BTreeMap<String, Vec<Arc<Endpoint>>>,
    registry: Arc<Registry>,
    /// The cache that the models live in, where they come and go.
    repository: OnceLock<Repository>,
    /// The models by what that cache calls them.
    residents: OnceLock<HashMap<ModelId, Arc<Endpoint>>>,
    /// Whether it closes; told of that, and of every model that becomes ready or is not ready any more.
    changes: watch::Sender<bool>,
    since: SystemTime,
}

impl Service {
    /// Serves `models` under their names and versions.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where two have the same name and version.
    pub fn new(models: Vec<Arc<Endpoint>>, registry: Arc<Registry>) -> Result<Arc<Self>> {
        let mut by_name: BTreeMap<String, Vec<Arc<Endpoint>>> = BTreeMap::new();
        let changes = watch::Sender::new(false);
        for model in models {
            let told = changes.clone();
            model.on_readiness(move || told.send_modify(|_| {}));
            let versions = by_name.entry(model.spec.name.clone()).or_default();
            if versions.iter().any(|known| known.spec.version == model.spec.version) {
                let ModelSpec { name, version, .. } = &*model.spec;
                let message = format!("two models are named '{name}' and have version '{version}'");
                return Err(Error::new(ErrorKind::Config, message));
            }
            versions.push(model);
        }
        for versions in by_name.values_mut() {
            let number = |model: &Arc<Endpoint>| model.spec.version.parse::<u64>().ok();
            versions.sort_by(|one, other| {
                (number(other), &other.spec.version).cmp(&(number(one), &one.spec.version))
            });
        }
        Ok(Arc::new(Self {
            models: by_name,
            registry,
            repository: OnceLock::new(),
            residents: OnceLock::new(),
            changes,
            since: SystemTime::now(),
        }))
    }

    /// The model of that name and, where one is given, that version. Where models come and go, the name may be an alias, and
    /// so may the version; a name alone means what the cache has as its default, else the highest version.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`], naming what there is.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<&Arc<Endpoint>> {
        let versions = self.models.get(name).map(Vec::as_slice).unwrap_or_default();
        let found = match (versions, version) {
            (versions, Some(version)) => versions.iter().find(|model| model.spec.version == *version),
            ([only], None) => Some(only),
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some(found) = self.referred(name, version) {
            return Ok(found);
        }
        match (versions, version) {
            ([highest, ..], None) => Ok(highest),
            ([], _) => {
                let known: Vec<_> = self.models.keys().collect();
                let message = format!("there is no model '{name}'; there are {known:?}");
                Err(Error::new(ErrorKind::ModelNotFound, message))
            }
            (_, Some(version)) => {
                let known: Vec<_> =
                    versions.iter().map(|model| format!("'{}'", model.spec.version)).collect();
                let known = known.join(", ");
                let message = format!("model '{name}' has no version '{version}'; it has {known}");
                Err(Error::new(ErrorKind::ModelNotFound, message))
            }
        }
    }

    /// The model that the cache has under that name, if it is one of these.
    fn referred(&self, name: &str, version: Option<&str>) -> Option<&Arc<Endpoint>> {
        let (repository, residents) = (self.repository()?, self.residents.get()?);
        let id = match version {
            None => repository.find(name),
            Some(version) => repository.find(&format!("{name}@{version}")),
        };
        residents.get(&id.ok()?)
    }

    /// Every version of every model.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.models.values().flatten()
    }

    /// Every model, once: the version that its name alone means.
    pub(super) fn defaults(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.models.keys().filter_map(|name| self.model(name, None).ok())
    }

    /// Every version of a model, the highest first.
    pub(super) fn versions(&self, name: &str) -> impl Iterator<Item = &str> {
        self.models.get(name).into_iter().flatten().map(|model| model.spec.version.as_str())
    }

    /// Since when they are served.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    /// Has calls list, load and unload the models of `cache`, and whoever watches the server told of what becomes of them,
    /// from here on; the first who says so is heard.
    pub fn keep_models_in(&self, cache: &Cache, runtime: &Handle) {
        self.repository.get_or_init(|| {
            let (mut moved, told) = (cache.changes(), self.changes.clone());
            drop(runtime.spawn(async move {
                while moved.changed().await.is_ok() {
                    told.send_modify(|_| {});
                }
            }));
            Repository::new(cache.clone(), &self.registry)
        });
        self.residents.get_or_init(|| {
            let id = |model: &Arc<Endpoint>| {
                cache.find(&format!("{}@{}", model.spec.name, model.spec.version)).ok()
            };
            self.models().filter_map(|model| Some((id(model)?, Arc::clone(model)))).collect()
        });
    }

    /// The models that come and go, where they do.
    pub(super) fn repository(&self) -> Option<&Repository> {
        self.repository.get()
    }

    /// True where the server is not closing and can answer: every model, or, where models come and go, those that were to
    /// be there from the start have come, what is pinned is there, and loads are looked after.
    pub fn is_ready(&self) -> bool {
        !self.is_closing()
            && match self.repository() {
                Some(repository) => repository.is_ready(),
                None => self.models().all(|model| model.is_ready()),
            }
    }

    /// True as long as loads are looked after, where there are any.
    pub fn is_alive(&self) -> bool {
        self.repository().is_none_or(Repository::is_alive)
    }

    /// Answers "not ready" from here on, so that nobody sends more.
    pub fn begin_close(&self) {
        self.changes.send_replace(true);
    }

    /// True from the beginning of the close on.
    pub(super) fn is_closing(&self) -> bool {
        *self.changes.borrow()
    }

    /// Whether it closes, for somebody who waits: it changes, too, where a model becomes ready or is not ready any more.
    pub(super) fn changes(&self) -> watch::Receiver<bool> {
        self.changes.subscribe()
    }

    /// Waits until it closes.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping the future.
    pub(super) async fn closed(&self) {
        // Whoever would tell is alive as long as this is.
        let _ = self.changes().wait_for(|is_closing| *is_closing).await;
    }

    /// The text of every metric.
    pub fn metrics(&self) -> String {
        for model in self.models() {
            model.observe();
        }
        self.registry.text()
    }
}
