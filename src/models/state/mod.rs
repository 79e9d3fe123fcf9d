//! What is loaded, what waits, and what follows from that: plain state, moved only by the calls here and by the time that
//! they are given. What is to be done outside, it leaves in [`State::out`].

mod acquire;
mod alias;
#[cfg(test)]
mod check;
mod close;
mod effect;
mod fail;
mod graphs;
mod load;
mod model;
mod order;
mod pin;
mod preload;
mod recording;
mod release;
mod reload;
mod resident;
mod show;
mod space;
mod start;
mod tick;
mod unload;
mod victims;
mod wishes;

use std::collections::{BTreeSet, VecDeque};

use slab::Slab;

pub(super) use acquire::Acquired;
pub(super) use effect::Effect;

use self::acquire::Entry;
use self::model::{Counts, Model};
use self::preload::Wanted;
use self::resident::{Residents, Stage};
use self::unload::Drain;
use self::victims::Question;
use self::wishes::Wishes;
use super::failures::Failures;
use super::graph::Graph;
use super::memory::Memory;
use super::policy::Policy;
use super::queue::LoadQueue;
use super::recall::Recall;
use super::{CacheSettings, ModelId, Residency};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;

/// The whole of a cache.
pub(super) struct State {
    settings: CacheSettings,
    graph: Graph,
    /// By number; those that were taken out keep their place.
    models: Vec<Model>,
    residents: Residents,
    memory: Memory,
    /// Who waits, and who was given what they waited for.
    entries: Slab<Entry>,
    /// Who waits until when.
    untils: BTreeSet<(Moment, usize)>,
    /// Models that wait for a load, or are loaded.
    pending: BTreeSet<ModelId>,
    /// Loads that have not begun.
    queue: LoadQueue,
    failures: Failures,
    policy: Box<dyn Policy>,
    question: Option<Question>,
    wishes: Wishes,
    recall: Recall,
    preloads: Slab<Wanted>,
    drains: Vec<Drain>,
    /// Loads that run, those that are stuck not counted.
    loading: usize,
    /// True while something waits for memory: a lease that ends may give it some.
    short: bool,
    counts: Counts,
    random: fastrand::Rng,
    /// Who is told when it is closed; `None` while it is open.
    closing: Option<Vec<Box<dyn FnOnce() + Send>>>,
    /// When its owner was told to come again.
    alarm: Option<Moment>,
    /// What is to be done outside, in order.
    pub(super) out: VecDeque<Effect>,
    /// True while a thread does it.
    pub(super) delivering: bool,
    /// True where somebody who watches should look again.
    pub(super) changed: bool,
}

impl State {
    pub(super) fn new(settings: CacheSettings) -> Result<Self> {
        settings.check()?;
        Ok(Self {
            graph: Graph::new(),
            models: Vec::new(),
            residents: Residents::default(),
            memory: Memory::new(settings.memory),
            entries: Slab::new(),
            untils: BTreeSet::new(),
            pending: BTreeSet::new(),
            queue: LoadQueue::new(settings.aging),
            failures: Failures::new(settings.failure_memory),
            policy: settings.policy.start(),
            question: None,
            wishes: Wishes::new(&settings)?,
            recall: Recall::default(),
            preloads: Slab::new(),
            drains: Vec::new(),
            loading: 0,
            short: false,
            counts: Counts::new()?,
            random: fastrand::Rng::with_seed(settings.seed),
            closing: None,
            alarm: None,
            out: VecDeque::new(),
            delivering: false,
            changed: false,
            settings,
        })
    }

    fn model(&self, id: ModelId) -> Option<&Model> {
        self.models.get(id.0 as usize).filter(|model| model.registered)
    }

    /// Also one that was taken out.
    fn known(&mut self, id: ModelId) -> Option<&mut Model> {
        self.models.get_mut(id.0 as usize)
    }

    /// The residency that serves.
    fn current(&self, id: ModelId) -> Option<Residency> {
        self.models.get(id.0 as usize)?.current
    }

    /// The residency that is to be loaded.
    fn coming(&self, id: ModelId) -> Option<Residency> {
        Some(self.models.get(id.0 as usize)?.pending.as_ref()?.residency)
    }

    fn stage(&self, residency: Residency) -> Option<Stage> {
        Some(self.residents.get(residency)?.stage)
    }

    /// Moves a residency and its bytes to where they count from now on.
    fn put(&mut self, residency: Residency, stage: Stage, bytes: u64) {
        let Some(resident) = self.residents.get_mut(residency) else { return };
        if let Some(account) = resident.stage.account() {
            self.memory.take(account, resident.bytes);
        }
        (resident.stage, resident.bytes) = (stage, bytes);
        if let Some(account) = stage.account() {
            self.memory.put(account, bytes);
        }
        self.changed = true;
    }

    fn bury(&mut self, error: Error) {
        self.out.push_back(Effect::Bury(error));
    }

    fn bury_any(&mut self, error: Option<Error>) {
        self.out.extend(error.map(Effect::Bury));
    }

    fn forgive(&mut self, id: ModelId) {
        if let Some(failure) = self.failures.last(id) {
            // Its last owner drops it, and that may run code of a caller.
            let error = failure.error.clone();
            self.bury(error);
        }
        self.failures.forgive(id);
    }

    fn closed() -> Error {
        Error::new(ErrorKind::Closed, "the model cache is closed")
    }
}
