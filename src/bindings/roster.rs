//! The models of a server by number: they come and go while it is open, and no number is used twice.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::server::Model;
use super::shift::Served;
use crate::batch::Reason;
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Pools;
use crate::metrics::Registry;
use crate::models::{Asked, Cache, Claim, ModelId};
use crate::pipeline::{BatchLog, Endpoint, InCache};
use crate::serve::{Departure, Service};

/// The models of a server.
pub(crate) struct Roster {
    cache: Cache,
    registry: Arc<Registry>,
    service: Arc<Service>,
    runtime: Handle,
    /// Who is told of batches whose requests are recorded.
    batch_log: OnceLock<Arc<dyn BatchLog>>,
    pools: Arc<Pools>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    all: Vec<Option<Entry>>,
    labels: Labels,
    is_closed: bool,
}

struct Entry {
    served: Served,
    id: ModelId,
    /// Those who had found it when it was taken away.
    departure: Option<Arc<Departure>>,
    /// Another has its place.
    succeeded: bool,
    /// Keeps its last load, and so its workers, for them.
    held: Option<Claim>,
}

impl Roster {
    pub(crate) fn new(cache: Cache, registry: Arc<Registry>, service: Arc<Service>, runtime: Handle) -> Self {
        let pools = Pools::new(&registry);
        let batch_log = OnceLock::new();
        Self { cache, registry, service, runtime, batch_log, pools, entries: Mutex::default() }
    }

    /// Has `log` told of every batch with a request that is recorded, of models that are there and of those that come.
    pub(crate) fn trace_by(&self, log: &Arc<dyn BatchLog>) {
        self.batch_log.get_or_init(|| Arc::clone(log));
        for served in self.all() {
            served.endpoint.trace_by(Arc::clone(log));
        }
    }

    /// Opens queues for models that start together; nobody finds them yet.
    ///
    /// # Errors
    /// `Config` where what they say of themselves cannot be, `ModelNotFound` where the cache knows nothing of one, `Closed`.
    pub(crate) fn open(&self, models: Vec<Model>) -> Result<Vec<usize>> {
        let mut entries = self.entries.lock();
        let named = |model: &Model| (model.name.clone(), model.version.clone());
        let labels = entries.labels.of(&models.iter().map(named).collect::<Vec<_>>());
        models
            .into_iter()
            .zip(labels)
            .map(|(model, label)| self.open_one(&mut entries, model, label))
            .collect()
    }

    fn open_one(&self, entries: &mut Entries, model: Model, label: String) -> Result<usize> {
        if entries.is_closed {
            return Err(Error::new(ErrorKind::Closed, "this server was closed"));
        }
        let terms = model.terms();
        let (spec, policy) = model.into_spec()?;
        let id = self.cache.find(&format!("{}@{}", spec.name, spec.version))?;
        let metrics = self.registry.model(&label);
        let endpoint = Endpoint::open(spec, policy, terms.workers, metrics, &self.runtime)?;
        endpoint.reside(InCache { cache: self.cache.clone(), model: id });
        if let Some(log) = self.batch_log.get() {
            endpoint.trace_by(Arc::clone(log));
        }
        if terms.steps {
            endpoint.set_stepwise();
        }
        if terms.single_flight {
            endpoint.share_identical();
        }
        if let Some(passing) = terms.passing {
            endpoint.pass_on(passing);
        }
        let served = Served {
            label,
            endpoint,
            counters: Arc::default(),
            isolate: terms.isolate,
            max_size: terms.max_size,
            processes: Arc::default(),
            pools: Arc::clone(&self.pools),
        };
        entries.all.push(Some(Entry { served, id, departure: None, succeeded: false, held: None }));
        Ok(entries.all.len() - 1)
    }

    /// Lets requests find a model.
    ///
    /// # Errors
    /// `Config` where one of its name and version is served.
    pub(crate) fn publish(&self, index: usize) -> Result<()> {
        let (endpoint, id) = self.with(index, |entry| (Arc::clone(&entry.served.endpoint), entry.id))?;
        self.service.add(endpoint, Some(id))
    }

    /// Lets requests find a model in place of another of its name and version, whose last load is kept for those who had
    /// found that.
    ///
    /// # Errors
    /// `Closed` where one of them is not there any more.
    pub(crate) fn succeed(&self, old: usize, new: usize) -> Result<()> {
        let held = {
            let id = self.with(old, |entry| entry.id)?;
            // Before the new load serves: after that, the old one could be had no more.
            self.cache.try_acquire(id, &Asked::default())
        };
        let (endpoint, id) = self.with(new, |entry| (Arc::clone(&entry.served.endpoint), entry.id))?;
        let departure = self.service.replace(endpoint, Some(id)).map(Arc::new);
        self.with(old, |entry| {
            entry.succeeded = true;
            (entry.departure, entry.held) = (departure, held);
        })
    }

    /// Lets requests find a model no more.
    pub(crate) fn withdraw(&self, index: usize) {
        let Ok(endpoint) = self.with(index, |entry| Arc::clone(&entry.served.endpoint)) else { return };
        if let Some(departure) = self.service.remove(&endpoint) {
            let departure = Arc::new(departure);
            // Gone meanwhile, it needs none.
            let _ = self.with(index, |entry| entry.departure = Some(departure));
        }
    }

    /// Blocks until all who had found a model have their answers, or it is `until`; answers whether that came.
    pub(crate) fn drain(&self, index: usize, until: Instant) -> bool {
        let found = self.with(index, |entry| {
            (Arc::clone(&entry.served.endpoint), entry.departure.clone(), entry.succeeded)
        });
        let Ok((endpoint, departure, succeeded)) = found else { return true };
        if succeeded && !endpoint.is_ready() {
            // Whoever waits for its workers does so in vain: the load that comes is the other's.
            return true;
        }
        let left = departure.is_none_or(|departure| departure.wait(until));
        left && endpoint.wait_idle(until.saturating_duration_since(Instant::now()))
    }

    /// Closes a model's queue and forgets it: what waits is refused, and what runs is answered.
    pub(crate) fn remove(&self, index: usize) {
        self.withdraw(index);
        let (entry, is_last) = {
            let mut entries = self.entries.lock();
            let entry = entries.all.get_mut(index).and_then(Option::take);
            let same =
                |other: &Entry| entry.as_ref().is_some_and(|entry| entry.served.label == other.served.label);
            let is_last = !entries.all.iter().flatten().any(same);
            (entry, is_last)
        };
        if let Some(entry) = entry {
            entry.served.endpoint.close(false);
            if is_last {
                self.registry.forget(&entry.served.label, Reason::ALL.map(Reason::name));
            }
        }
    }

    /// The model of that number.
    ///
    /// # Errors
    /// `Closed` where it was taken away.
    pub(crate) fn served(&self, index: usize) -> Result<Served> {
        self.with(index, |entry| entry.served.clone())
    }

    /// What metrics and statistics call the model of that number.
    pub(crate) fn label(&self, index: usize) -> Option<String> {
        self.with(index, |entry| entry.served.label.clone()).ok()
    }

    /// Every model that is there, those that came first first.
    pub(crate) fn all(&self) -> Vec<Served> {
        self.entries.lock().all.iter().flatten().map(|entry| entry.served.clone()).collect()
    }

    /// Takes no model more, and gives all that are there.
    pub(crate) fn close(&self) -> Vec<Served> {
        self.entries.lock().is_closed = true;
        self.all()
    }

    fn with<T>(&self, index: usize, look: impl FnOnce(&mut Entry) -> T) -> Result<T> {
        let mut entries = self.entries.lock();
        let entry = entries.all.get_mut(index).and_then(Option::as_mut);
        entry.map(look).ok_or_else(|| Error::new(ErrorKind::Closed, "this model is not served any more"))
    }
}

/// What models are called in metrics and statistics: once given, a label stays, also where the model comes back.
#[derive(Default)]
struct Labels {
    known: HashMap<(String, String), String, ahash::RandomState>,
}

impl Labels {
    /// The labels of models that come together. The name alone, where it is the only version of it so far; the name and the
    /// version otherwise.
    fn of(&mut self, models: &[(String, String)]) -> Vec<String> {
        let single = |name: &String| models.iter().filter(|(other, _)| other == name).count() == 1;
        let all = models.iter().map(|(name, version)| {
            let key = (name.clone(), version.clone());
            if let Some(known) = self.known.get(&key) {
                return known.clone();
            }
            let is_first = !self.known.keys().any(|(other, _)| other == name);
            let label = if is_first && single(name) { name.clone() } else { format!("{name}@{version}") };
            self.known.insert(key, label.clone());
            label
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, version: &str) -> (String, String) {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn a_label_stays_when_versions_come_and_go() {
        let mut labels = Labels::default();
        assert_eq!(labels.of(&[model("a", "1"), model("b", "1"), model("b", "2")]), ["a", "b@1", "b@2"]);
        assert_eq!(labels.of(&[model("a", "2")]), ["a@2"]);
        assert_eq!(labels.of(&[model("a", "1")]), ["a"], "it comes back");
        assert_eq!(labels.of(&[model("c", "3")]), ["c"]);
    }
}
