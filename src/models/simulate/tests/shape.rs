use std::collections::{BTreeSet, HashMap};

use super::super::Shape;
use super::super::trace::*;
use crate::flow::Moment;

#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
fn ratio(some: usize, of: usize) -> f64 {
    some as f64 / of as f64
}

fn share(trace: &Trace, of: impl Fn(&Access) -> bool, among: impl Fn(&Access) -> bool) -> f64 {
    let among: Vec<_> = trace.accesses.iter().filter(|access| among(access)).collect();
    ratio(among.iter().filter(|access| of(access)).count(), among.len())
}

fn is_user(access: &Access) -> bool {
    matches!(access.source, Source::User(_))
}

#[test]
fn a_seed_is_a_trace() {
    let shape = Shape::default();
    let (one, again, other) = (Trace::new(&shape, 1), Trace::new(&shape, 1), Trace::new(&shape, 2));
    assert_eq!(one.accesses, again.accesses);
    assert_eq!(one.models, again.models);
    assert_ne!(one.accesses, other.accesses);
    assert!(one.accesses.is_sorted_by_key(|access| access.at));
}

#[test]
fn users_stay_and_timers_ask_as_often_as_the_shape_says() {
    let trace = Trace::new(&Shape::default(), 1);
    let mut last = HashMap::new();
    let stays = trace.accesses.iter().filter(|access| {
        let Source::User(user) = access.source else { return false };
        last.insert(user, access.model) == Some(access.model)
    });
    let stays = ratio(stays.count(), trace.accesses.iter().filter(|access| is_user(access)).count());
    // Who draws anew may draw the same.
    assert!((0.72..0.78).contains(&stays), "{stays}");
    let timers = share(&trace, |access| access.source == Source::Timer, |_| true);
    assert!((0.25..0.35).contains(&timers), "{timers}");
    let scheduled: BTreeSet<_> = trace
        .accesses
        .iter()
        .filter(|access| access.source == Source::Timer)
        .map(|access| access.model)
        .collect();
    assert_eq!(scheduled.len(), 10);
    assert!(!trace.accesses.iter().any(|access| is_user(access) && scheduled.contains(&access.model)));
}

#[test]
fn what_can_be_foreseen_is_what_the_issue_says() {
    let trace = Trace::new(&Shape::default(), 1);
    let foreseen = |access: &Access| access.guesses.is_some();
    let sessions = share(&trace, foreseen, is_user);
    let with_timers = share(&trace, foreseen, |access| is_user(access) || access.source == Source::Timer);
    assert!((0.80..0.84).contains(&sessions), "{sessions}");
    assert!((0.85..0.89).contains(&with_timers), "{with_timers}");
}

#[test]
fn the_scan_touches_all_and_the_loop_is_too_large_for_a_tenth() {
    let trace = Trace::new(&Shape::default(), 1);
    let of = |source| trace.accesses.iter().filter(move |access| access.source == source);
    assert_eq!(of(Source::Scan).map(|access| access.model).collect::<BTreeSet<_>>().len(), 100);
    let round: BTreeSet<_> = of(Source::Loop).map(|access| access.model).collect();
    assert_eq!(of(Source::Loop).count(), 5 * round.len());
    let bytes: u64 = round.iter().map(|model| trace.models[model.0 as usize].bytes).sum();
    assert!(bytes > trace.budget(0.1));
    let largest = trace.models.iter().map(|model| model.bytes).max().unwrap();
    assert!(bytes <= trace.budget(0.1) + largest);
}

#[test]
fn nights_are_quiet_and_traffic_comes_in_bursts() {
    let trace = Trace::new(&Shape { scan: None, looping: None, ..Shape::default() }, 1);
    let users: Vec<_> = trace.accesses.iter().filter(|access| is_user(access)).collect();
    let hour = |access: &Access| access.at.since(Moment::default()).as_secs() / 3600 % 24;
    let in_night = users.iter().filter(|access| (17..19).contains(&hour(access))).count();
    let in_day = users.iter().filter(|access| (5..7).contains(&hour(access))).count();
    assert!(in_day > 5 * in_night, "{in_day} by day, {in_night} by night");
    let gaps: Vec<_> = users.windows(2).map(|pair| pair[1].at.since(pair[0].at).as_secs_f64()).collect();
    let count = ratio(gaps.len(), 1);
    let mean = gaps.iter().sum::<f64>() / count;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
    assert!(variance.sqrt() / mean > 2.0);
}
