//! Sessions: what each asked for last, and when.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::gaps::{Gaps, span};
use super::mixture::{RECENT, Recent};
use super::rhythm::Visits;
use crate::flow::Moment;
use crate::models::ModelId;

/// What is remembered of a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    /// The distinct models that it asked for last, the latest first.
    pub(super) recent: Recent,
    /// Its visits to the first of them.
    pub(super) visits: Visits,
    pub(super) last: Moment,
    /// The span of its pause that was counted last.
    reached: u8,
}

impl Session {
    /// It has asked again; true where it was for another model than before.
    pub(super) fn ask(&mut self, model: ModelId, now: Moment, gaps: &mut Gaps) -> bool {
        if !self.recent.is_empty() {
            gaps.ends(self.reached, span(now.since(self.last)).max(self.reached));
        }
        (self.last, self.reached) = (now, 0);
        if self.recent.first() == Some(&model) {
            return false;
        }
        self.recent.retain(|known| *known != model);
        self.recent.truncate(RECENT - 1);
        self.recent.insert(0, model);
        true
    }

    /// Counts how far its pause has come.
    pub(super) fn pause(&mut self, now: Moment, gaps: &mut Gaps) {
        let reached = span(now.since(self.last));
        gaps.lasts(self.reached, reached);
        self.reached = self.reached.max(reached);
    }
}

/// The sessions that asked latest.
#[derive(Debug)]
pub(super) struct Sessions {
    known: LruCache<u64, Session, ahash::RandomState>,
}

impl Sessions {
    pub(super) fn new(most: usize) -> Self {
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        // Keys come from outside, but order nothing that is decided: the table's seed may differ from run to run.
        Self { known: LruCache::with_hasher(most, ahash::RandomState::new()) }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// The session of that key, the latest from now on; and the one that was forgotten for it.
    pub(super) fn touch(&mut self, key: u64) -> (&mut Session, Option<(u64, Session)>) {
        let forgotten =
            if self.known.contains(&key) { None } else { self.known.push(key, Session::default()) };
        let session = self.known.get_or_insert_mut(key, Session::default);
        (session, forgotten)
    }

    /// The sessions that asked latest, the latest first.
    pub(super) fn latest(&mut self, most: usize) -> impl Iterator<Item = &mut Session> {
        self.known.iter_mut().take(most).map(|(_, session)| session)
    }
}
