//! What every door serves: models by name, and the numbers of all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::repository::Repository;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Registry;
use crate::models::Cache;
use crate::pipeline::Endpoint;

/// The models of a server.
pub struct Service {
    models: BTreeMap<String, Arc<Endpoint>>,
    registry: Arc<Registry>,
    /// The cache that the models live in, where they come and go.
    repository: OnceLock<Repository>,
    /// Whether it closes; told of that, and of every model that becomes ready or is not ready any more.
    changes: watch::Sender<bool>,
    since: SystemTime,
}

impl Service {
    /// Serves `models` under their names.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where two have the same name.
    pub fn new(models: Vec<Arc<Endpoint>>, registry: Arc<Registry>) -> Result<Arc<Self>> {
        let mut by_name = BTreeMap::new();
        let changes = watch::Sender::new(false);
        for model in models {
            let name = model.spec.name.clone();
            let told = changes.clone();
            model.on_readiness(move || told.send_modify(|_| {}));
            if by_name.insert(name.clone(), model).is_some() {
                return Err(Error::new(ErrorKind::Config, format!("two models are named '{name}'")));
            }
        }
        Ok(Arc::new(Self {
            models: by_name,
            registry,
            repository: OnceLock::new(),
            changes,
            since: SystemTime::now(),
        }))
    }

    /// The model of that name and, where one is given, that version.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`], naming what there is.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<&Arc<Endpoint>> {
        let Some(model) = self.models.get(name) else {
            let known: Vec<_> = self.models.keys().collect();
            let message = format!("there is no model '{name}'; there are {known:?}");
            return Err(Error::new(ErrorKind::ModelNotFound, message));
        };
        match version {
            Some(version) if version != model.spec.version => {
                let known = &model.spec.version;
                let message = format!("model '{name}' has no version '{version}'; it has '{known}'");
                Err(Error::new(ErrorKind::ModelNotFound, message))
            }
            _ => Ok(model),
        }
    }

    /// Every model.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.models.values()
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
                None => self.models.values().all(|model| model.is_ready()),
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
        for model in self.models.values() {
            model.observe();
        }
        self.registry.text()
    }
}
