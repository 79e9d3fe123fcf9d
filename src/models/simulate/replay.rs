//! What a cache would make of a trace if loads took no time: a policy beside what it is measured against.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::trace::Trace;
use crate::flow::Moment;
use crate::models::ModelId;
use crate::models::policy::{Facts, Policy};

/// What became of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Requests.
    pub requests: u64,
    /// Of them, those that found their model.
    pub hits: u64,
    /// Time that was spent loading.
    pub loading: Duration,
    /// Time that it would have been, had every request loaded.
    pub cold: Duration,
}

impl Outcome {
    /// Share of the requests that found their model.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.requests.max(1) as f64
    }

    /// Share of the load seconds that were saved.
    pub fn cost_hit_rate(&self) -> f64 {
        1.0 - self.loading.as_secs_f64() / self.cold.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Hours spent loading.
    pub fn load_hours(&self) -> f64 {
        self.loading.as_secs_f64() / 3600.0
    }

    fn count(&mut self, hit: bool, load: Duration) {
        self.requests += 1;
        self.hits += u64::from(hit);
        self.cold += load;
        if !hit {
            self.loading += load;
        }
    }
}

/// What policies are measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// Whatever was not used for so long goes; the longest unused, where there is no room before.
    Ttl(Duration),
    /// What is used again the latest goes (Belady), which only who knows the future can; sizes and costs it does not see.
    Belady,
}

/// What is resident, and how much more would be.
struct Room {
    free: u64,
    memory: u64,
    resident: HashSet<ModelId>,
}

impl Room {
    fn new(memory: u64) -> Self {
        Self { free: memory, memory, resident: HashSet::new() }
    }

    fn leave(&mut self, id: ModelId, trace: &Trace) {
        if self.resident.remove(&id) {
            self.free += trace.model(id).bytes;
        }
    }

    /// Lets victims go until the model fits; whether it does.
    fn enter(&mut self, id: ModelId, trace: &Trace, victim: &mut dyn FnMut() -> Option<ModelId>) -> bool {
        let bytes = trace.model(id).bytes;
        if bytes > self.memory {
            return false;
        }
        while self.free < bytes {
            let Some(victim) = victim() else { return false };
            self.leave(victim, trace);
        }
        self.free -= bytes;
        self.resident.insert(id)
    }
}

/// Replays a trace through a policy.
pub fn replay(trace: &Trace, memory: u64, policy: &mut dyn Policy) -> Outcome {
    let (mut outcome, mut room) = (Outcome::default(), Room::new(memory));
    let mut facts = vec![Facts::default(); trace.models.len()];
    for access in &trace.accesses {
        let (id, at, model) = (access.model, access.at, trace.model(access.model));
        let Some(known) = facts.get_mut(id.0 as usize) else { continue };
        known.used(at);
        let hit = room.resident.contains(&id);
        outcome.count(hit, model.load);
        if hit {
            policy.used(id, known, at);
            continue;
        }
        known.loaded(model.bytes, model.load);
        let mut victim = || {
            let victim = policy.victim(at, &|_| true)?;
            policy.gone(victim, at);
            Some(victim)
        };
        if room.enter(id, trace, &mut victim) {
            policy.loaded(id, known, at);
        }
    }
    outcome
}

/// Replays a trace through what policies are measured against.
pub fn replay_baseline(trace: &Trace, memory: u64, baseline: Baseline) -> Outcome {
    let (mut outcome, mut room) = (Outcome::default(), Room::new(memory));
    // The first goes first: by when it was used last, or how long it takes until it is used again.
    let mut order: BTreeSet<(Duration, ModelId)> = BTreeSet::new();
    let mut places: HashMap<ModelId, Duration> = HashMap::new();
    for (access, next) in trace.accesses.iter().zip(next_uses(trace)) {
        let (id, now) = (access.model, access.at.since(Moment::default()));
        let place = match baseline {
            Baseline::Ttl(ttl) => {
                while let Some((used, old)) = order.first().copied().filter(|(used, _)| *used + ttl < now) {
                    order.remove(&(used, old));
                    room.leave(old, trace);
                }
                now
            }
            Baseline::Belady => Duration::MAX.saturating_sub(next.since(Moment::default())),
        };
        if let Some(before) = places.insert(id, place) {
            order.remove(&(before, id));
        }
        let hit = room.resident.contains(&id);
        outcome.count(hit, trace.model(id).load);
        let mut victim = || order.pop_first().map(|(_, victim)| victim);
        if hit || room.enter(id, trace, &mut victim) {
            order.insert((place, id));
        }
    }
    outcome
}

/// When the model of each request is asked for next.
fn next_uses(trace: &Trace) -> Vec<Moment> {
    let mut seen = HashMap::new();
    let never = Moment::from_nanos(u64::MAX);
    let mut next: Vec<_> = trace
        .accesses
        .iter()
        .rev()
        .map(|access| seen.insert(access.model, access.at).unwrap_or(never))
        .collect();
    next.reverse();
    next
}

/// More than any cache can reach with so much memory, by requests and by load seconds: hits are bought, the cheapest
/// first, for the bytes times requests that keeping the model until then takes (Berger and others, 2018: PFOO-L).
#[allow(clippy::cast_precision_loss, reason = "a bound to a few digits")]
pub fn bound(trace: &Trace, memory: u64, by_cost: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut seen = HashMap::new();
    let mut kept = Vec::new();
    for (at, access) in trace.accesses.iter().enumerate() {
        let model = trace.model(access.model);
        outcome.count(false, model.load);
        if let Some(before) = seen.insert(access.model, at) {
            let price = model.bytes as f64 * (at - before) as f64;
            kept.push((price, model.load));
        }
    }
    let worth = |load: &Duration| if by_cost { load.as_secs_f64() } else { 1.0 };
    kept.sort_by(|one, other| (one.0 / worth(&one.1)).total_cmp(&(other.0 / worth(&other.1))));
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

#[cfg(test)]
mod tests {
    use super::super::{Model, Shape};
    use super::*;
    use crate::models::policy::PolicyKind;

    #[test]
    fn nothing_beats_the_future_and_the_future_does_not_beat_the_bound() {
        let trace = Trace::new(&Shape { length: Duration::from_secs(2 * 24 * 3600), ..Shape::default() }, 1);
        let memory = trace.budget(0.1);
        let belady = replay_baseline(&trace, memory, Baseline::Belady);
        for kind in [PolicyKind::Lru, PolicyKind::Gdsf] {
            let outcome = replay(&trace, memory, &mut *kind.start());
            assert_eq!(outcome.requests, belady.requests);
            assert!(outcome.hits < belady.hits, "{}", kind.name());
        }
        assert!(belady.hits < bound(&trace, memory, false).hits);
        assert!(belady.loading > bound(&trace, memory, true).loading);
    }

    #[test]
    fn a_ttl_without_an_end_is_the_longest_unused() {
        let trace = Trace::new(&Shape { length: Duration::from_secs(24 * 3600), ..Shape::default() }, 1);
        let memory = trace.budget(0.2);
        let ttl = replay_baseline(&trace, memory, Baseline::Ttl(Duration::from_secs(1 << 30)));
        assert_eq!(ttl, replay(&trace, memory, &mut *PolicyKind::Lru.start()));
    }

    #[test]
    fn a_loop_over_one_too_many_never_hits_where_the_longest_unused_goes() {
        let model = Model { bytes: 10, load: Duration::from_secs(1) };
        let trace = Trace::cyclic(vec![model; 11], 20, Duration::from_secs(20));
        assert_eq!(replay(&trace, 100, &mut *PolicyKind::Lru.start()).hits, 0);
        assert_eq!(replay(&trace, 110, &mut *PolicyKind::Lru.start()).hits, 209);
    }
}
