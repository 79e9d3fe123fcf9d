//! The simulator: it loses nobody, says the same each time, and knows what can be worked out by hand.

use std::time::Duration;

use proptest::prelude::*;

use super::{tick, window};
use crate::batch::simulate::{Arrival, Clients, Linear, Load, Phase, Setup, poisson, simulate};
use crate::batch::{BatchPolicy, Reason};

const MS: Duration = Duration::from_millis(1);

fn fixed(takes: Duration) -> Linear {
    Linear { fixed: takes, per_cost: Duration::ZERO, noise: 0.0 }
}

fn at(milliseconds: u32) -> Arrival {
    Arrival { at: MS * milliseconds, rows: 1, cost: 1, timeout: None }
}

#[test]
fn a_lone_request_takes_as_long_as_the_function() {
    let load = Load::Open(vec![at(5)]);
    let report = simulate(&Setup::new(tick(10)), &load, &mut fixed(MS * 3)).unwrap();
    assert_eq!(report.answers.len(), 1);
    assert_eq!(report.answers[0].took, MS * 3);
    assert_eq!(report.elapsed, MS * 8);
}

#[test]
fn a_window_is_waited_for_and_what_comes_meanwhile_shares_it() {
    let load = Load::Open(vec![at(0), at(4), at(9), at(11)]);
    let report = simulate(&Setup::new(window(10, MS * 10)), &load, &mut fixed(MS * 2)).unwrap();
    let took: Vec<_> = report.answers.iter().map(|answer| answer.took).collect();
    assert_eq!(took, [MS * 12, MS * 8, MS * 3, MS * 12]);
    assert_eq!(report.stats.batches, 2);
}

#[test]
fn a_tick_gathers_what_comes_within_it() {
    let load = Load::Open(vec![at(0), at(1), at(2), at(6)]);
    let setup = Setup { tick: MS * 5, ..Setup::new(tick(10)) };
    let report = simulate(&setup, &load, &mut fixed(MS)).unwrap();
    assert_eq!(report.stats.batches, 2);
    assert_eq!(report.answers[0].took, MS * 6);
    assert_eq!(
        report.stats.reasons[Reason::ALL.iter().position(|reason| *reason == Reason::Tick).unwrap()],
        2
    );
}

#[test]
fn clients_of_a_busy_function_share_its_batches() {
    let clients = Clients::in_phases(vec![Phase { clients: 40, lasts: Duration::from_secs(2) }]);
    let load = Load::Closed(clients);
    let report = simulate(&Setup::new(tick(100)), &load, &mut fixed(MS * 10)).unwrap();
    // Each call serves all forty; the next begins 100 µs after its answers.
    assert!((report.stats.mean_size() - 40.0).abs() < 1.0, "{}", report.stats.mean_size());
    let per_second = report.throughput(&report.whole());
    assert!((per_second - 40.0 / 0.0101).abs() < 100.0, "{per_second}");
}

#[test]
fn two_workers_do_twice_as_much() {
    let arrivals = poisson(3_000.0, Duration::from_secs(3), &[1], None, 7);
    let (load, mut service) = (Load::Open(arrivals), fixed(MS * 10));
    let one = simulate(&Setup::new(tick(10)), &load, &mut service).unwrap();
    let two = simulate(&Setup { workers: 2, ..Setup::new(tick(10)) }, &load, &mut service).unwrap();
    let half = Duration::ZERO..Duration::from_secs(3);
    let (one, two) = (one.throughput(&half), two.throughput(&half));
    assert!((one - 1_000.0).abs() < 20.0 && (two - 2_000.0).abs() < 40.0, "{one}, {two}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everyone_is_accounted_for_and_a_seed_says_it_all(
        per_second in 100.0_f64..20_000.0,
        max_size in 1_usize..64,
        max_queue in 10_usize..500,
        window_ms in 0_u32..20,
        workers in 1_usize..4,
        seed in any::<u64>(),
    ) {
        let policy = match window_ms {
            0 => tick(max_size),
            _ => window(max_size, MS * window_ms),
        };
        let policy = BatchPolicy { max_queue, ..policy };
        let setup = Setup { workers, seed, ..Setup::new(policy) };
        let load = Load::Open(poisson(per_second, Duration::from_millis(500), &[1, 2, 3], None, seed));
        let mut service = Linear { fixed: MS * 2, per_cost: MS / 10, noise: 0.5 };
        let report = simulate(&setup, &load, &mut service).unwrap();
        prop_assert_eq!(report.waiting, 0);
        prop_assert_eq!(report.asked, report.refused + report.expired + report.answers.len() as u64);
        prop_assert_eq!(report.answers.len() as u64, report.stats.requests);
        prop_assert!(report.answers.iter().all(|answer| answer.took >= MS * 2));
        let again = simulate(&setup, &load, &mut service).unwrap();
        prop_assert_eq!(report.answers, again.answers);
    }
}
