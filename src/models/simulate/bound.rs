//! More than any cache can reach.

use std::collections::HashMap;

use super::outcome::Outcome;
use super::trace::Trace;

/// What a bound is a bound of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Hits.
    Hits,
    /// Load seconds that are saved.
    Cost,
}

/// More than any cache can reach with so much memory: hits are bought, the cheapest first, at the bytes times requests that
/// keeping a model from one request to its next takes, and all of them together may cost what the memory holds (Berger,
/// Beckmann and Harchol-Balter, 2018: PFOO-L). Loads take no time.
#[allow(clippy::cast_precision_loss, reason = "a bound to a few digits")]
pub fn bound(trace: &Trace, memory: u64, of: Bound) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut seen, mut kept) = (HashMap::new(), Vec::new());
    for (at, access) in trace.accesses.iter().enumerate() {
        let model = trace.model(access.model);
        outcome.requests += 1;
        outcome.cold += model.load;
        if let Some(before) = seen.insert(access.model, at) {
            kept.push((model.bytes as f64 * (at - before) as f64, model.load));
        }
    }
    outcome.loading = outcome.cold;
    let worth = |seconds: f64| if of == Bound::Cost { seconds } else { 1.0 };
    kept.sort_by(|(price, load), (other, its)| {
        (price / worth(load.as_secs_f64())).total_cmp(&(other / worth(its.as_secs_f64())))
    });
    let mut purse = memory as f64 * trace.accesses.len() as f64;
    for (price, load) in kept {
        purse -= price;
        if purse < 0.0 {
            break;
        }
        outcome.hits += 1;
        outcome.loading = outcome.loading.saturating_sub(load);
    }
    outcome
}
