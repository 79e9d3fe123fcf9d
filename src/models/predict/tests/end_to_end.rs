//! What it is worth to the real cache, on a clock that only events move.

use super::*;
use crate::models::simulate::{Outcome, Setup, Shape, Trace, drive};
use crate::models::{CacheSettings, PolicyKind};

fn run(trace: &Trace, share: f64, policy: PolicyKind, predict: Option<PredictSettings>) -> Outcome {
    let memory = Some(trace.budget(share));
    let outcome =
        drive(trace, &Setup::new(CacheSettings { memory, policy, predict, ..CacheSettings::default() }))
            .unwrap();
    assert_eq!(outcome.refused, 0);
    outcome
}

/// Without prediction, with it, and what it says of itself.
fn both(trace: &Trace, share: f64, policy: PolicyKind) -> (Outcome, Outcome, PredictReport) {
    let plain = run(trace, share, policy, None);
    let with = run(trace, share, policy, Some(PredictSettings::default()));
    let report = with.stats.predictions.unwrap();
    (plain, with, report)
}

#[test]
fn requests_wait_a_fifth_less_for_loads_and_preloads_are_used() {
    for seed in 1..=2 {
        let trace = Trace::new(&Shape::default(), seed);
        for policy in [PolicyKind::Lru, PolicyKind::Gdsf] {
            let (plain, with, report) = both(&trace, 0.1, policy);
            assert!(with.waited_hours() <= 0.8 * plain.waited_hours());
            assert!(report.used_share() >= 0.8, "{report:?}");
            assert!(with.hit_rate() > plain.hit_rate());
            assert!(report.on && report.issued > 1_000, "{report:?}");
            // What it loads in vain is little of what is loaded at all.
            assert!(report.wasted_load_seconds < 0.05 * with.loading.as_secs_f64(), "{report:?}");
        }
    }
}

#[test]
fn a_small_memory_and_a_large_one_are_no_worse_for_it() {
    let trace = Trace::new(&Shape::default(), 1);
    for share in [0.05, 0.2] {
        let (plain, with, report) = both(&trace, share, PolicyKind::Lru);
        assert!(with.waited_hours() <= 0.9 * plain.waited_hours());
        assert!(report.used_share() >= 0.8, "{report:?}");
    }
}

#[test]
fn what_cannot_be_predicted_is_left_as_it_was() {
    let trace = Trace::uniform(&Shape::default(), 10_000, 1);
    let (plain, with, report) = both(&trace, 0.1, PolicyKind::Lru);
    assert!(!report.on && report.issued == 0, "{report:?}");
    assert_eq!((plain.hits, plain.waited, plain.loading), (with.hits, with.waited, with.loading));
}
