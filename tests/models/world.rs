//! A cache, its clock, and a loader whose work the test does: everything that the cache has it do is checked as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock::error::{Error, ErrorKind, Result};
use penstock::flow::{Clock, Moment, Priority, TimeSource, VirtualClock};
use penstock::models::{
    Asked, Cache, CacheSettings, Cause, Claim, Load, LoadSpec, Loader, ModelId, Preload, Ranking, Reason,
    Residency,
};

/// What a cache has its loader do.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Load(Load),
    Cancel(Residency),
    Unload(Residency),
    Rank(Ranking),
}

/// Notes what it is told to do.
#[derive(Default)]
pub(crate) struct Notebook {
    orders: Mutex<Vec<Order>>,
}

impl Loader for Notebook {
    fn load(&self, load: Load) {
        self.orders.lock().push(Order::Load(load));
    }

    fn cancel(&self, residency: Residency) {
        self.orders.lock().push(Order::Cancel(residency));
    }

    fn unload(&self, residency: Residency) {
        self.orders.lock().push(Order::Unload(residency));
    }

    fn rank(&self, question: Ranking) {
        self.orders.lock().push(Order::Rank(question));
    }
}

/// How far a residency is, as its loader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Loading,
    /// It failed, and may come again.
    Failed,
    Loaded,
    Unloading,
    Gone,
}

#[derive(Debug, Clone)]
pub(crate) struct Resident {
    pub(crate) model: ModelId,
    pub(crate) requires: Vec<Residency>,
    pub(crate) phase: Phase,
    pub(crate) attempt: u32,
    pub(crate) cancelled: bool,
    /// What it was said to take.
    pub(crate) bytes: Option<u64>,
    /// Of that, what is looked at after it was unloaded.
    pub(crate) viewed: u64,
    pub(crate) began: Moment,
}

/// What somebody who waits was told.
pub(crate) type Told<T> = Arc<Mutex<Vec<Result<T>>>>;

pub(crate) struct Asker {
    pub(crate) claim: Claim,
    pub(crate) model: ModelId,
    pub(crate) told: Told<Residency>,
}

pub(crate) struct World {
    pub(crate) cache: Cache,
    pub(crate) clock: Arc<VirtualClock>,
    notebook: Arc<Notebook>,
    pub(crate) max_loads: usize,
    pub(crate) memory: Option<u64>,
    pub(crate) residents: BTreeMap<Residency, Resident>,
    pub(crate) askers: Vec<Asker>,
    /// What those were told who gave up: nothing more may come.
    left: Vec<(Told<Residency>, usize)>,
    pub(crate) preloads: Vec<(Preload, Told<()>)>,
    pub(crate) unloads: Vec<Told<()>>,
    pub(crate) questions: Vec<Ranking>,
    pub(crate) pinned: BTreeSet<ModelId>,
    pub(crate) closed: Option<Arc<Mutex<u32>>>,
    /// Models whose load in flight somebody took back: another may begin beside it.
    pub(crate) excused: BTreeSet<ModelId>,
    /// Everything that happened, in words.
    pub(crate) log: Vec<String>,
    began: usize,
}

/// What led to a failure, where somebody asks for it: the story of each try of a script is long.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("PENSTOCK_STORY").is_some() {
            let _ = writeln!(std::io::stderr(), "story:\n{}\nend of story", self.log.join("\n"));
        }
    }
}

impl World {
    pub(crate) fn new(settings: CacheSettings) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let notebook = Arc::new(Notebook::default());
        let (max_loads, memory) = (settings.max_loads, settings.memory);
        let loader = Arc::clone(&notebook) as Arc<dyn Loader>;
        let cache = Cache::new(settings, loader, TimeSource::Virtual(Arc::clone(&clock))).unwrap();
        Self {
            cache,
            clock,
            notebook,
            max_loads,
            memory,
            residents: BTreeMap::new(),
            askers: Vec::new(),
            left: Vec::new(),
            preloads: Vec::new(),
            unloads: Vec::new(),
            questions: Vec::new(),
            pinned: BTreeSet::new(),
            closed: None,
            excused: BTreeSet::new(),
            log: Vec::new(),
            began: 0,
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Registers a model of version 1.
    pub(crate) fn model(&mut self, name: &str, requires: &[&str], size: Option<u64>) -> ModelId {
        let requires = requires.iter().map(|&name| name.into()).collect();
        self.cache.register(LoadSpec { requires, size, ..LoadSpec::new(name, "1") }).unwrap()
    }

    pub(crate) fn ask(&mut self, model: ModelId) -> usize {
        self.ask_as(model, &Asked::default())
    }

    /// Acquires; where in `askers` the claim is.
    pub(crate) fn ask_as(&mut self, model: ModelId, asked: &Asked<'_>) -> usize {
        let told = Told::<Residency>::default();
        let tell = {
            let told = Arc::clone(&told);
            Box::new(move |result| told.lock().push(result))
        };
        let claim = self.cache.acquire(model, asked, tell);
        self.askers.push(Asker { claim, model, told });
        self.settle(&format!("acquire {}", model.0));
        self.askers.len() - 1
    }

    /// Gives a claim back, or up.
    pub(crate) fn give_back(&mut self, at: usize) {
        let Asker { claim, told, model } = self.askers.swap_remove(at);
        drop(claim);
        let said = told.lock().len();
        self.left.push((told, said));
        self.settle(&format!("give back {}", model.0));
    }

    pub(crate) fn give_all_back(&mut self) {
        while !self.askers.is_empty() {
            self.give_back(self.askers.len() - 1);
        }
    }

    pub(crate) fn preload(&mut self, models: &[ModelId], cause: Cause, priority: Priority) -> usize {
        let preload = self.cache.preload(models, cause, priority);
        self.watch(preload);
        self.settle(&format!("preload {models:?} {cause:?} {priority:?}"));
        self.preloads.len() - 1
    }

    pub(crate) fn watch(&mut self, preload: Preload) {
        let told = Told::<()>::default();
        let tell = Arc::clone(&told);
        preload.on_done(Box::new(move |result| tell.lock().push(result)));
        self.preloads.push((preload, told));
    }

    pub(crate) fn reload(&mut self, model: ModelId) -> usize {
        self.excused.insert(model);
        let preload = self.cache.reload(model);
        self.watch(preload);
        self.settle(&format!("reload {}", model.0));
        self.preloads.len() - 1
    }

    pub(crate) fn unload(&mut self, model: ModelId, dependents: bool, drain: Option<Duration>) -> Told<()> {
        self.excused.extend(self.residents.values().map(|resident| resident.model));
        let told = Told::<()>::default();
        let tell = {
            let told = Arc::clone(&told);
            Box::new(move |result| told.lock().push(result))
        };
        self.cache.unload(model, dependents, drain, tell);
        self.unloads.push(Arc::clone(&told));
        self.settle(&format!("unload {} {dependents} {drain:?}", model.0));
        told
    }

    pub(crate) fn pin(&mut self, model: ModelId, pinned: bool) -> Result<()> {
        let result = self.cache.pin(model, pinned);
        if result.is_ok() {
            if pinned {
                self.pinned.insert(model)
            } else {
                self.pinned.remove(&model)
            };
        }
        self.settle(&format!("pin {} {pinned}: {result:?}", model.0));
        result
    }

    pub(crate) fn loaded(&mut self, residency: Residency, size: Option<u64>) {
        let resident = self.residents.get_mut(&residency).unwrap();
        assert_eq!(resident.phase, Phase::Loading);
        (resident.phase, resident.bytes) = (Phase::Loaded, size);
        self.cache.loaded(residency, size);
        self.settle(&format!("loaded {} {size:?}", residency.0));
    }

    pub(crate) fn failed(&mut self, residency: Residency, retry: bool) {
        let resident = self.residents.get_mut(&residency).unwrap();
        assert_eq!(resident.phase, Phase::Loading);
        resident.phase = Phase::Failed;
        self.cache.failed(residency, Error::new(ErrorKind::Model, "ValueError: boom"), retry);
        self.settle(&format!("failed {} {retry}", residency.0));
    }

    pub(crate) fn unloaded(&mut self, residency: Residency, viewed: u64) {
        let resident = self.residents.get_mut(&residency).unwrap();
        assert_eq!(resident.phase, Phase::Unloading);
        (resident.phase, resident.viewed) = (Phase::Gone, viewed);
        self.cache.unloaded(residency, viewed);
        self.settle(&format!("unloaded {} {viewed}", residency.0));
    }

    pub(crate) fn returned(&mut self, residency: Residency, bytes: u64) {
        let resident = self.residents.get_mut(&residency).unwrap();
        resident.viewed -= bytes;
        self.cache.returned(residency, bytes);
        self.settle(&format!("returned {} {bytes}", residency.0));
    }

    pub(crate) fn dead(&mut self, residency: Residency) {
        self.excused.insert(self.residents[&residency].model);
        self.cache.dead(residency, Error::new(ErrorKind::Model, "worker process ended"));
        self.settle(&format!("dead {}", residency.0));
    }

    pub(crate) fn answer(&mut self, question: usize, scores: Vec<f64>) {
        let question = self.questions.swap_remove(question);
        self.cache.ranked(question.question, scores);
        self.settle(&format!("ranked {}", question.question));
    }

    /// Moves the clock, ticking whenever the cache asked for it.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.pass_while(time, |_| true);
    }

    /// The same, until there is something for the loader to do.
    pub(crate) fn pass_idle(&mut self, time: Duration) {
        self.pass_while(time, Self::is_idle);
    }

    /// True where the loader has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        let busy = |resident: &Resident| matches!(resident.phase, Phase::Loading | Phase::Unloading);
        !self.residents.values().any(busy) && self.questions.is_empty()
    }

    fn pass_while(&mut self, time: Duration, goes_on: impl Fn(&Self) -> bool) {
        let end = self.now() + time;
        loop {
            let due = self.cache.tick();
            self.settle("tick");
            if !goes_on(self) {
                return;
            }
            match due {
                Some(due) if due <= end => {
                    assert!(due > self.now(), "a tick at {:?} asks for another at {due:?}", self.now());
                    self.clock.advance_to(due);
                }
                _ => break,
            }
        }
        self.clock.advance_to(end);
        self.cache.tick();
        self.settle(&format!("{time:?} later"));
    }

    pub(crate) fn close(&mut self) {
        self.excused.extend(self.residents.values().map(|resident| resident.model));
        let times = Arc::new(Mutex::new(0));
        let tell = Arc::clone(&times);
        self.cache.close(Box::new(move || *tell.lock() += 1));
        self.closed = Some(times);
        self.settle("close");
    }

    /// The residencies in that phase.
    pub(crate) fn in_phase(&self, phase: Phase) -> Vec<Residency> {
        let there = self.residents.iter().filter(|(_, resident)| resident.phase == phase);
        there.map(|(residency, _)| *residency).collect()
    }

    /// What was unloaded and is still looked at, in bytes.
    pub(crate) fn viewed(&self) -> Vec<(Residency, u64)> {
        let viewed = self.residents.iter().filter(|(_, resident)| resident.viewed > 0);
        viewed.map(|(residency, resident)| (*residency, resident.viewed)).collect()
    }

    /// What the loader works on for a model.
    pub(crate) fn loading(&self, model: ModelId) -> Option<Residency> {
        let loading = |resident: &Resident| resident.model == model && resident.phase == Phase::Loading;
        self.residents.iter().find(|(_, resident)| loading(resident)).map(|(residency, _)| *residency)
    }

    pub(crate) fn serving(&self, model: ModelId) -> Option<Residency> {
        self.cache.index().into_iter().find(|row| row.model == model)?.serving
    }

    /// Everything that loads at present is loaded, with so many bytes each.
    pub(crate) fn finish_loads(&mut self, size: Option<u64>) {
        for residency in self.in_phase(Phase::Loading) {
            self.loaded(residency, size);
        }
    }

    /// Everything that is to be unloaded is.
    pub(crate) fn finish_unloads(&mut self) {
        for residency in self.in_phase(Phase::Unloading) {
            self.unloaded(residency, 0);
        }
    }

    /// Notes and checks what the cache has its loader do, and that it is in order afterwards.
    pub(crate) fn settle(&mut self, what: &str) {
        self.log.push(what.to_owned());
        self.began = 0;
        let orders = std::mem::take(&mut *self.notebook.orders.lock());
        for order in orders {
            self.log.push(format!("  {order:?}"));
            self.follow(order);
        }
        self.check_told();
        self.check_bytes();
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Load(load) => self.begin(load),
            Order::Cancel(residency) => {
                let resident =
                    self.residents.get_mut(&residency).expect("what was never loaded is cancelled");
                assert!(!resident.cancelled, "{residency:?} is cancelled twice");
                assert_eq!(resident.phase, Phase::Loading, "{residency:?} is cancelled");
                resident.cancelled = true;
            }
            Order::Unload(residency) => self.end(residency),
            Order::Rank(question) => self.questions.push(question),
        }
    }

    fn begin(&mut self, load: Load) {
        let (residency, model) = (load.residency, load.model);
        for needed in &load.requires {
            let phase = self.residents[needed].phase;
            assert_eq!(phase, Phase::Loaded, "{residency:?} needs {needed:?}");
        }
        let others = self
            .residents
            .iter()
            .filter(|(other, resident)| **other != residency && resident.phase == Phase::Loading);
        for (other, resident) in others {
            let twice = resident.model == model && !(resident.cancelled && self.excused.contains(&model));
            assert!(!twice, "{model:?} is loaded as {residency:?} and as {other:?}");
        }
        let now = self.clock.now();
        let resident = self.residents.entry(residency).or_insert_with(|| Resident {
            model,
            requires: Vec::new(),
            phase: Phase::Failed,
            attempt: 0,
            cancelled: false,
            bytes: None,
            viewed: 0,
            began: now,
        });
        assert_eq!(
            (resident.phase, resident.attempt + 1),
            (Phase::Failed, load.attempt),
            "{residency:?} comes"
        );
        assert!(!resident.cancelled, "{residency:?} was cancelled and comes again");
        (resident.phase, resident.attempt, resident.began) = (Phase::Loading, load.attempt, now);
        resident.requires = load.requires;
        self.began += 1;
        let running =
            self.residents.values().filter(|other| other.phase == Phase::Loading && !other.cancelled);
        assert!(running.count() <= self.max_loads, "more than {} loads run", self.max_loads);
    }

    fn end(&mut self, residency: Residency) {
        let resident = &self.residents[&residency];
        assert_eq!(resident.phase, Phase::Loaded, "{residency:?} is unloaded");
        let leased = self.askers.iter().filter(|asker| asker.claim.residency() == Some(residency)).count();
        assert_eq!(leased, 0, "{residency:?} is unloaded and leased");
        for (other, dependent) in &self.residents {
            let lives = matches!(dependent.phase, Phase::Loading | Phase::Loaded | Phase::Unloading);
            assert!(
                !(lives && dependent.requires.contains(&residency)),
                "{other:?} needs {residency:?}, which is unloaded"
            );
        }
        let model = resident.model;
        let stats = self.cache.stats().models.into_iter().find(|row| row.model == model);
        let reason = stats.and_then(|row| row.last_eviction).map(|last| last.reason);
        if self.pinned.contains(&model) {
            assert_ne!(reason, Some(Reason::Space), "{model:?} is pinned and leaves for space");
        }
        self.residents.get_mut(&residency).unwrap().phase = Phase::Unloading;
    }

    fn check_told(&self) {
        for (told, before) in &self.left {
            assert_eq!(told.lock().len(), *before, "who left was told");
        }
        for asker in &self.askers {
            let told = asker.told.lock();
            assert!(told.len() <= 1, "told {} times", told.len());
            assert!(!asker.claim.at_once() || told.is_empty(), "a hit was told");
            if let Some(Ok(residency)) = told.first() {
                assert_eq!(asker.claim.residency(), Some(*residency));
            }
            if let Some(Err(_)) = told.first() {
                assert_eq!(asker.claim.residency(), None);
            }
            if let Some(leased) = asker.claim.residency() {
                let resident = &self.residents[&leased];
                assert_eq!(resident.phase, Phase::Loaded, "{leased:?} is leased");
                assert_eq!(resident.model, asker.claim.model());
            }
        }
        for (preload, told) in &self.preloads {
            assert!(told.lock().len() <= 1);
            assert_eq!(preload.is_done(), !told.lock().is_empty());
        }
        for told in &self.unloads {
            assert!(told.lock().len() <= 1);
        }
    }

    fn check_bytes(&self) {
        let stats = self.cache.stats();
        let bytes = stats.bytes;
        assert_eq!(bytes.used, bytes.ready + bytes.reserved + bytes.draining + bytes.viewed);
        assert_eq!(bytes.deficit, bytes.used.saturating_sub(bytes.memory.unwrap_or(u64::MAX)));
        assert_eq!(bytes.memory, self.memory);
        if self.began > 0 {
            assert_eq!(bytes.deficit, 0, "a load begins though more is used than there is");
        }
        let viewed: u64 = self.residents.values().map(|resident| resident.viewed).sum();
        assert_eq!(bytes.viewed, viewed);
        let held = |resident: &&Resident| matches!(resident.phase, Phase::Loaded | Phase::Unloading);
        let known: u64 = self.residents.values().filter(held).filter_map(|resident| resident.bytes).sum();
        assert!(bytes.ready + bytes.draining >= known, "{known} bytes are there, {bytes:?} are counted");
        if self.residents.values().filter(held).all(|resident| resident.bytes.is_some()) {
            assert_eq!(bytes.ready + bytes.draining, known);
        }
        let stuck =
            self.residents.values().filter(|other| other.phase == Phase::Loading && other.cancelled).count();
        let running = self.residents.values().filter(|other| other.phase == Phase::Loading).count();
        assert!(
            stats.loading <= running && stats.loading + stuck >= running,
            "{} of {running} load",
            stats.loading
        );
    }
}
