//! A server whose models come and go, and the hands that load them: a test holds a load up, or has it fail.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use penstock::batch::{BatchPolicy, Entry, Ran, Shift, Turn};
use penstock::error::{Error, ErrorKind, Result};
use penstock::flow::TimeSource;
use penstock::metrics::Registry;
use penstock::models::{
    Asked, Cache, CacheSettings, Cause, Load, LoadSpec, Loader, ModelId, Ranking, Residency,
};
use penstock::pipeline::{
    AnswerRow, Endpoint, Finished, Lease, Loading, ModelSpec, Piece, Reply, RequestTerms, Residence, Said,
    Task, Told,
};
use penstock::serve::{Door, HttpServer, HttpSettings, Service, listen};
use penstock::tensor::{Column, ColumnSpec, DType, TensorSpec};

use super::PATIENCE;

/// What runs one load of a model: its queue, its shift, its thread.
type Working = (Arc<Endpoint>, Arc<Shift>, JoinHandle<()>);

/// A model on the shelf: `tensors` doubles a number, `text` says three words.
pub(crate) struct Item {
    pub(crate) name: &'static str,
    pub(crate) requires: &'static [&'static str],
    pub(crate) size: u64,
    pub(crate) task: Option<Task>,
}

/// How a shelf is set up.
pub(crate) struct Shelving {
    pub(crate) items: Vec<Item>,
    pub(crate) memory: Option<u64>,
    pub(crate) http: HttpSettings,
    /// Names of the models that are to be there from the start.
    pub(crate) start: &'static [&'static str],
    /// Whether somebody looks after the loads.
    pub(crate) kept: bool,
}

impl Default for Shelving {
    fn default() -> Self {
        let tensors = |name| Item { name, requires: &[], size: 10, task: Some(Task::Tensors) };
        let talk = Item { name: "talk", requires: &[], size: 10, task: Some(Task::Generate) };
        let scale = Item { name: "scale", requires: &[], size: 5, task: None };
        let head = Item { name: "head", requires: &["scale"], size: 10, task: Some(Task::Tensors) };
        Self {
            items: vec![tensors("double"), tensors("other"), talk, scale, head],
            memory: None,
            http: HttpSettings::default(),
            start: &[],
            kept: true,
        }
    }
}

/// A server, its models and who loads them.
pub(crate) struct Shelf {
    pub(crate) server: HttpServer,
    pub(crate) inside: Arc<Door>,
    pub(crate) cache: Cache,
    pub(crate) hands: Arc<Hands>,
    pub(crate) endpoints: HashMap<&'static str, Arc<Endpoint>>,
}

/// Loads and unloads: each load waits at the gate of its model.
#[derive(Default)]
pub(crate) struct Hands {
    cache: OnceLock<Cache>,
    endpoints: OnceLock<HashMap<&'static str, Arc<Endpoint>>>,
    sizes: OnceLock<HashMap<&'static str, u64>>,
    gates: Mutex<HashMap<String, Gate>>,
    moved: Condvar,
    loading: Mutex<HashMap<String, Residency>>,
    working: Mutex<HashMap<Residency, Working>>,
    /// The names of all that was loaded, in its order.
    pub(crate) loaded: Mutex<Vec<String>>,
    /// How long nothing was taken up.
    pub(crate) behind: Mutex<Duration>,
}

#[derive(Debug, Clone)]
enum Gate {
    Closed,
    Fails(&'static str),
}

impl Hands {
    /// Loads of that model wait from here on.
    pub(crate) fn hold(&self, name: &str) {
        self.gates.lock().insert(name.to_owned(), Gate::Closed);
    }

    /// Loads of that model fail from here on, those that wait included.
    pub(crate) fn fail(&self, name: &str, why: &'static str) {
        self.gates.lock().insert(name.to_owned(), Gate::Fails(why));
        self.moved.notify_all();
    }

    /// Loads of that model succeed from here on.
    pub(crate) fn let_go(&self, name: &str) {
        self.gates.lock().remove(name);
        self.moved.notify_all();
    }

    /// A load that waits says how far it is.
    pub(crate) fn report(&self, name: &str, phase: &str, fraction: f32) {
        let residency = self.loading.lock()[name];
        assert!(self.cache().report(residency, phase, Some(fraction)));
    }

    fn cache(&self) -> &Cache {
        self.cache.get().unwrap()
    }

    fn pass(&self, name: &str) -> Result<()> {
        let mut gates = self.gates.lock();
        while let Some(Gate::Closed) = gates.get(name) {
            assert!(!self.moved.wait_for(&mut gates, PATIENCE).timed_out(), "the gate stayed closed");
        }
        match gates.get(name) {
            Some(Gate::Fails(why)) => Err(Error::new(ErrorKind::Model, *why)),
            _ => Ok(()),
        }
    }

    fn bring(self: &Arc<Self>, load: &Load) {
        self.loading.lock().insert(load.name.as_ref().to_owned(), load.residency);
        if let Err(error) = self.pass(&load.name) {
            self.cache().failed(load.residency, error, false);
            return;
        }
        if let Some(endpoint) = self.endpoints.get().unwrap().get(&*load.name) {
            let (endpoint, shift) = (Arc::clone(endpoint), Arc::<Shift>::default());
            let worker = std::thread::spawn({
                let (endpoint, shift) = (Arc::clone(&endpoint), Arc::clone(&shift));
                move || work(&endpoint, &shift)
            });
            endpoint.begin_shift(&shift);
            self.working.lock().insert(load.residency, (endpoint, shift, worker));
        }
        self.loaded.lock().push(load.name.as_ref().to_owned());
        let size = self.sizes.get().unwrap().get(&*load.name).copied();
        self.cache().loaded(load.residency, size);
    }
}

/// The half of the hands that the cache knows.
struct Grip(Arc<Hands>);

impl Loader for Grip {
    fn load(&self, load: Load) {
        let hands = Arc::clone(&self.0);
        drop(std::thread::spawn(move || hands.bring(&load)));
    }

    fn cancel(&self, _residency: Residency) {}

    fn unload(&self, residency: Residency) {
        let hands = Arc::clone(&self.0);
        drop(std::thread::spawn(move || {
            if let Some((endpoint, shift, worker)) = hands.working.lock().remove(&residency) {
                endpoint.end_shift(&shift);
                worker.join().unwrap();
            }
            hands.cache().unloaded(residency, 0);
        }));
    }

    fn rank(&self, _question: Ranking) {}

    fn behind(&self) -> Duration {
        *self.0.behind.lock()
    }
}

/// A model's place in the cache.
struct Place {
    cache: Cache,
    model: ModelId,
}

impl Residence for Place {
    fn hit(&self, _terms: &RequestTerms) -> Option<Lease> {
        Some(Box::new(self.cache.try_acquire(self.model, &Asked::default())?))
    }

    fn wait(&self, _terms: &RequestTerms, told: Told) -> Lease {
        let told = Arc::new(Mutex::new(Some(told)));
        let later = Arc::clone(&told);
        let tell = move |came: Result<()>| {
            let told = later.lock().take();
            told.unwrap()(came);
        };
        let claim =
            self.cache.acquire(self.model, &Asked::default(), Box::new(move |came| tell(came.map(|_| ()))));
        if claim.at_once() {
            let told = told.lock().take();
            told.unwrap()(Ok(()));
        }
        Box::new(claim)
    }

    fn progress(&self) -> Loading {
        let progress = self.cache.progress(self.model);
        Loading { state: progress.state, phase: progress.phase, fraction: progress.fraction }
    }
}

impl Shelf {
    pub(crate) fn open() -> Self {
        Self::with(Shelving::default())
    }

    pub(crate) fn with(shelving: Shelving) -> Self {
        let runtime = penstock::runtime::handle().unwrap();
        let registry = Arc::new(Registry::new());
        let hands = Arc::<Hands>::default();
        let settings = CacheSettings { memory: shelving.memory, ..CacheSettings::default() };
        let cache = Cache::new(settings, Arc::new(Grip(Arc::clone(&hands))), TimeSource::system()).unwrap();
        let mut endpoints = HashMap::new();
        let mut ids = HashMap::new();
        for item in &shelving.items {
            let spec = LoadSpec {
                requires: item.requires.iter().map(|name| (*name).into()).collect(),
                size: Some(item.size),
                retries: 0,
                ..LoadSpec::new(item.name, "1")
            };
            let model = cache.register(spec).unwrap();
            ids.insert(item.name, model);
            if let Some(task) = item.task {
                let metrics = registry.model(item.name);
                let endpoint =
                    Endpoint::open(described(item.name, task), BatchPolicy::default(), 1, metrics, &runtime);
                let endpoint = endpoint.unwrap();
                endpoint.reside(Place { cache: cache.clone(), model });
                endpoints.insert(item.name, endpoint);
            }
        }
        let sizes = shelving.items.iter().map(|item| (item.name, item.size)).collect();
        assert!(hands.cache.set(cache.clone()).is_ok());
        assert!(hands.endpoints.set(endpoints.clone()).is_ok());
        assert!(hands.sizes.set(sizes).is_ok());
        let all = endpoints.values().map(Arc::clone).collect();
        let service = Service::new(all, Arc::clone(&registry)).unwrap();
        service.keep_models_in(&cache, &runtime);
        if shelving.kept {
            cache.keep(&runtime);
        }
        let start: Vec<_> = shelving.start.iter().map(|name| ids[name]).collect();
        if !start.is_empty() {
            drop(cache.preload(&start, Cause::Start, penstock::flow::Priority::Normal));
        }
        let inside = Door::new(service, shelving.http, None, &registry).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let server = HttpServer::open(listen(any).unwrap(), Arc::clone(&inside), true, &runtime).unwrap();
        Self { server, inside, cache, hands, endpoints }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The line of the metrics that begins so, without that.
    pub(crate) fn counted(&self, name: &str) -> String {
        let text = self.inside.metrics_text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("there is no {name} in\n{text}")).to_owned()
    }

    pub(crate) fn id(&self, name: &str) -> ModelId {
        self.cache.find(name).unwrap()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.hands.gates.lock().clear();
        self.hands.moved.notify_all();
        self.endpoints.values().for_each(|endpoint| endpoint.close(false));
        self.server.begin_close();
        let (tell, told) = std::sync::mpsc::channel();
        self.cache.close(Box::new(move || {
            let _ = tell.send(());
        }));
        // A test that failed has left something behind, and said so.
        let _ = told.recv_timeout(Duration::from_secs(5));
        self.inside.connection_count().wait_none(Duration::from_millis(100));
    }
}

fn described(name: &str, task: Task) -> ModelSpec {
    let (inputs, outputs) = match task {
        Task::Generate => (("request", "string"), ("text", "string")),
        _ => (("x", "float32"), ("y", "float32")),
    };
    let axes: &[i64] = if task == Task::Generate { &[] } else { &[-1] };
    let tensor = |(name, elements): (&str, &str)| vec![TensorSpec::new(name, elements, axes).unwrap()];
    ModelSpec {
        name: name.to_owned(),
        version: "1".to_owned(),
        inputs: tensor(inputs),
        outputs: tensor(outputs),
        task,
    }
}

/// A worker's shift: numbers are doubled, prompts answered with three words.
fn work(endpoint: &Arc<Endpoint>, shift: &Shift) {
    while endpoint.wait_in(shift) == Turn::Work {
        let Some((batch, mut account)) = endpoint.take() else { continue };
        account.call();
        let rows = match endpoint.spec.task {
            Task::Generate => batch.entries.iter().map(|entry| talk(endpoint, entry)).collect(),
            _ => doubled(endpoint, batch.rows.columns()),
        };
        account.close(Duration::from_millis(1));
        endpoint.finish(Finished { entries: batch.entries, rows, account, ran: Ran::Unknown });
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands where others can fail")]
fn talk(endpoint: &Endpoint, entry: &Entry<Reply>) -> Result<Said> {
    let words = ["one ", "two ", "three"].map(|word| Piece::Text(Bytes::from_static(word.as_bytes())));
    let speaker = entry.waiter.speaker().unwrap();
    endpoint.wake(words.into_iter().filter_map(|word| speaker.say(word)).collect());
    Ok(Said::Finish { reason: Some("stop".into()), prompt_tokens: None })
}

fn doubled(endpoint: &Endpoint, columns: &[Column]) -> Vec<Result<Said>> {
    let Some(Column::Numbers { memory, row_bytes, .. }) = columns.first() else { panic!("no numbers") };
    let spec = ColumnSpec::Numbers { dtype: DType::Float32, shape: [*row_bytes / 4].as_slice().into() };
    let mut column = Column::new(&spec, endpoint.spares());
    let numbers = memory.as_slice().chunks_exact(4).map(|each| f32::from_ne_bytes(each.try_into().unwrap()));
    if let Column::Numbers { memory, .. } = &mut column {
        numbers.for_each(|number| memory.extend(&(number * 2.0).to_ne_bytes()));
    }
    let columns = Arc::new(vec![column]);
    let rows = memory.as_slice().len() / row_bytes;
    (0..rows).map(|row| Ok(Said::Row(AnswerRow::new(Arc::clone(&columns), row)))).collect()
}
