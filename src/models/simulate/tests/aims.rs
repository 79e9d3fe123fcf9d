use std::time::Duration;

use super::super::{Bound, Model, Outcome, Setup, Shape, Trace, bound, drive};
use crate::models::{CacheSettings, PolicyKind};

const DAY: Duration = Duration::from_hours(24);
const TTL: Duration = Duration::from_mins(5);

fn settings(memory: u64, policy: PolicyKind) -> CacheSettings {
    CacheSettings { memory: Some(memory), policy, ..CacheSettings::default() }
}

fn run(trace: &Trace, memory: u64, policy: PolicyKind) -> Outcome {
    let outcome = drive(trace, &Setup::new(settings(memory, policy))).unwrap();
    assert_eq!(outcome.refused, 0);
    assert_eq!(outcome.requests, outcome.stats.hits + outcome.stats.misses + outcome.stats.joins);
    outcome
}

#[test]
fn policies_reach_what_was_asked_of_them() {
    let trace = Trace::new(&Shape::default(), 1);
    let (tenth, fifth) = (trace.budget(0.1), trace.budget(0.2));
    let (lru, gdsf) = (run(&trace, tenth, PolicyKind::Lru), run(&trace, tenth, PolicyKind::Gdsf));
    assert!(
        gdsf.load_hours() <= 0.9 * lru.load_hours(),
        "{} and {} hours",
        gdsf.load_hours(),
        lru.load_hours()
    );
    let (lru, gdsf) = (run(&trace, fifth, PolicyKind::Lru), run(&trace, fifth, PolicyKind::Gdsf));
    assert!(lru.hit_rate() >= 0.79, "{}", lru.hit_rate());
    assert!(gdsf.hit_rate() >= 0.86, "{}", gdsf.hit_rate());
}

#[test]
fn nothing_beats_the_future_and_the_future_does_not_beat_the_bound() {
    let trace = Trace::new(&Shape { length: 2 * DAY, ..Shape::default() }, 1);
    let memory = trace.budget(0.1);
    let belady = run(&trace, memory, PolicyKind::Ranked);
    for policy in [PolicyKind::Lru, PolicyKind::Gdsf] {
        assert!(run(&trace, memory, policy).hits < belady.hits, "{}", policy.name());
    }
    assert!(belady.hits < bound(&trace, memory, Bound::Hits).hits);
    assert!(belady.loading > bound(&trace, memory, Bound::Cost).loading);
}

#[test]
fn a_ttl_hits_less_and_one_without_an_end_changes_nothing() {
    let trace = Trace::new(&Shape { length: DAY, ..Shape::default() }, 1);
    let lru = Setup::new(settings(trace.budget(0.2), PolicyKind::Lru));
    let without = drive(&trace, &lru).unwrap();
    let short = drive(&trace, &Setup { ttl: Some(TTL), ..lru.clone() }).unwrap();
    let endless = drive(&trace, &Setup { ttl: Some(1_000 * DAY), ..lru }).unwrap();
    assert!(short.hits < without.hits);
    assert_eq!(endless.hits, without.hits);
    assert_eq!(endless.loading, without.loading);
}

#[test]
fn modelmesh_341_cyclic_scan() {
    let model = Model { bytes: 10, load: Duration::from_secs(1) };
    let trace = Trace::cyclic(vec![model; 11], 20, Duration::from_secs(20));
    // Nobody is refused, whatever the policy; the order of last use finds nothing, and says so.
    assert_eq!(run(&trace, 100, PolicyKind::Lru).hits, 0);
    assert_eq!(run(&trace, 110, PolicyKind::Lru).hits, 209);
    // Who comes round regularly is due the later the shorter it is ago: that order keeps most of the loop.
    let gdsf = run(&trace, 100, PolicyKind::Gdsf);
    assert!(gdsf.hit_rate() > 0.5, "{}", gdsf.hit_rate());
    let belady = run(&trace, 100, PolicyKind::Ranked);
    assert!(belady.hit_rate() > 0.8, "{}", belady.hit_rate());
    // Faster than the loads take: all of them at once, and still each gets its model.
    let rush = Trace::cyclic(vec![model; 11], 20, Duration::from_millis(1));
    run(&rush, 100, PolicyKind::Lru);
}
