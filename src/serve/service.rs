//! What every door serves: models by name, and the numbers of all of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::repository::{Polls, Repository};
use super::shelf::{Departure, Found, Shelf};
use crate::error::Result;
use crate::flow::StreamLimits;
use crate::metrics::Registry;
use crate::models::{Cache, ModelId};
use crate::pipeline::Endpoint;

/// The models of a server. They come and go while it is open: whoever looks for one sees all that is served at that time.
pub struct Service {
    shelf: ArcSwap<Shelf>,
    /// Held by whoever puts another shelf in its place.
    changing: Mutex<()>,
    registry: Arc<Registry>,
    /// What streams of every model keep within.
    limits: OnceLock<StreamLimits>,
    /// The cache that the models live in, where they come and go.
    repository: OnceLock<Repository>,
    /// Whoever looks for models that are new, where somebody does.
    polls: OnceLock<Arc<Polls>>,
    /// True until what is there from the start has been loaded, or could not be.
    starting: AtomicBool,
    /// It was ready once.
    started: AtomicBool,
    /// It is about to close, and still answers whoever comes.
    leaving: AtomicBool,
    /// Whether it closes; told of that, of every model that becomes ready or is not ready any more, and of those that come and go.
    changes: watch::Sender<bool>,
    since: SystemTime,
    /// There is, or was, a model that takes requests as they came.
    passes: AtomicBool,
}

impl Service {
    /// Serves `models` under their names and versions.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) where two have the same name and version.
    pub fn new(models: Vec<Arc<Endpoint>>, registry: Arc<Registry>) -> Result<Arc<Self>> {
        let service = Self {
            shelf: ArcSwap::default(),
            changing: Mutex::default(),
            registry,
            limits: OnceLock::new(),
            repository: OnceLock::new(),
            polls: OnceLock::new(),
            starting: AtomicBool::new(false),
            started: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            changes: watch::Sender::new(false),
            since: SystemTime::now(),
            passes: AtomicBool::new(false),
        };
        models.into_iter().try_for_each(|model| service.add(model, None))?;
        Ok(Arc::new(service))
    }

    /// Serves one more model, of which the cache that it lives in, if it does, has that number.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) where there is one of the same name and version.
    pub fn add(&self, model: Arc<Endpoint>, id: Option<ModelId>) -> Result<()> {
        self.prepare(&model);
        self.change(|shelf| shelf.add(model, id))
    }

    /// Serves a model in place of the one that has its name and version, from one request to the next.
    pub fn replace(&self, model: Arc<Endpoint>, id: Option<ModelId>) -> Option<Departure> {
        self.prepare(&model);
        self.change(|shelf| shelf.replace(model, id))
    }

    /// Serves a model no more; nothing where it was not served. It is for the caller to let its queue drain, and close it.
    pub fn remove(&self, model: &Arc<Endpoint>) -> Option<Departure> {
        self.change(|shelf| shelf.remove(model))
    }

    /// True where it is worth looking whether a request is for a model that takes it as it came.
    pub(super) fn passes(&self) -> bool {
        self.passes.load(Ordering::Relaxed)
    }

    fn prepare(&self, model: &Arc<Endpoint>) {
        if model.passing().is_some() {
            self.passes.store(true, Ordering::Relaxed);
        }
        let told = self.changes.clone();
        model.on_readiness(move || told.send_modify(|_| {}));
        if let Some(limits) = self.limits.get() {
            model.limit_streams(limits.clone());
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Shelf) -> T) -> T {
        let held = self.changing.lock();
        let mut served = Shelf::clone(&self.shelf.load());
        let changed = change(&mut served);
        self.shelf.store(Arc::new(served));
        drop(held);
        self.changes.send_modify(|_| {});
        changed
    }

    /// Has the streams of all models keep within those limits, and of those that come; the first who says so is heard.
    pub(super) fn limit_streams(&self, limits: &StreamLimits) {
        self.limits.get_or_init(|| limits.clone());
        self.models().iter().for_each(|model| model.limit_streams(limits.clone()));
    }

    /// The model of that name and, where one is given, that version. Where models come and go, the name may be an alias, and
    /// so may the version; a name alone means what the cache has as its default, else the highest version.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`](crate::error::ErrorKind::ModelNotFound), naming what there is.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<Found> {
        let served = self.shelf.load();
        if let Some(found) = served.exact(name, version).or_else(|| self.referred(&served, name, version)) {
            return Ok(found);
        }
        served.highest(name, version)
    }

    /// The model that the cache has under that name, if it is one of these.
    fn referred(&self, served: &Shelf, name: &str, version: Option<&str>) -> Option<Found> {
        let repository = self.repository()?;
        let id = match version {
            None => repository.find(name),
            Some(version) => repository.find(&format!("{name}@{version}")),
        };
        served.resident(id.ok()?)
    }

    /// Where everything is counted that is served here.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every version of every model.
    pub fn models(&self) -> Vec<Arc<Endpoint>> {
        self.shelf.load().all().map(Arc::clone).collect()
    }

    /// Every model, once: the version that its name alone means.
    pub(super) fn defaults(&self) -> Vec<Found> {
        self.shelf.load().names().filter_map(|name| self.model(name, None).ok()).collect()
    }

    /// Every version of a model, the highest first.
    pub(super) fn versions(&self, name: &str) -> Vec<String> {
        self.shelf.load().versions(name).iter().map(|model| model.spec.version.clone()).collect()
    }

    /// Since when they are served.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    /// Has calls look for models that are new before they list or load any; the first who says so is heard.
    pub fn poll_by(&self, polls: &Arc<Polls>) {
        self.polls.get_or_init(|| Arc::clone(polls));
    }

    /// Whoever looks for models that are new, where somebody does.
    pub(super) fn polls(&self) -> Option<&Arc<Polls>> {
        self.polls.get()
    }

    /// Says "not ready" as long as what is to be there from the start is on its way.
    pub fn set_starting(&self, starting: bool) {
        self.starting.store(starting, Ordering::Release);
        self.changes.send_modify(|_| {});
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
        self.change(|shelf| {
            shelf.number(|spec| cache.find(&format!("{}@{}", spec.name, spec.version)).ok());
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
            && !self.leaving.load(Ordering::Acquire)
            && !self.starting.load(Ordering::Acquire)
            && match self.repository() {
                Some(repository) => repository.is_ready(),
                None => self.shelf.load().all().all(|model| model.is_ready()),
            }
    }

    /// True once it has been ready, whatever became of it since.
    pub fn is_started(&self) -> bool {
        if !self.started.load(Ordering::Acquire) && self.is_ready() {
            self.started.store(true, Ordering::Release);
        }
        self.started.load(Ordering::Acquire)
    }

    /// True as long as loads are looked after, where there are any.
    pub fn is_alive(&self) -> bool {
        self.repository().is_none_or(Repository::is_alive)
    }

    /// Answers "not ready" from here on, and everything else as before: who looks has time to send elsewhere.
    pub fn begin_leave(&self) {
        // Whoever asks later whether it had started hears the truth.
        self.is_started();
        self.leaving.store(true, Ordering::Release);
        self.changes.send_modify(|_| {});
    }

    /// Answers "not ready" from here on, so that nobody sends more.
    pub fn begin_close(&self) {
        self.is_started();
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
        self.shelf.load().all().for_each(|model| model.observe());
        self.registry.text()
    }
}
