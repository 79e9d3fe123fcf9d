//! How often it is right, on traces whose shape is known; and when it leaves off.

#![expect(clippy::cast_precision_loss, reason = "a trace has far fewer requests than a float counts")]

use super::*;
use crate::models::simulate::{Access, Predictable, Shape, Source, Trace};

/// What the predictor says after a trace, and in which share of the requests it was on.
fn follow(accesses: &[Access]) -> (PredictReport, f64) {
    let mut predictor = predictor(PredictSettings::default());
    let mut on = 0.0;
    for access in accesses {
        if predictor.next().is_some_and(|next| next <= access.at) {
            predictor.wishes(access.at, None, &|_| None);
        }
        predictor.note(access.at, access.model, access.session());
        on += f64::from(predictor.is_on());
    }
    (predictor.report(), on / accesses.len() as f64)
}

/// How often two guesses are right that know the popularity and whose model is whose.
fn best(accesses: &[Access]) -> f64 {
    let right = accesses.iter().filter(|access| access.guesses.is_some_and(|guesses| guesses <= 2)).count();
    right as f64 / accesses.len() as f64
}

fn people(trace: &Trace) -> Vec<Access> {
    trace.accesses.iter().copied().filter(|access| matches!(access.source, Source::User(_))).collect()
}

#[test]
fn it_is_right_nearly_as_often_as_the_traffic_allows() {
    let allowed = Predictable::of(&Shape::default());
    for seed in 1..=3 {
        let trace = Trace::new(&Shape::default(), seed);
        let (report, on) = follow(&trace.accesses);
        let ever = report.ever;
        assert!(ever.named >= 0.95 * best(&trace.accesses), "{ever:?}");
        assert!(ever.named >= 0.95 * allowed.both, "{ever:?} of {allowed:?}");
        assert!(ever.named > 2.0 * ever.popular_named, "{ever:?}");
        assert!(on > 0.95, "drift and scan turned it off: {on}");
        let people = people(&trace);
        let (report, _) = follow(&people);
        assert!(report.ever.named >= 0.95 * best(&people), "{:?} of {}", report.ever, best(&people));
        assert!(report.ever.named >= 0.95 * allowed.sessions, "{:?} of {allowed:?}", report.ever);
    }
}

#[test]
fn the_bound_is_what_two_perfect_guesses_reach() {
    let shape = Shape { scan: None, looping: None, length: Duration::from_hours(1440), ..Shape::default() };
    let (trace, allowed) = (Trace::new(&shape, 5), Predictable::of(&shape));
    assert!((best(&people(&trace)) - allowed.sessions).abs() < 0.01, "{} {allowed:?}", best(&people(&trace)));
    assert!((best(&trace.accesses) - allowed.both).abs() < 0.01, "{} {allowed:?}", best(&trace.accesses));
}

#[test]
fn chance_leaves_it_off() {
    for seed in 1..=3 {
        let (report, on) = follow(&Trace::uniform(&Shape::default(), 30_000, seed).accesses);
        assert!(on < f64::EPSILON, "{report:?}");
    }
}

#[test]
fn drift_does_not_turn_it_off() {
    let hour = Duration::from_hours(1);
    let shape = Shape { drift: hour, drifting: 0.5, ..Shape::default() };
    let (report, on) = follow(&Trace::new(&shape, 1).accesses);
    assert!(report.on && on > 0.95, "{on} {report:?}");
}

#[test]
fn it_turns_off_when_the_traffic_loses_its_shape_and_on_again() {
    let shaped = Trace::new(&Shape::default(), 1).accesses;
    let chance = Trace::uniform(&Shape::default(), 10_000, 1).accesses;
    let mut predictor = predictor(PredictSettings::default());
    let mut begin = BEGIN;
    let mut on = [0, 0, 0];
    for (turn, accesses) in on.iter_mut().zip([&shaped[..10_000], &chance, &shaped[10_000..20_000]]) {
        let first = accesses[0].at;
        for access in accesses {
            let now = begin + access.at.since(first);
            predictor.wishes(now, None, &|_| None);
            predictor.note(now, access.model, access.session());
            *turn += u32::from(predictor.report().on);
        }
        begin = begin + accesses.last().unwrap().at.since(first);
    }
    assert!(on[0] > 9_000 && on[1] < 2_000 && on[2] > 9_000, "{on:?}");
}
