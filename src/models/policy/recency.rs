//! The longest unused goes first.

use lru::LruCache;

use super::{Facts, Policy};
use crate::flow::Moment;
use crate::models::ModelId;

/// Least recently used first. Blind to size and to what a load costs; a scan over more models than there is room for
/// empties it, and a loop over one model too many never hits: that is the nature of this order.
#[derive(Debug)]
pub struct Lru {
    order: LruCache<ModelId, (), ahash::RandomState>,
}

impl Default for Lru {
    fn default() -> Self {
        Self { order: LruCache::unbounded_with_hasher(ahash::RandomState::default()) }
    }
}

impl Policy for Lru {
    fn used(&mut self, id: ModelId, _facts: &Facts, _now: Moment) {
        self.order.promote(&id);
    }

    fn loaded(&mut self, id: ModelId, _facts: &Facts, _now: Moment) {
        self.order.put(id, ());
    }

    fn gone(&mut self, id: ModelId, _now: Moment) {
        self.order.pop(&id);
    }

    fn victim(&mut self, _now: Moment, may_go: &dyn Fn(ModelId) -> bool) -> Option<ModelId> {
        self.order.iter().rev().map(|(id, ())| *id).find(|id| may_go(*id))
    }
}
