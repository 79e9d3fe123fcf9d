//! What every door serves: models by name, and the numbers of all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Registry;
use crate::pipeline::Endpoint;

/// The models of a server.
pub struct Service {
    models: BTreeMap<String, Arc<Endpoint>>,
    registry: Arc<Registry>,
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
        Ok(Arc::new(Self { models: by_name, registry, changes, since: SystemTime::now() }))
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

    /// True where every model can answer and the server is not closing.
    pub fn is_ready(&self) -> bool {
        !self.is_closing() && self.models.values().all(|model| model.is_ready())
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
