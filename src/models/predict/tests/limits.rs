//! What it keeps to.

use super::*;
use crate::error::ErrorKind;

/// Many sessions that stay with a model of their own each, a request every half minute.
fn stay(predictor: &mut Predictor, sessions: u32, rounds: u32) -> Moment {
    let mut now = BEGIN;
    for round in 0..rounds {
        for session in 0..sessions {
            now = at(f64::from(round) * 30.0 + f64::from(session) * 30.0 / f64::from(sessions));
            predictor.note(now, ModelId(session), Some(session.into()));
        }
    }
    now
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let usual = PredictSettings::default();
    let wrong = [
        (PredictSettings { share: 0.0, ..usual }, "share"),
        (PredictSettings { share: 1.1, ..usual }, "share"),
        (PredictSettings { share: f64::NAN, ..usual }, "share"),
        (PredictSettings { top: 0, ..usual }, "top"),
        (PredictSettings { history: 99, ..usual }, "history"),
        (PredictSettings { sessions: 0, ..usual }, "sessions"),
    ];
    for (settings, named) in wrong {
        let error = Predictor::new(settings).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains(named), "{error}");
    }
}

#[test]
fn wishes_keep_to_the_share_of_the_memory() {
    let mut predictor = predictor(PredictSettings { share: 0.25, ..PredictSettings::default() });
    let now = stay(&mut predictor, 40, 20);
    assert!(predictor.is_on(), "{:?}", predictor.report());
    let wishes = predictor.wishes(now, Some(200), &small);
    assert_eq!(wishes.len(), 5, "5 models of 10 bytes are a quarter of 200");
    for wish in &wishes {
        predictor.granted(wish);
    }
    let others = |id: ModelId| small(id).filter(|_| wishes.iter().all(|wish| wish.model != id));
    assert_eq!(predictor.wishes(now, Some(200), &others), [], "those that wait fill the share");
    // One of them is used, so that there is room for another.
    predictor.begun(now, wishes[0].model);
    predictor.note(now, wishes[0].model, None);
    assert_eq!(predictor.wishes(now, Some(200), &others).len(), 1);
    let report = predictor.report();
    assert_eq!((report.issued, report.used, report.wasted, report.used_share()), (1, 1, 0, 1.0));
}

#[test]
fn what_saves_the_most_is_wished_for_first() {
    let mut predictor = predictor(PredictSettings::default());
    let now = stay(&mut predictor, 40, 20);
    let slow = |id: ModelId| Some(Prospect { bytes: 10, load_seconds: f64::from(id.0 % 7) + 1.0 });
    let wishes = predictor.wishes(now, Some(80), &slow);
    assert_eq!(wishes.len(), 2);
    assert!(wishes.iter().all(|wish| wish.model.0 % 7 == 6 && wish.likely > 0.7), "{wishes:?}");
}

#[test]
fn only_so_many_sessions_are_remembered() {
    let mut predictor = predictor(PredictSettings { sessions: 50, ..PredictSettings::default() });
    for session in 0..5_000_u32 {
        predictor.note(at(f64::from(session)), ModelId(session % 9), Some(session.into()));
    }
    assert_eq!(predictor.report().sessions_known, 50);
}

#[test]
fn a_timer_is_loaded_just_in_time_and_may_leave_once_it_was_served() {
    let mut predictor = predictor(PredictSettings::default());
    let (model, period) = (ModelId(3), 900.0);
    // Enough of them that they can be scored; each starts a little later.
    let mut last = 0.0;
    for turn in 0..40 {
        for other in 0..5 {
            last = f64::from(turn) * period + f64::from(other) * 100.0;
            predictor.wishes(at(last), None, &small);
            predictor.note(at(last), ModelId(other), None);
        }
    }
    assert!(predictor.report().rhythms_on, "{:?}", predictor.report());
    let due = 40.0 * period + 3.0 * 100.0;
    assert!(predictor.is_spent(at(last), model), "it is not asked for within the next ten minutes");
    let wished = |predictor: &mut Predictor, seconds: f64| {
        let wishes = predictor.wishes(at(seconds), None, &small);
        wishes.iter().any(|wish| wish.model == model && wish.because == Because::Rhythm)
    };
    assert!(!wished(&mut predictor, due - 200.0), "that would be too early");
    let next = predictor.next().unwrap();
    assert!(next > at(due - 200.0) && next < at(due), "{next:?}");
    assert!(wished(&mut predictor, due - 8.0), "its load takes five seconds");
    assert!(!predictor.is_spent(at(due - 8.0), model));
    // It does not come.
    assert!(!wished(&mut predictor, due + 100.0));
}
