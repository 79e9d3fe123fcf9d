//! What policies reach, on loads that are the same each time.

use std::ops::Range;
use std::time::Duration;

use super::{tick, window};
use crate::batch::simulate::{Arrival, Clients, Linear, Load, Phase, Report, Setup, poisson, simulate};
use crate::batch::{Adaptive, BatchPolicy, Budget};
use crate::tensor::Padding;

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

/// Texts of 10 to 100 tokens, as many of each length.
fn texts(per_second: f64, lasts: Duration) -> Vec<Arrival> {
    let lengths: Vec<u32> = (10..=100).collect();
    poisson(per_second, lasts, &lengths, None, 11)
}

/// What a first-in-first-out token budget makes of texts that all wait: it cuts where the next one, with all filled up to
/// the longest, would not fit any more. Answers with the useful share.
fn fifo(lengths: impl Iterator<Item = u32>, rows: usize, budget: u64) -> f64 {
    let (mut useful, mut paid, mut batch, mut longest) = (0_u64, 0_u64, 0_u64, 0_u64);
    for length in lengths.map(u64::from) {
        if batch == rows as u64 || (batch + 1) * longest.max(length) > budget {
            paid += batch * longest;
            (batch, longest) = (0, 0);
        }
        batch += 1;
        longest = longest.max(length);
        useful += length;
    }
    useful as f64 / (paid + batch * longest) as f64
}

#[test]
fn mixed_lengths_leave_nine_tenths_useful() {
    let budget = 2_048;
    let padding = Padding { multiple: 1, value_bits: 0, columns: 1 };
    let budgeted = Budget { max_batch: Some(budget), padding: Some(padding), ..Budget::default() };
    let policy = BatchPolicy { budget: Some(budgeted), ..tick(64) };
    // 20 µs a token: 45,000 tokens a second are what it can do.
    let mut tokens = Linear { fixed: MS, per_cost: MS / 50, noise: 0.1 };
    let lasts = Duration::from_secs(20);
    let crowd = |clients| {
        let phases = vec![Phase { clients, lasts }];
        Load::Closed(Clients { costs: (10..=100).collect(), ..Clients::in_phases(phases) })
    };
    let busy = texts(740.0, lasts);
    let beside = fifo(busy.iter().map(|arrival| arrival.cost), 64, budget);
    // The more wait, the more there is to choose from; while the function keeps up, time is not worth saving.
    let loads = [
        ("740/s", Load::Open(busy), 0.8),
        ("128 clients", crowd(128), 0.8),
        ("256 clients", crowd(256), 0.85),
        ("512 clients", crowd(512), 0.9),
    ];
    for (name, load, least) in loads {
        let report = simulate(&Setup::new(policy.clone()), &load, &mut tokens).unwrap();
        let (useful, slowest) = (report.useful(), report.quantile(&report.whole(), 0.99));
        println!(
            "{name}: {useful:.3} useful beside {beside:.3}, mean {:.1}, p99 {slowest:?}, {:.0}/s",
            report.stats.mean_size(),
            report.throughput(&report.whole())
        );
        assert!(useful >= least, "{useful} beside {beside}");
        assert!(slowest < Duration::from_secs(2), "somebody starves: {slowest:?}");
    }
}

const LIMIT: Duration = Duration::from_millis(100);

/// Open loop at a multiple of what a function of 4 ms and 0.2 ms a row can do in batches of 50.
fn loaded(times: f64, policy: &BatchPolicy) -> Report {
    let mut service = Linear { fixed: MS * 4, per_cost: MS / 5, noise: 0.1 };
    let capacity = 50.0 / (0.014 * 1.05);
    let arrivals = poisson(capacity * times, Duration::from_secs(20), &[1], Some(LIMIT), 5);
    simulate(&Setup::new(policy.clone()), &Load::Open(arrivals), &mut service).unwrap()
}

#[test]
fn twice_the_load_costs_no_goodput() {
    let policy = tick(50);
    let seconds = Duration::from_secs(2)..Duration::from_secs(20);
    let good = |report: &Report| report.goodput(&seconds, LIMIT);
    let (one, two, four) = (loaded(1.0, &policy), loaded(2.0, &policy), loaded(4.0, &policy));
    for report in [&one, &two, &four] {
        println!(
            "asked {} refused {} expired {} good {:.0}/s p99 {:?} mean {:.1}",
            report.asked,
            report.refused,
            report.expired,
            good(report),
            report.quantile(&seconds, 0.99),
            report.stats.mean_size()
        );
    }
    assert!(good(&two) >= 0.95 * good(&one), "{} after {}", good(&two), good(&one));
    assert!(good(&four) >= 0.95 * good(&one), "{} after {}", good(&four), good(&one));
    assert!(two.quantile(&seconds, 0.99) <= LIMIT);
}

/// The mean batch of 64 clients and four workers of a function that takes 5 ms.
fn mean_of_four_workers(gather: Duration) -> f64 {
    let phases = vec![Phase { clients: 64, lasts: PHASE }];
    let clients = Clients { turnaround: MS / 10, turnaround_spread: MS / 5, ..Clients::in_phases(phases) };
    let setup = Setup { workers: 4, tick: gather, ..Setup::new(tick(100)) };
    let mut service = Linear { fixed: MS * 5, per_cost: Duration::ZERO, noise: 0.3 };
    simulate(&setup, &Load::Closed(clients), &mut service).unwrap().stats.mean_size()
}

#[test]
fn one_queue_makes_three_times_the_batches_of_workers_that_race() {
    // Workers that race take the first request that comes, with whatever is there already.
    let (one_queue, race) = (mean_of_four_workers(MS / 5), mean_of_four_workers(Duration::ZERO));
    println!("64 clients of 4 workers: mean batch {one_queue:.1} by ticks, {race:.1} where workers race");
    assert!(one_queue >= 3.0 * race, "{one_queue} beside {race}");
}
