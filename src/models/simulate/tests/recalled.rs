use std::time::Duration;

use super::super::drive::{asks, models};
use super::super::{Outcome, Setup, Shape, Trace, World};
use crate::models::{CacheSettings, PolicyKind, WhatIf};

const DAY: Duration = Duration::from_hours(24);

fn setup(memory: u64, policy: PolicyKind) -> Setup {
    Setup::new(CacheSettings { memory: Some(memory), policy, ..CacheSettings::default() })
}

/// What became of a trace from some request on, and what the cache says another memory would have made of it.
fn run(trace: &Trace, setup: &Setup, from: usize, what_if: u64) -> (Outcome, WhatIf) {
    let world = World::new(models(trace), asks(trace), setup).unwrap();
    let (outcome, cache) = world.counting_from(from).run();
    (outcome, cache.what_if(what_if))
}

fn assert_alike(said: &WhatIf, was: &Outcome) {
    assert_eq!(said.accesses, was.requests);
    assert!((said.hit_rate - was.hit_rate()).abs() < 0.01, "{said:?} and {}", was.hit_rate());
    let hours = said.load_seconds / 3600.0;
    assert!((hours / was.load_hours() - 1.0).abs() < 0.05, "{hours} and {}", was.load_hours());
}

#[test]
fn what_if_agrees_with_what_happened_and_with_what_would_have() {
    let trace = Trace::new(&Shape { length: DAY, ..Shape::default() }, 1);
    assert!(trace.accesses.len() < 10_000);
    for policy in [PolicyKind::Lru, PolicyKind::Gdsf] {
        let (tenth, fifth) = (trace.budget(0.1), trace.budget(0.2));
        let (was, said) = run(&trace, &setup(tenth, policy), 0, tenth);
        assert_alike(&said, &was);
        let (more, _) = run(&trace, &setup(fifth, policy), 0, fifth);
        let (_, said) = run(&trace, &setup(tenth, policy), 0, fifth);
        assert_alike(&said, &more);
        assert!(more.hit_rate() > was.hit_rate() + 0.1);
    }
}

#[test]
fn what_if_knows_the_last_ten_thousand_of_many() {
    let trace = Trace::new(&Shape { length: 4 * DAY, ..Shape::default() }, 1);
    let memory = trace.budget(0.2);
    let from = trace.accesses.len() - 7_500;
    assert!(from > 7_500);
    let (was, said) = run(&trace, &setup(memory, PolicyKind::Lru), from, memory);
    assert_alike(&said, &was);
}

#[test]
fn a_memory_that_holds_nothing_hits_nothing() {
    let trace = Trace::new(&Shape { length: DAY / 4, ..Shape::default() }, 1);
    let setup = setup(trace.budget(0.1), PolicyKind::Ranked);
    let (was, said) = run(&trace, &setup, 0, 1);
    assert_eq!((said.hits, said.accesses), (0, was.requests));
    let (_, said) = run(&trace, &setup, 0, 0);
    assert_eq!((said.hits, said.accesses), (0, was.requests));
}
