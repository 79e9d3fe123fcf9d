use std::time::Duration;

use super::{Facts, Gdsf, Lru, Policy, PolicyKind};
use crate::flow::Moment;
use crate::models::ModelId;

const A: ModelId = ModelId(0);
const B: ModelId = ModelId(1);
const C: ModelId = ModelId(2);

fn at(seconds: u64) -> Moment {
    Moment::default() + Duration::from_secs(seconds)
}

fn facts(bytes: u64, seconds: u64) -> Facts {
    let mut facts = Facts::default();
    facts.loaded(bytes, Duration::from_secs(seconds));
    facts
}

fn anyone(_: ModelId) -> bool {
    true
}

#[test]
fn an_even_rate_is_met_and_forgotten_when_it_ends() {
    let mut facts = Facts::default();
    // Twice a minute, unevenly, for three days: no rhythm, but a rate.
    for minute in 0..3 * 24 * 60 {
        facts.used(at(1 + 60 * minute));
        facts.used(at(1 + 60 * minute + 10));
    }
    let end = 3 * 24 * 3600;
    let rate = facts.rate(at(end));
    assert!((rate * 30.0 - 1.0).abs() < 0.25, "{rate}");
    assert!(facts.rate(at(end + 600)) < rate / 1.5);
    assert!(facts.rate(at(end + 24 * 3600)) < rate / 10.0);
    // A moment that is told late changes nothing of what is known.
    facts.used(at(0));
    assert!(facts.last_used > at(end - 60));
}

#[test]
fn who_comes_regularly_is_due() {
    let mut facts = Facts::default();
    for (call, late) in [0, 12, 3, 8, 0, 5].into_iter().enumerate() {
        assert_eq!(facts.rhythm.due_in(Duration::from_secs(1)).is_some(), call > 4);
        facts.used(at(900 * (call as u64 + 1) + late));
    }
    let last = 900 * 6 + 5;
    let in_a_minute = facts.rate(at(last + 840));
    assert!((20.0..120.0).contains(&(1.0 / in_a_minute)), "{in_a_minute}");
    assert!(facts.rate(at(last + 10)) < in_a_minute / 5.0);
    // It stays away: what it was worth is forgotten.
    assert_eq!(facts.rhythm.due_in(Duration::from_mins(20)), None);
    assert!(facts.rate(at(last + 1_200)) < in_a_minute);
}

#[test]
fn the_latest_load_weighs_but_does_not_rule() {
    let mut facts = facts(10, 10);
    facts.loaded(20, Duration::from_secs(20));
    assert_eq!(facts.bytes, 20);
    assert!(facts.load_seconds > 10.0 && facts.load_seconds < 20.0, "{}", facts.load_seconds);
}

#[test]
fn the_longest_unused_goes_first() {
    let mut policy = Lru::default();
    for id in [A, B, C] {
        policy.loaded(id, &facts(1, 1), at(0));
    }
    policy.used(A, &facts(1, 1), at(1));
    assert_eq!(policy.victim(at(2), &anyone), Some(B));
    assert_eq!(policy.victim(at(2), &|id| id != B), Some(C));
    policy.gone(B, at(2));
    assert_eq!(policy.victim(at(2), &anyone), Some(C));
    assert_eq!(policy.victim(at(2), &|_| false), None);
}

#[test]
fn what_is_not_resident_is_no_victim() {
    for kind in [PolicyKind::Lru, PolicyKind::Gdsf, PolicyKind::Ranked] {
        let mut policy = kind.start();
        policy.used(A, &facts(1, 1), at(0));
        assert_eq!(policy.victim(at(1), &anyone), None, "{}", kind.name());
        policy.loaded(A, &facts(1, 1), at(1));
        policy.loaded(A, &facts(1, 1), at(1));
        policy.gone(A, at(2));
        policy.gone(A, at(2));
        assert_eq!(policy.victim(at(3), &anyone), None, "{}", kind.name());
    }
}

#[test]
fn what_loads_slowly_for_its_size_stays() {
    let mut policy = Gdsf::default();
    let (slow, large, quick) = (facts(100, 60), facts(1_000, 60), facts(100, 6));
    for (id, mut facts) in [(A, slow), (B, large), (C, quick)] {
        facts.used(at(0));
        policy.loaded(id, &facts, at(0));
    }
    // Ten times the memory for the same minute is worth as little as a tenth of the minute: both before the slow one.
    let first = policy.victim(at(1), &anyone);
    assert!(first == Some(B) || first == Some(C), "{first:?}");
    assert_ne!(policy.victim(at(1), &|id| Some(id) != first), Some(A));
}

#[test]
fn what_was_loved_long_ago_does_not_stay_for_ever() {
    let mut policy = Gdsf::default();
    let mut old = facts(100, 60);
    for second in 0..50 {
        old.used(at(second));
    }
    policy.loaded(A, &old, at(50));
    let mut fresh = facts(100, 60);
    let mut resident = None;
    // Others come and go, each used a few times: the old one must go before long.
    for round in 0..200 {
        let id = ModelId(10 + round);
        for _ in 0..3 {
            fresh.used(at(100 + 60 * u64::from(round)));
        }
        if let Some(before) = resident.replace(id) {
            let gone = policy.victim(at(100 + 60 * u64::from(round)), &anyone).unwrap();
            policy.gone(gone, at(100 + 60 * u64::from(round)));
            if gone == A {
                return;
            }
            assert_eq!(gone, before);
        }
        policy.loaded(id, &fresh, at(100 + 60 * u64::from(round)));
        fresh = facts(100, 60);
    }
    panic!("it stayed through two hundred others");
}
