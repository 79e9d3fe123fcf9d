//! Loads of models, from the queue until their last byte is gone.

use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use crate::flow::Moment;
use crate::models::failures::Attempts;
use crate::models::memory::Account;
use crate::models::progress::Said;
use crate::models::{Cause, LoadSpec, LoadState, ModelId, Reason, Residency};

/// How far a residency is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has no memory yet.
    Queued,
    /// It has memory, and waits for what it requires or for its turn.
    Reserved,
    /// It has failed and is tried again then.
    Paused(Moment),
    Loading,
    Warming,
    Ready,
    /// It serves nobody new.
    Draining,
    /// Its loader was told to let it go.
    Unloading,
    /// It is gone but for bytes that are looked at.
    Viewed,
}

impl Stage {
    pub(super) fn account(self) -> Option<Account> {
        match self {
            Self::Queued => None,
            Self::Reserved | Self::Paused(_) | Self::Loading | Self::Warming => Some(Account::Reserved),
            Self::Ready => Some(Account::Ready),
            Self::Draining | Self::Unloading => Some(Account::Draining),
            Self::Viewed => Some(Account::Viewed),
        }
    }

    pub(super) fn runs(self) -> bool {
        matches!(self, Self::Loading | Self::Warming)
    }

    /// True before its loader was told of it, and between two attempts.
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Queued | Self::Reserved | Self::Paused(_))
    }

    pub(super) fn has_memory(self) -> bool {
        matches!(self, Self::Reserved | Self::Paused(_) | Self::Loading | Self::Warming)
    }

    /// True while others can be loaded on top of it.
    pub(super) fn is_there(self) -> bool {
        matches!(self, Self::Ready | Self::Draining)
    }

    pub(super) fn shown(self) -> LoadState {
        match self {
            Self::Queued | Self::Reserved | Self::Paused(_) => LoadState::Queued,
            Self::Loading => LoadState::Loading,
            Self::Warming => LoadState::Warming,
            Self::Ready => LoadState::Ready,
            Self::Draining | Self::Unloading => LoadState::Draining,
            Self::Viewed => LoadState::Unloaded,
        }
    }
}

/// One load of one model, and what became of it.
pub(super) struct Resident {
    pub(super) model: ModelId,
    /// As it was when this load was asked for.
    pub(super) spec: Arc<LoadSpec>,
    pub(super) stage: Stage,
    /// On the account of its stage.
    pub(super) bytes: u64,
    /// Claims on it.
    pub(super) leases: usize,
    /// Residencies that need it: it outlives them. One that requires it twice stands here twice.
    pub(super) holders: SmallVec<[Residency; 2]>,
    /// What it needs and holds, in the order of its spec.
    pub(super) requires: Vec<Residency>,
    pub(super) attempts: Attempts,
    /// Why its load began, where nobody waited for it then.
    pub(super) cause: Option<Cause>,
    /// True once it was leased.
    pub(super) used: bool,
    /// Nobody wants what is being loaded: it is unloaded at once when it comes, for this reason.
    pub(super) unwanted: Option<Reason>,
    /// Why it leaves.
    pub(super) leaving: Option<Reason>,
    /// It runs on though its time is up.
    pub(super) stuck: bool,
    /// It is larger than it was taken to be, and that has not been made up for.
    pub(super) grew: bool,
    pub(super) since: Moment,
    pub(super) started: Moment,
    pub(super) ready: Moment,
    pub(super) said: Said,
}

impl Resident {
    pub(super) fn new(model: ModelId, spec: Arc<LoadSpec>, now: Moment) -> Self {
        Self {
            model,
            stage: Stage::Queued,
            bytes: 0,
            leases: 0,
            holders: SmallVec::new(),
            requires: Vec::new(),
            attempts: Attempts::new(spec.retries, spec.backoff),
            cause: None,
            used: false,
            unwanted: None,
            leaving: None,
            stuck: false,
            grew: false,
            since: now,
            started: now,
            ready: now,
            said: Said::nothing(),
            spec,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.leases == 0 && self.holders.is_empty()
    }
}

/// All residencies. A place is used again and a number never: its lower bits are the place, so that a hit needs no hash.
#[derive(Default)]
pub(super) struct Residents {
    places: Slab<(Residency, Resident)>,
    made: u64,
}

const PLACE_BITS: u32 = 24;

impl Residents {
    pub(super) fn insert(&mut self, resident: Resident) -> Residency {
        self.made += 1;
        let place = self.places.vacant_entry();
        let residency = Residency(self.made << PLACE_BITS | place.key() as u64);
        place.insert((residency, resident));
        residency
    }

    fn place(residency: Residency) -> usize {
        // It was made from a place, which is no wider than that.
        usize::try_from(residency.0 & ((1 << PLACE_BITS) - 1)).unwrap_or(usize::MAX)
    }

    pub(super) fn get(&self, residency: Residency) -> Option<&Resident> {
        let (known, resident) = self.places.get(Self::place(residency))?;
        (*known == residency).then_some(resident)
    }

    pub(super) fn get_mut(&mut self, residency: Residency) -> Option<&mut Resident> {
        let (known, resident) = self.places.get_mut(Self::place(residency))?;
        (*known == residency).then_some(resident)
    }

    pub(super) fn remove(&mut self, residency: Residency) -> Option<Resident> {
        self.get(residency)?;
        Some(self.places.remove(Self::place(residency)).1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Residency, &Resident)> {
        self.places.iter().map(|(_, (residency, resident))| (*residency, resident))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Residency, &mut Resident)> {
        self.places.iter_mut().map(|(_, (residency, resident))| (*residency, resident))
    }
}
