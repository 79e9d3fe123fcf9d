//! What the core wants done, as a queue; and the Python objects that it knows by number.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::flow::Monitor;
use crate::models::{Load, Loader, ModelId, Ranking, Residency};

/// What there is to do.
pub(super) enum Job {
    Load(Load),
    Cancel(Residency),
    Unload(Residency),
    Rank(Ranking),
    /// Bytes that a model which was unloaded has given back.
    Returned(Residency, u64),
}

/// The bindings' side of a cache.
#[derive(Default)]
pub(crate) struct Desk {
    jobs: Monitor<Jobs>,
    values: Mutex<HashMap<Residency, Py<PyAny>, ahash::RandomState>>,
    views: Mutex<HashMap<Residency, Views, ahash::RandomState>>,
    names: Mutex<HashMap<ModelId, Named, ahash::RandomState>>,
}

/// A model's name and version.
pub(super) type Named = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Jobs {
    /// What there is to do, and since when.
    queue: VecDeque<(Job, Instant)>,
    is_closed: bool,
}

/// Buffers of one residency that are watched.
#[derive(Default)]
struct Views {
    /// Bytes of those that are alive.
    alive: u64,
    /// What the model takes in all: more than that is not said of its buffers.
    size: u64,
    /// What the core has been told of, once the model was unloaded.
    told: Option<u64>,
}

impl Views {
    fn now(&self) -> u64 {
        self.alive.min(self.size)
    }
}

impl Desk {
    fn push(&self, job: Job) {
        self.jobs.lock().queue.push_back((job, Instant::now()));
        self.jobs.wake_one();
    }

    /// Blocks until there is something to do; `None` where nothing will come any more.
    pub(super) fn wait(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock();
        while jobs.queue.is_empty() && !jobs.is_closed {
            jobs = self.jobs.wait(jobs, None);
        }
        jobs.queue.pop_front().map(|(job, _)| job)
    }

    /// True once nothing is waited for any more.
    pub(super) fn is_closed(&self) -> bool {
        self.jobs.lock().is_closed
    }

    /// Says that nothing will come any more.
    pub(super) fn close(&self) {
        self.jobs.lock().is_closed = true;
        self.jobs.wake_all();
    }

    /// What a residency is, where it is still there.
    pub(super) fn value<'py>(&self, py: Python<'py>, residency: Residency) -> Option<Bound<'py, PyAny>> {
        self.values.lock().get(&residency).map(|value| value.bind(py).clone())
    }

    pub(super) fn keep(&self, residency: Residency, value: Py<PyAny>) {
        let before = self.values.lock().insert(residency, value);
        drop(before);
    }

    pub(super) fn take(&self, residency: Residency) -> Option<Py<PyAny>> {
        self.values.lock().remove(&residency)
    }

    pub(super) fn name(&self, model: ModelId, named: Named) {
        self.names.lock().insert(model, named);
    }

    pub(super) fn named(&self, model: ModelId) -> Option<Named> {
        self.names.lock().get(&model).cloned()
    }

    /// Counts a buffer that tells when it is gone.
    pub(super) fn watch(&self, residency: Residency, bytes: u64) {
        self.views.lock().entry(residency).or_default().alive += bytes;
    }

    /// Forgets the buffers of a load that failed.
    pub(super) fn forget(&self, residency: Residency) {
        self.views.lock().remove(&residency);
    }

    /// Notes what a model takes in all.
    pub(super) fn measured(&self, residency: Residency, size: u64) {
        self.views.lock().entry(residency).or_default().size = size;
    }

    /// A buffer is gone. Runs wherever Python ends an object, so it only notes that.
    pub(super) fn died(&self, residency: Residency, bytes: u64) {
        let freed = {
            let mut views = self.views.lock();
            let Some(seen) = views.get_mut(&residency) else { return };
            seen.alive = seen.alive.saturating_sub(bytes);
            let now = seen.now();
            let freed = seen.told.map_or(0, |told| told.saturating_sub(now));
            seen.told = seen.told.map(|told| told.min(now));
            if seen.told == Some(0) {
                views.remove(&residency);
            }
            freed
        };
        if freed > 0 {
            self.push(Job::Returned(residency, freed));
        }
    }

    /// Bytes of a residency's buffers that are alive.
    pub(super) fn viewed(&self, residency: Residency) -> u64 {
        self.views.lock().get(&residency).map_or(0, Views::now)
    }

    /// The same; what dies from here on is given back to the core.
    pub(super) fn leave(&self, residency: Residency) -> u64 {
        let mut views = self.views.lock();
        let Some(seen) = views.get_mut(&residency) else { return 0 };
        let now = seen.now();
        seen.told = Some(now);
        if now == 0 {
            views.remove(&residency);
        }
        now
    }
}

impl Loader for Desk {
    fn load(&self, load: Load) {
        self.push(Job::Load(load));
    }

    fn cancel(&self, residency: Residency) {
        self.push(Job::Cancel(residency));
    }

    fn unload(&self, residency: Residency) {
        self.push(Job::Unload(residency));
    }

    fn rank(&self, question: Ranking) {
        self.push(Job::Rank(question));
    }

    fn behind(&self) -> Duration {
        self.jobs.lock().queue.front().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}
