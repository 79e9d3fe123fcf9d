//! What saves the least goes first: Greedy-Dual-Size-Frequency (Cherkasova 1998), with costs that were measured.

use std::collections::HashMap;

use super::{Facts, Policy};
use crate::flow::Moment;
use crate::models::ModelId;

/// Seconds that a load is taken to last before one was measured.
const UNMEASURED: f64 = 1.0;

/// The model that is worth the least goes: `inflation + uses x load seconds / bytes`, taken when it is used. Uses are
/// decayed and survive an eviction. The inflation is the worth of the last victim, so that a model that nobody uses any
/// more is overtaken by those that are used.
#[derive(Debug, Default)]
pub struct Gdsf {
    worth: HashMap<ModelId, f64, ahash::RandomState>,
    inflation: f64,
    named: Option<ModelId>,
}

impl Gdsf {
    fn worth(&self, facts: &Facts, now: Moment) -> f64 {
        let seconds = if facts.load_seconds > 0.0 { facts.load_seconds } else { UNMEASURED };
        self.inflation + facts.uses.now(now) * seconds / bytes(facts)
    }
}

#[allow(clippy::cast_precision_loss, reason = "sizes beyond 2^53 bytes are compared as well rounded")]
fn bytes(facts: &Facts) -> f64 {
    facts.bytes.max(1) as f64
}

impl Policy for Gdsf {
    fn used(&mut self, id: ModelId, facts: &Facts, now: Moment) {
        let fresh = self.worth(facts, now);
        if let Some(worth) = self.worth.get_mut(&id) {
            *worth = fresh;
        }
    }

    fn loaded(&mut self, id: ModelId, facts: &Facts, now: Moment) {
        self.worth.insert(id, self.worth(facts, now));
    }

    fn gone(&mut self, id: ModelId, _now: Moment) {
        let worth = self.worth.remove(&id);
        // One that was told to go, whatever it was worth, says nothing about the others.
        if let Some(worth) = worth.filter(|_| self.named.take_if(|named| *named == id).is_some()) {
            self.inflation = self.inflation.max(worth);
        }
    }

    fn victim(&mut self, _now: Moment, may_go: &dyn Fn(ModelId) -> bool) -> Option<ModelId> {
        let order = |one: &(&ModelId, &f64), other: &(&ModelId, &f64)| {
            one.1.total_cmp(other.1).then_with(|| one.0.cmp(other.0))
        };
        self.named = self.worth.iter().filter(|(id, _)| may_go(**id)).min_by(order).map(|(id, _)| *id);
        self.named
    }
}
