//! What policies reach, on loads that are the same each time.

use std::ops::Range;
use std::time::Duration;

use super::{tick, window};
use crate::batch::simulate::{Clients, Linear, Load, Phase, Report, Setup, simulate};
use crate::batch::{Adaptive, BatchPolicy};

const MS: Duration = Duration::from_millis(1);
const PHASE: Duration = Duration::from_secs(10);

/// 10 clients, then 1,000, then 100.
fn steps() -> Clients {
    let phases = [10, 1_000, 100].map(|clients| Phase { clients, lasts: PHASE });
    Clients { turnaround: MS / 5, turnaround_spread: MS / 5, ..Clients::in_phases(phases.to_vec()) }
}

/// A small model: 3 ms a call and 50 µs a row.
fn model() -> Linear {
    Linear { fixed: MS * 3, per_cost: MS / 20, noise: 0.2 }
}

fn phase(number: u32) -> Range<Duration> {
    PHASE * number..PHASE * (number + 1)
}

fn run(policy: BatchPolicy) -> Report {
    // What one event loop receives within 0.2 ms is one tick.
    let setup = Setup { tick: MS / 5, ..Setup::new(policy) };
    simulate(&setup, &Load::Closed(steps()), &mut model()).unwrap()
}

/// Every fixed size, alone and with every window.
fn grid() -> Vec<BatchPolicy> {
    let sizes = [4, 10, 16, 25, 50, 100, 150, 200];
    let policies = sizes.map(|size| {
        let windows = [1, 2, 5, 20].map(|wait| window(size, MS * wait));
        std::iter::once(tick(size)).chain(windows)
    });
    policies.into_iter().flatten().collect()
}

/// In each phase, what it reaches as a share of what the best fixed choice does.
#[allow(clippy::print_stdout, reason = "the figures are what the proof is for")]
fn shares(adaptive: &BatchPolicy, score: impl Fn(&Report, &Range<Duration>) -> f64) -> [f64; 3] {
    let reached = run(adaptive.clone());
    let fixed: Vec<_> = grid().into_iter().map(|policy| (run(policy.clone()), policy)).collect();
    [0, 1, 2].map(|number| {
        let scored = fixed.iter().map(|(report, policy)| (score(report, &phase(number)), policy));
        let (best, policy) = scored.max_by(|one, other| one.0.total_cmp(&other.0)).unwrap();
        let own = score(&reached, &phase(number));
        println!(
            "phase {number}: adaptive {own:.0}/s, p99 {:?}; best fixed {best:.0}/s by max_size={} {:?} {:?}",
            reached.quantile(&phase(number), 0.99),
            policy.max_size,
            policy.dispatch,
            policy.max_wait,
        );
        own / best
    })
}

fn adaptive(target: Option<Duration>) -> BatchPolicy {
    BatchPolicy { adaptive: Some(Adaptive { low: 25, target }), ..tick(200) }
}

#[test]
fn adaptive_is_never_far_behind_the_best_fixed_choice() {
    let shares = shares(&adaptive(None), Report::throughput);
    assert!(shares.iter().all(|share| *share >= 0.95), "{shares:?}");
}

#[test]
fn adaptive_with_a_target_is_never_far_behind_the_best_fixed_choice() {
    let target = MS * 200;
    let shares = shares(&adaptive(Some(target)), |report, phase| report.goodput(phase, target));
    assert!(shares.iter().all(|share| *share >= 0.95), "{shares:?}");
}
