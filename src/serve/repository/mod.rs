//! The model repository: which models there are, and to load and unload them by calls.
//!
//! A cache holds them; whatever is loaded there is loaded for whoever asks, and what is unloaded here comes back with the
//! next request for it.

mod access;
mod calls;
mod counts;
mod polls;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

pub use access::RepositoryAccess;
pub(super) use calls::Wanted;
pub use polls::{Polls, Skipped};

use crate::error::{Error, ErrorKind, Result};
use crate::flow::Priority;
use crate::metrics::Registry;
use crate::models::{Cache, Cause, IndexRow, LoadState, ModelId};
use crate::wire::oip::IndexEntry;

/// How long an unload waits for those who use the model: they go on, and so does the unload, but who asked is told.
const DRAIN: Duration = Duration::from_secs(30);

/// What stands between a name and a version, or an alias.
const AT: char = '@';

/// The models of a cache as the doors see them.
pub(super) struct Repository {
    cache: Cache,
}

impl Repository {
    /// The models of `cache`, whose numbers stand in `registry` from here on.
    pub(super) fn new(cache: Cache, registry: &Registry) -> Self {
        let counted = cache.clone();
        registry.count_models(move || counts::of(&counted));
        Self { cache }
    }

    /// The model that a reference means.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`], naming what there is.
    pub(super) fn find(&self, reference: &str) -> Result<ModelId> {
        self.cache.find(reference)
    }

    /// True while loads are looked after.
    pub(super) fn is_alive(&self) -> bool {
        self.cache.health().beating
    }

    /// True where what was to be there from the start has come, and nothing that is pinned is missing for another reason
    /// than that somebody unloaded it.
    pub(super) fn is_ready(&self) -> bool {
        let is_there = |row: &IndexRow| {
            !row.pinned || matches!(row.state, LoadState::Ready | LoadState::Unloaded | LoadState::Draining)
        };
        self.cache.health().is_ready() && self.cache.index().iter().all(is_there)
    }

    /// Every version of every model, or those alone that can be used at once; by name, and by version as far as they are
    /// numbers.
    pub(super) fn index(&self, ready: bool) -> Vec<IndexEntry> {
        let mut rows = self.cache.index();
        rows.retain(|row| !ready || row.state == LoadState::Ready);
        rows.sort_by(|one, other| {
            let version = |row: &IndexRow| row.version.parse::<u64>().ok();
            (&one.name, version(one), &one.version).cmp(&(&other.name, version(other), &other.version))
        });
        rows.iter().map(entry).collect()
    }

    /// Loads a model, or loads it anew where it is loaded already; comes back when it can be used. What failed before is
    /// tried again.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`]; why it could not be loaded. The version that was loaded before goes on serving then.
    ///
    /// # Cancellation
    /// The load goes on.
    pub(super) async fn load(&self, reference: &str) -> Result<()> {
        let id = self.cache.find(reference)?;
        let preload = match self.cache.progress(id).state {
            // It is on its way already.
            LoadState::Queued | LoadState::WaitingForSpace | LoadState::Loading | LoadState::Warming => {
                self.cache.preload(&[id], Cause::Preload, Priority::High)
            }
            _ => self.cache.reload(id),
        };
        told(|tell| preload.on_done(tell)).await
    }

    /// Unloads a model; comes back when it is gone. A name alone stands for every version of it. With `dependents`, those
    /// that need it go first, and what it needed goes where nobody else does, as Triton has it for an ensemble.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`]; [`ErrorKind::Config`] where others need it and `dependents` is false;
    /// [`ErrorKind::DeadlineExceeded`] where requests use it for longer than 30 s: it goes when they end.
    ///
    /// # Cancellation
    /// The unload goes on.
    pub(super) async fn unload(&self, reference: &str, dependents: bool) -> Result<()> {
        let rows = self.cache.index();
        let models = self.named(&rows, reference)?;
        for id in &models {
            self.unload_one(*id, dependents).await?;
        }
        if dependents {
            for id in self.required_by(&rows, &models) {
                self.unload_unneeded(id).await?;
            }
        }
        Ok(())
    }

    async fn unload_one(&self, id: ModelId, dependents: bool) -> Result<()> {
        told(|tell| self.cache.unload(id, dependents, Some(DRAIN), Box::new(tell))).await
    }

    /// What is needed elsewhere, used or pinned stays.
    async fn unload_unneeded(&self, id: ModelId) -> Result<()> {
        let rows = self.cache.index();
        let is_idle = |row: &IndexRow| row.serving.is_some() && row.leases == 0 && !row.pinned;
        if !rows.iter().any(|row| row.model == id && is_idle(row)) {
            return Ok(());
        }
        match self.unload_one(id, false).await {
            Err(error) if error.kind() == ErrorKind::Config => Ok(()),
            ended => ended,
        }
    }

    /// The models that a reference is for: every version, where it is a name alone.
    fn named(&self, rows: &[IndexRow], reference: &str) -> Result<Vec<ModelId>> {
        let versions: Vec<_> =
            rows.iter().filter(|row| *row.name == *reference).map(|row| row.model).collect();
        if versions.is_empty() || reference.contains(AT) {
            return Ok(vec![self.cache.find(reference)?]);
        }
        Ok(versions)
    }

    /// What models require, and what that requires: each after those that need it.
    fn required_by(&self, rows: &[IndexRow], models: &[ModelId]) -> Vec<ModelId> {
        let mut seen: HashSet<_> = models.iter().copied().collect();
        let (mut found, mut open) = (Vec::new(), models.to_vec());
        while let Some(id) = open.pop() {
            let requires = rows.iter().filter(|row| row.model == id).flat_map(|row| &row.requires);
            for reference in requires {
                let Ok(needed) = self.cache.find(reference) else { continue };
                // Found again deeper down, it goes later.
                found.retain(|other| *other != needed);
                found.push(needed);
                if seen.insert(needed) {
                    open.push(needed);
                }
            }
        }
        found
    }
}

/// What is told once, awaited.
async fn told(begin: impl FnOnce(Box<dyn FnOnce(Result<()>) + Send>)) -> Result<()> {
    let (tell, told) = oneshot::channel();
    begin(Box::new(move |ended| drop(tell.send(ended))));
    told.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, "the models of this server were closed")))
}

fn entry(row: &IndexRow) -> IndexEntry {
    let state = match row.state {
        LoadState::Ready => "READY",
        LoadState::Queued | LoadState::WaitingForSpace | LoadState::Loading | LoadState::Warming => "LOADING",
        LoadState::Draining => "UNLOADING",
        LoadState::Unloaded | LoadState::Failed => "UNAVAILABLE",
    };
    let reason = match (&row.reason, row.state) {
        (Some(reason), _) => Arc::clone(reason),
        (None, LoadState::Ready) => "".into(),
        (None, other) => other.name().into(),
    };
    IndexEntry {
        name: row.name.as_ref().to_owned(),
        version: row.version.as_ref().to_owned(),
        state,
        reason: reason.as_ref().to_owned(),
    }
}
