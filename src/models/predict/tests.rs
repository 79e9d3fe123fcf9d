//! The predictor as a whole, on traces whose shape is known.

use super::*;
use crate::models::simulate::{Access, Shape, Source, Trace};

/// The predictor after it has seen a trace, and after each request whether it was on.
fn follow(accesses: &[Access]) -> (Predictor, Vec<bool>) {
    let mut predictor = Predictor::new(PredictSettings::default()).unwrap();
    let on = accesses.iter().map(|access| {
        predictor.wishes(access.at, None, &|_| None);
        predictor.note(access.at, access.model, access.session());
        predictor.report().on
    });
    let on = on.collect();
    (predictor, on)
}

#[test]
fn accuracy() {
    for seed in 1..4 {
        let trace = Trace::new(&Shape::default(), seed);
        let best = |people: bool| {
            let of = |access: &&Access| !people || matches!(access.source, Source::User(_));
            let (mut all, mut right) = (0, 0);
            for access in trace.accesses.iter().filter(of) {
                all += 1;
                right += usize::from(access.guesses.is_some_and(|guesses| guesses <= 2));
            }
            right as f64 / all as f64
        };
        let started = std::time::Instant::now();
        let (predictor, on) = follow(&trace.accesses);
        let took = started.elapsed();
        let report = predictor.report();
        println!(
            "{seed}: {} requests, bound {:.3} {:.3}, on {:.3}, {:?} each",
            trace.accesses.len(),
            best(false),
            best(true),
            on.iter().filter(|on| **on).count() as f64 / on.len() as f64,
            took / trace.accesses.len() as u32
        );
        println!(
            "  ever {:.3?}\n  sessions {:.3?} ever {:.3?}\n  rhythms {:.3?} ever {:.3?}",
            report.ever,
            report.sessions,
            predictor.by_session.ever(),
            report.rhythms,
            predictor.by_rhythm.ever()
        );
        println!(
            "  {:?} {}",
            predictor.mixture.rank(&[ModelId(3)].into_iter().collect(), 4),
            report.rhythms_known
        );
        let uniform = Trace::uniform(&Shape::default(), 30_000, seed);
        let (predictor, on) = follow(&uniform.accesses);
        println!("  uniform {:.3?} on {:?}", predictor.report().ever, on.iter().filter(|on| **on).count());
    }
}
