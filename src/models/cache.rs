//! The owner of a [`State`]: it holds the lock and the clock, and carries out what is decided once the lock is released.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use super::claim::{Claim, Kind};
use super::preload::Preload;
use super::progress::Progress;
use super::state::{Acquired, Effect, State};
use super::stats::{CacheStats, Health, IndexRow, WhatIf};
use super::{Asked, CacheSettings, Cause, LoadSpec, Loader, ModelId, Residency, keeper};
use crate::error::{Error, Result};
use crate::flow::{Clock, Moment, Priority, TimeSource};

/// Without a beat for longer than this, the task that keeps a cache has stopped.
const LOST_BEAT: Duration = Duration::from_secs(5);

/// A loader that takes nothing up for longer than this has stopped; it may have waited for the interpreter's lock.
const LOST_LOADER: Duration = Duration::from_secs(30);

/// Models in memory, by reference and under a limit. Cheap to clone; every clone is the same cache.
///
/// Every method may be called on any thread and returns without waiting for a load. Nothing of a caller's runs under the
/// cache's lock: what is told, is told once it is released, on whatever thread moved the cache, one thing after another and
/// in the order in which it was decided. What is told must not block.
#[derive(Clone)]
pub struct Cache {
    inside: Arc<Inside>,
}

/// What claims and preloads share with the cache.
pub(super) struct Inside {
    state: Mutex<State>,
    loader: Arc<dyn Loader>,
    pub(super) clock: TimeSource,
    changes: watch::Sender<u64>,
    pub(super) alarm: Arc<Notify>,
    /// Nanoseconds of `beats` at the last beat of the task that keeps it; 0 before the first.
    beat: AtomicU64,
    beats: TimeSource,
    kept: AtomicBool,
}

impl Cache {
    /// A cache that knows of no model.
    ///
    /// # Errors
    /// `Config` where the settings contradict themselves.
    pub fn new(settings: CacheSettings, loader: Arc<dyn Loader>, clock: TimeSource) -> Result<Self> {
        let inside = Inside {
            state: Mutex::new(State::new(settings)?),
            loader,
            clock,
            changes: watch::channel(0).0,
            alarm: Arc::new(Notify::new()),
            beat: AtomicU64::new(0),
            beats: TimeSource::system(),
            kept: AtomicBool::new(false),
        };
        Ok(Self { inside: Arc::new(inside) })
    }

    /// Keeps the cache with a task on `runtime`: it ticks when something is due, and beats. The task ends with the cache.
    /// Called again, it does nothing.
    pub fn keep(&self, runtime: &tokio::runtime::Handle) {
        if !self.inside.kept.swap(true, Ordering::AcqRel) {
            keeper::keep(&self.inside, runtime);
        }
    }

    /// Does what is due, and says when it wants to be called again.
    pub fn tick(&self) -> Option<Moment> {
        self.inside.tick()
    }

    /// Adds a model. One of the same name and version is replaced and keeps its number: what is loaded of it drains, and the
    /// next acquire loads anew.
    ///
    /// # Errors
    /// `DependencyCycle`, naming the path, where it would close a circle; `Config` for a name, version or setting that cannot
    /// be; `Capacity` where it is pinned and what is pinned would not fit into the memory; `Closed`. Then nothing has changed.
    pub fn register(&self, spec: LoadSpec) -> Result<ModelId> {
        self.inside.step(|state, now| state.register(spec, now))
    }

    /// As [`register`](Self::register), but what is loaded of a model of that name and version goes on serving until a
    /// [`reload`](Self::reload) takes its place.
    ///
    /// # Errors
    /// As those of `register`. Then nothing has changed.
    pub fn amend(&self, spec: LoadSpec) -> Result<ModelId> {
        self.inside.step(|state, now| state.amend(spec, now))
    }

    /// Takes a model out: who waits for it is told `ModelNotFound`, what is loaded drains.
    pub fn remove(&self, id: ModelId) {
        self.inside.step(|state, now| state.unregister(id, now));
    }

    /// The model that a reference names: `name` (the alias of that name, else its highest version), `name@version`, an alias,
    /// or `name@alias`.
    ///
    /// # Errors
    /// `ModelNotFound`, naming what there is.
    pub fn find(&self, reference: &str) -> Result<ModelId> {
        self.inside.look(|state, _| state.find(reference))
    }

    /// A lease where the model is there; else `None`, and nothing is counted.
    pub fn try_acquire(&self, id: ModelId, asked: &Asked<'_>) -> Option<Claim> {
        let (residency, early) = {
            let mut state = self.inside.state.lock();
            let now = self.inside.clock.now();
            (state.hit(id, asked, now)?, state.is_early_to_wish())
        };
        if early {
            self.inside.alarm.notify_one();
        }
        Some(Claim::new(Arc::clone(&self.inside), id, Kind::Hit(residency, id)))
    }

    /// A lease: at once where the model is there ([`Claim::at_once`], and `told` is dropped), else as soon as it is loaded.
    /// `told` is then called exactly once, unless the claim is dropped first; with an error that may be before this returns.
    ///
    /// Told `ModelNotFound` where the model, or one that it needs, is not registered; `LoadFailed` or `LoadTimeout`, at once
    /// while that is remembered; `Capacity` where there is no room for it and what it needs; `DeadlineExceeded` at
    /// `asked.until`; `ModelNotReady` where it is unloaded meanwhile; `Closed`. A model with a fallback gives that instead,
    /// where it can be had, unless the caller's time was up or the cache closed.
    pub fn acquire(
        &self,
        id: ModelId,
        asked: &Asked<'_>,
        told: Box<dyn FnOnce(Result<Residency>) + Send>,
    ) -> Claim {
        if let Some(claim) = self.try_acquire(id, asked) {
            return claim;
        }
        let acquired = self.inside.step(|state, now| state.acquire(id, asked, told, now));
        let kind = match acquired {
            Acquired::Hit(residency, model) => Kind::Hit(residency, model),
            Acquired::Waits(entry) => Kind::Waiting(entry),
        };
        Claim::new(Arc::clone(&self.inside), id, kind)
    }

    /// Has models loaded, and what they need, though nobody uses them yet. A live request that comes meanwhile lifts them in
    /// the queue. Done when all are settled, with the first failure where there is one.
    pub fn preload(&self, ids: &[ModelId], cause: Cause, priority: Priority) -> Preload {
        let number = self.inside.step(|state, now| state.preload(ids, cause, priority, now));
        Preload::new(Arc::clone(&self.inside), number)
    }

    /// Keeps a model, and what it needs, from being evicted, or lets it. It loads nothing, and what is pinned can still be
    /// unloaded by name.
    ///
    /// # Errors
    /// `ModelNotFound`; `Capacity` where what is pinned would not fit into the memory.
    pub fn pin(&self, id: ModelId, pinned: bool) -> Result<()> {
        self.inside.step(|state, now| state.pin(id, pinned, now))
    }

    /// Unloads a model, those that need it first; leases on it last on. Whoever waits for its load is told `ModelNotReady`.
    /// `told` once all is unloaded: with `DeadlineExceeded` where leases last longer than `drain` (they go on draining), with
    /// `Config`, naming them and changing nothing, where others need it and `dependents` is false.
    pub fn unload(
        &self,
        id: ModelId,
        dependents: bool,
        drain: Option<Duration>,
        told: Box<dyn FnOnce(Result<()>) + Send>,
    ) {
        self.inside.step(|state, now| state.unload(id, dependents, drain, told, now));
    }

    /// Loads a model anew and forgives its failures. The old one serves until the new one is ready, and stays where that
    /// fails; where both do not fit, the old one goes first. While a load of it runs already, another follows it.
    pub fn reload(&self, id: ModelId) -> Preload {
        let number = self.inside.step(|state, now| state.reload(id, now));
        Preload::new(Arc::clone(&self.inside), number)
    }

    /// Has an alias lead to what `target` names. Where it led to a model that is loaded, it flips once the new one is, and
    /// stays where that fails; where both do not fit, it flips at once and the old one goes first.
    ///
    /// # Errors
    /// `ModelNotFound`; `Config` for a name that cannot be an alias; `DependencyCycle` where a model that needs the alias
    /// would come to need itself; `Closed`.
    pub fn alias(&self, name: &str, target: &str) -> Result<Preload> {
        let number = self.inside.step(|state, now| state.alias(name, target, now))?;
        Ok(Preload::new(Arc::clone(&self.inside), number))
    }

    /// Takes an alias away; false where there was none.
    pub fn remove_alias(&self, name: &str) -> bool {
        self.inside.step(|state, _| state.remove_alias(name))
    }

    /// Every registered model and how far it is, in the order of registration.
    pub fn index(&self) -> Vec<IndexRow> {
        self.inside.look(|state, now| state.index(now))
    }

    /// The numbers.
    pub fn stats(&self) -> CacheStats {
        self.inside.look(|state, now| state.stats(now))
    }

    /// How long each load that ended well took, in microseconds.
    pub fn load_times(&self) -> Histogram<u64> {
        self.inside.look(|state, _| state.load_times())
    }

    /// What the last 10,000 accesses would have been with that much memory: they are replayed through a cache like this one, in
    /// time that is only counted. It takes some tens of milliseconds of the caller's; the cache goes on meanwhile. Preloads and
    /// predictions are left out, uses take no time, and a ranking of the loader's own is replaced by the order of last use.
    pub fn what_if(&self, memory: u64) -> WhatIf {
        // Replayed without the lock: nobody waits for it.
        self.inside.look(|state, _| state.recording()).replay(memory)
    }

    /// Whether the cache is well: what was to be there from the start, its task's beat, and loads that are stuck.
    pub fn health(&self) -> Health {
        let (waiting, stuck, closing) = self.inside.look(|state, _| state.health());
        let beat = self.inside.last_beat();
        let beating = beat.is_none_or(|beat| beat < LOST_BEAT) && self.inside.loader.behind() < LOST_LOADER;
        Health { beat, beating, waiting, stuck, closing }
    }

    /// How far a model is.
    pub fn progress(&self, id: ModelId) -> Progress {
        self.inside.look(|state, now| state.progress(id, now))
    }

    /// Moves with every change of a state or of progress.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inside.changes.subscribe()
    }

    /// The present moment of its clock, for [`Asked::until`].
    pub fn now(&self) -> Moment {
        self.inside.clock.now()
    }

    /// Admits nothing from here on. Who waits is told `Closed`, what loads is cancelled, what is loaded is unloaded as soon as
    /// nobody leases it, dependents first. `told` when nothing is left but loads that are stuck and bytes that are viewed;
    /// every call is told.
    pub fn close(&self, told: Box<dyn FnOnce() + Send>) {
        self.inside.step(|state, now| state.close(told, now));
    }

    /// The loader says how far it is. False where the load is no longer wanted: it should stop.
    pub fn report(&self, residency: Residency, phase: &str, fraction: Option<f32>) -> bool {
        self.inside.step(|state, _| state.report(residency, phase, fraction))
    }

    /// The loader has loaded the model and runs it for the first time.
    pub fn warming(&self, residency: Residency) {
        self.inside.step(|state, _| state.warming(residency));
    }

    /// The loader has loaded the model; `size` is what it takes in bytes, where that was measured. Said of a load that is no
    /// longer wanted, it is unloaded at once. True where it serves from here on.
    #[allow(clippy::must_use_candidate, reason = "loaders that have nothing to begin need not know")]
    pub fn loaded(&self, residency: Residency, size: Option<u64>) -> bool {
        self.inside.step(|state, now| state.loaded(residency, size, now))
    }

    /// The loader could not load the model. `retry` where another attempt might.
    pub fn failed(&self, residency: Residency, error: Error, retry: bool) {
        self.inside.step(|state, now| state.failed(residency, error, retry, now));
    }

    /// The loader has let the model go. `viewed` bytes of it are still looked at and count until they are
    /// [`returned`](Self::returned).
    pub fn unloaded(&self, residency: Residency, viewed: u64) {
        self.inside.step(|state, now| state.unloaded(residency, viewed, now));
    }

    /// So many bytes of an unloaded model are no longer looked at.
    pub fn returned(&self, residency: Residency, bytes: u64) {
        self.inside.step(|state, now| state.returned(residency, bytes, now));
    }

    /// The loader's answer to [`Loader::rank`]: a score for each candidate, in their order. The lowest goes first; a score
    /// that is no number is the lowest, and one that is missing the highest.
    #[expect(clippy::needless_pass_by_value, reason = "an answer is handed over")]
    pub fn ranked(&self, question: u64, scores: Vec<f64>) {
        self.inside.step(|state, now| state.ranked(question, &scores, now));
    }

    /// A loaded model broke: it is leased to nobody any more, and who asks next has it loaded anew.
    pub fn dead(&self, residency: Residency, why: Error) {
        self.inside.step(|state, now| state.dead(residency, why, now));
    }

    /// Panics where something does not hold that must hold between any two calls.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.inside.look(|state, _| state.check());
    }
}

impl Inside {
    /// Moves the state, then carries out what it decided without its lock.
    pub(super) fn step<R>(&self, decide: impl FnOnce(&mut State, Moment) -> R) -> R {
        let mut state = self.state.lock();
        // Under the lock, so that the state never sees time go back.
        let now = self.clock.now();
        let answer = decide(&mut state, now);
        self.deliver(state);
        answer
    }

    /// Reads the state.
    pub(super) fn look<R>(&self, read: impl FnOnce(&mut State, Moment) -> R) -> R {
        let mut state = self.state.lock();
        let now = self.clock.now();
        read(&mut state, now)
    }

    pub(super) fn tick(&self) -> Option<Moment> {
        self.step(|state, now| {
            state.tick(now);
            state.due(now)
        })
    }

    pub(super) fn give_back(&self, kind: Kind) {
        let mut state = self.state.lock();
        match kind {
            Kind::Hit(residency, _) => {
                if state.release(residency) {
                    let now = self.clock.now();
                    state.released(residency, now);
                    self.deliver(state);
                }
            }
            Kind::Waiting(entry) => {
                let now = self.clock.now();
                state.leave(entry, now);
                self.deliver(state);
            }
        }
    }

    /// Carries out what was decided, in order, by one thread at a time: who finds another at it leaves it to that one.
    fn deliver<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        if state.delivering {
            return;
        }
        while !state.out.is_empty() {
            state.delivering = true;
            let mut delivery = Delivery { inside: self, effects: std::mem::take(&mut state.out) };
            drop(state);
            while let Some(effect) = delivery.effects.pop_front() {
                self.carry_out(effect);
            }
            drop(delivery);
            state = self.state.lock();
            if state.delivering {
                // Another thread has begun since, and sees to the rest.
                return;
            }
        }
        let (changed, early) = (std::mem::take(&mut state.changed), state.is_early());
        drop(state);
        if changed {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        if early {
            self.alarm.notify_one();
        }
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Load(load) => self.loader.load(load),
            Effect::Cancel(residency) => self.loader.cancel(residency),
            Effect::Unload(residency) => self.loader.unload(residency),
            Effect::Rank(question) => self.loader.rank(question),
            Effect::Tell(told, result) => told(result),
            Effect::Done(told, result) => told(result),
            Effect::Closed(told) => told(),
            Effect::Forget(told) => drop(told),
            Effect::Bury(error) => drop(error),
        }
    }

    /// The task that keeps it is alive.
    pub(super) fn beats(&self) {
        let now = self.beats.now().since(Moment::default()).as_nanos();
        self.beat.store(u64::try_from(now).unwrap_or(u64::MAX).max(1), Ordering::Release);
    }

    fn last_beat(&self) -> Option<Duration> {
        match self.beat.load(Ordering::Acquire) {
            0 => None,
            beat => Some(self.beats.now().since(Moment::from_nanos(beat))),
        }
    }
}

/// A delivery under way. Where something that was told panics, the rest is left to the next thread.
struct Delivery<'a> {
    inside: &'a Inside,
    effects: VecDeque<Effect>,
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        let mut state = self.inside.state.lock();
        state.delivering = false;
        for effect in std::mem::take(&mut self.effects).into_iter().rev() {
            state.out.push_front(effect);
        }
    }
}
