//! Loads that somebody asked for without using them yet.

use std::sync::Arc;

use super::cache::Inside;
use super::progress::Progress;
use crate::error::Result;

/// What was asked to be loaded, together. Dropping it cancels nothing.
pub struct Preload {
    inside: Arc<Inside>,
    number: usize,
}

impl Preload {
    pub(super) fn new(inside: Arc<Inside>, number: usize) -> Self {
        Self { inside, number }
    }

    /// Has `told` called once all of it is settled: with the first failure, where one of them could not be loaded. Called
    /// once and not under the cache's lock, before this returns where all is settled already.
    pub fn on_done(&self, told: impl FnOnce(Result<()>) + Send + 'static) {
        let told = Box::new(told);
        self.inside.step(|state, _| state.preload_on_done(self.number, told));
    }

    /// Takes it back: what is queued for nobody else leaves the queue, and what is loaded for nobody else is cancelled.
    /// Whoever waits for the whole is told `ModelNotReady`.
    pub fn cancel(&self) {
        self.inside.step(|state, now| state.preload_cancel(self.number, now));
    }

    /// True once all of it is ready, or has failed.
    pub fn is_done(&self) -> bool {
        self.inside.look(|state, _| state.preload_result(self.number).is_some())
    }

    /// What became of it; `None` before it is done.
    pub fn result(&self) -> Option<Result<()>> {
        self.inside.look(|state, _| state.preload_result(self.number))
    }

    /// How far each model is, what they need included, in the order of loading.
    pub fn progress(&self) -> Vec<Progress> {
        self.inside.look(|state, now| state.preload_progress(self.number, now))
    }
}

impl Drop for Preload {
    fn drop(&mut self) {
        self.inside.step(|state, _| state.preload_forget(self.number));
    }
}

impl std::fmt::Debug for Preload {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Preload").field("done", &self.is_done()).finish_non_exhaustive()
    }
}
