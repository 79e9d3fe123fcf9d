//! The cache on a clock that only tests move, with a loader that does nothing until it is told.

mod acquire;
mod closing;
mod dependencies;
mod failures;
mod line;
mod memory;
mod numbers;
mod races;
mod ranked;
mod reload;
mod unload;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Clock, Priority, TimeSource, VirtualClock};

/// What a loader was asked to do, in order.
#[derive(Debug, Clone, PartialEq)]
enum Order {
    Load(Load),
    Cancel(Residency),
    Unload(Residency),
    Rank(Ranking),
}

#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<Order>>,
}

impl Loader for Recorder {
    fn load(&self, load: Load) {
        self.asked.lock().push(Order::Load(load));
    }

    fn cancel(&self, residency: Residency) {
        self.asked.lock().push(Order::Cancel(residency));
    }

    fn unload(&self, residency: Residency) {
        self.asked.lock().push(Order::Unload(residency));
    }

    fn rank(&self, question: Ranking) {
        self.asked.lock().push(Order::Rank(question));
    }
}

type Answer<T> = Arc<Mutex<Vec<T>>>;

/// A cache and all that is around it.
struct Yard {
    cache: Cache,
    clock: Arc<VirtualClock>,
    loader: Arc<Recorder>,
}

/// Somebody who asked.
struct Client {
    claim: Claim,
    told: Answer<Result<Residency>>,
}

impl Client {
    /// What it was told; `None` where it was not yet.
    fn answer(&self) -> Option<Result<Residency>> {
        let told = self.told.lock();
        assert!(told.len() < 2, "it was told twice");
        assert!(told.is_empty() || !self.claim.at_once(), "it had its lease already");
        told.first().cloned()
    }

    fn has(&self) -> Option<Residency> {
        let residency = self.claim.residency();
        if !self.claim.at_once() {
            assert_eq!(residency, self.answer().and_then(Result::ok));
        }
        residency
    }

    fn error(&self) -> Error {
        self.answer().expect("it was told").expect_err("in vain")
    }

    fn waits(&self) -> bool {
        !self.claim.at_once() && self.answer().is_none()
    }
}

fn settings(memory: Option<u64>) -> CacheSettings {
    CacheSettings { memory, seed: 7, ..CacheSettings::default() }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl Yard {
    fn new(memory: impl Into<Option<u64>>) -> Self {
        Self::with(settings(memory.into()))
    }

    fn with(settings: CacheSettings) -> Self {
        let (clock, loader) = (Arc::new(VirtualClock::new()), Arc::new(Recorder::default()));
        let time = TimeSource::Virtual(Arc::clone(&clock));
        let cache = Cache::new(settings, Arc::clone(&loader) as Arc<dyn Loader>, time).unwrap();
        Self { cache, clock, loader }
    }

    fn model(&self, name: &str, size: u64, requires: &[&str]) -> ModelId {
        self.register(spec(name, size, requires))
    }

    fn register(&self, spec: LoadSpec) -> ModelId {
        let id = self.cache.register(spec).unwrap();
        self.check();
        id
    }

    fn check(&self) {
        self.cache.check();
    }

    fn ask(&self, id: ModelId) -> Client {
        self.ask_as(id, &Asked::default())
    }

    fn ask_as(&self, id: ModelId, asked: &Asked<'_>) -> Client {
        let told = Answer::default();
        let heard = Arc::clone(&told);
        let claim = self.cache.acquire(id, asked, Box::new(move |result| heard.lock().push(result)));
        self.check();
        Client { claim, told }
    }

    /// A lease on what is there.
    fn hit(&self, id: ModelId) -> Client {
        let client = self.ask(id);
        assert!(client.claim.at_once(), "{:?}", self.state(id));
        client
    }

    /// A lease on what is there, or was to leave and had not begun to.
    fn hit_or_revived(&self, id: ModelId) -> Client {
        let client = self.ask(id);
        assert!(client.claim.at_once(), "it was torn away");
        client
    }

    /// Has a model loaded and leaves it.
    fn warm(&self, id: ModelId) {
        let client = self.ask(id);
        self.finish_all();
        assert!(client.has().is_some(), "{:?}", client.answer());
        drop(client);
        self.check();
    }

    fn unload(&self, id: ModelId, dependents: bool, drain: Option<f64>) -> Answer<Result<()>> {
        let told = Answer::default();
        let heard = Arc::clone(&told);
        self.cache.unload(id, dependents, drain.map(secs), Box::new(move |result| heard.lock().push(result)));
        self.check();
        told
    }

    /// Loads that began and were not taken from here.
    fn loads(&self) -> Vec<Load> {
        let mut asked = self.loader.asked.lock();
        let loads = asked.extract_if(.., |asked| matches!(asked, Order::Load(_)));
        loads.filter_map(|asked| if let Order::Load(load) = asked { Some(load) } else { None }).collect()
    }

    /// The loads that began since, by name.
    fn begun(&self) -> Vec<String> {
        let asked = self.loader.asked.lock();
        let name =
            |asked: &Order| if let Order::Load(load) = asked { Some(load.name.to_string()) } else { None };
        asked.iter().filter_map(name).collect()
    }

    /// The one load of that name that began.
    fn load(&self, name: &str) -> Load {
        let mut asked = self.loader.asked.lock();
        let at = asked.iter().position(|asked| matches!(asked, Order::Load(load) if *load.name == *name));
        let at = at.unwrap_or_else(|| panic!("no load of {name} began"));
        let Order::Load(load) = asked.remove(at) else { unreachable!() };
        load
    }

    fn finish(&self, name: &str) -> Residency {
        self.finish_with(name, None)
    }

    fn finish_with(&self, name: &str, size: Option<u64>) -> Residency {
        let residency = self.load(name).residency;
        self.cache.loaded(residency, size);
        self.check();
        residency
    }

    fn fail(&self, name: &str, retry: bool) -> Residency {
        let residency = self.load(name).residency;
        self.cache.failed(residency, Error::new(ErrorKind::Model, "ValueError: no such file"), retry);
        self.check();
        residency
    }

    /// Ends whatever the loader was asked to do, until it is asked nothing more.
    fn finish_all(&self) {
        loop {
            let asked = std::mem::take(&mut *self.loader.asked.lock());
            if asked.is_empty() {
                return;
            }
            for asked in asked {
                match asked {
                    Order::Load(load) => _ = self.cache.loaded(load.residency, None),
                    Order::Unload(residency) => self.cache.unloaded(residency, 0),
                    Order::Cancel(_) => {}
                    Order::Rank(question) => {
                        self.cache.ranked(question.question, vec![0.0; question.candidates.len()]);
                    }
                }
                self.check();
            }
        }
    }

    /// What the loader was told to let go, and cancel.
    fn unloads(&self) -> Vec<Residency> {
        let mut asked = self.loader.asked.lock();
        let unloads = asked.extract_if(.., |asked| matches!(asked, Order::Unload(_)));
        unloads
            .filter_map(|asked| if let Order::Unload(residency) = asked { Some(residency) } else { None })
            .collect()
    }

    fn cancels(&self) -> Vec<Residency> {
        let mut asked = self.loader.asked.lock();
        let cancels = asked.extract_if(.., |asked| matches!(asked, Order::Cancel(_)));
        cancels
            .filter_map(|asked| if let Order::Cancel(residency) = asked { Some(residency) } else { None })
            .collect()
    }

    /// Lets go what the loader was told to.
    fn let_go(&self) -> usize {
        let going = self.unloads();
        for residency in &going {
            self.cache.unloaded(*residency, 0);
            self.check();
        }
        going.len()
    }

    /// Time passes, and what is due is done when it is.
    fn pass(&self, seconds: f64) {
        let end = self.clock.now() + secs(seconds);
        let mut turns = 0;
        loop {
            let due = self.cache.tick();
            self.check();
            match due {
                Some(due) if due <= end => {
                    turns = if due > self.clock.now() { 0 } else { turns + 1 };
                    assert!(turns < 100, "something stays due");
                    self.clock.advance_to(due);
                }
                _ => break,
            }
        }
        self.clock.advance_to(end);
        self.cache.tick();
        self.check();
    }

    fn state(&self, id: ModelId) -> LoadState {
        self.row(id).state
    }

    fn row(&self, id: ModelId) -> IndexRow {
        self.cache.index().into_iter().find(|row| row.model == id).expect("it is registered")
    }

    fn used(&self) -> u64 {
        self.cache.stats().bytes.used
    }
}

fn spec(name: &str, size: u64, requires: &[&str]) -> LoadSpec {
    LoadSpec {
        size: Some(size),
        retries: 0,
        requires: requires.iter().map(|&needed| needed.into()).collect(),
        ..LoadSpec::new(name, "1")
    }
}

fn watch(preload: &Preload) -> Answer<Result<()>> {
    let told = Answer::default();
    let heard = Arc::clone(&told);
    preload.on_done(move |result| heard.lock().push(result));
    told
}

fn done(told: &Answer<Result<()>>) -> Option<Result<()>> {
    assert!(told.lock().len() < 2, "it was told twice");
    told.lock().first().cloned()
}

fn well(told: &Answer<Result<()>>) -> bool {
    matches!(done(told), Some(Ok(())))
}
