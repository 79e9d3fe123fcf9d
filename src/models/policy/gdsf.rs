//! What saves the least goes first: size, cost and frequency, as Greedy-Dual-Size-Frequency (Cherkasova, 1998) weighs them.

use std::collections::HashMap;

use super::{Facts, Policy};
use crate::flow::Moment;
use crate::models::ModelId;

/// Seconds that a load is taken to last before one was measured.
const UNMEASURED: f64 = 1.0;

/// The model goes that saves the fewest seconds of loading for its memory: uses a second that are to be expected, times the
/// seconds that its load takes, over its bytes.
///
/// It differs from the textbook's in three things. Loads cost what was measured. What the past says is weighed when a victim is
/// looked for, by uses that decay over several times at once and outlive evictions, and not by an inflation that is set
/// when a model was used last: an inflation forgets by how much is evicted, not by how long it was. And a model that comes
/// at regular times is worth the time until it is due.
#[derive(Debug, Default)]
pub struct Gdsf {
    residents: HashMap<ModelId, Facts, ahash::RandomState>,
}

impl Gdsf {
    /// Seconds of loading that keeping a model saves, for each byte of it and each second of time.
    #[allow(clippy::cast_precision_loss, reason = "sizes beyond 2^53 bytes are compared as well rounded")]
    pub fn worth(facts: &Facts, now: Moment) -> f64 {
        let seconds = if facts.load_seconds > 0.0 { facts.load_seconds } else { UNMEASURED };
        facts.rate(now) * seconds / facts.bytes.max(1) as f64
    }
}

impl Policy for Gdsf {
    fn used(&mut self, id: ModelId, facts: &Facts, _now: Moment) {
        if let Some(known) = self.residents.get_mut(&id) {
            *known = *facts;
        }
    }

    fn loaded(&mut self, id: ModelId, facts: &Facts, _now: Moment) {
        self.residents.insert(id, *facts);
    }

    fn gone(&mut self, id: ModelId, _now: Moment) {
        self.residents.remove(&id);
    }

    fn victim(&mut self, now: Moment, may_go: &dyn Fn(ModelId) -> bool) -> Option<ModelId> {
        let worth = self
            .residents
            .iter()
            .filter(|(id, _)| may_go(**id))
            .map(|(id, facts)| (Self::worth(facts, now), *id));
        worth.min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1))).map(|(_, id)| id)
    }
}
