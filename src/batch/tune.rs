//! Which policy a trace asks for: it is replayed against a grid of them, by the simulator.

use std::time::Duration;

use super::simulate::{Load, Report, Setup, simulate};
use super::trace::{Measured, Trace};
use super::{Adaptive, BatchPolicy, Dispatch};
use crate::error::{Error, ErrorKind, Result};

/// Sizes that are tried.
const SIZES: [usize; 14] = [1, 2, 4, 8, 16, 25, 32, 50, 64, 100, 128, 150, 200, 256];
/// Windows that are tried, in milliseconds.
const WINDOWS: [u64; 5] = [1, 2, 5, 10, 20];
/// Differences that are none: of answers in time, and of latencies.
const SAME: (f64, f64) = (0.01, 0.03);

/// What a policy would have made of a trace.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The policy.
    pub policy: BatchPolicy,
    /// Share of the requests that were answered by their deadline, and within the target where there is one.
    pub in_time: f64,
    /// Requests answered in a second, from the first to come to the last answer.
    pub throughput: f64,
    /// The latency that half of the answers did not exceed.
    pub p50: Duration,
    /// The latency that 99 of 100 answers did not exceed.
    pub p99: Duration,
    /// Requests in a batch on average.
    pub mean_size: f64,
    /// Share of the time that a worker was busy.
    pub busy: f64,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// What the policy of the trace makes of it.
    pub recorded: Outcome,
    /// The policy to use; the recorded one where no other is better.
    pub best: Outcome,
    /// Policies that were tried.
    pub tried: usize,
    /// Requests that were replayed.
    pub replayed: u64,
}

/// Replays a trace against a grid of policies, for so many workers: the answers by the target count; without one, those by
/// the requests' own deadlines, and then the latency.
///
/// # Errors
/// [`ErrorKind::Config`] for a trace without a request, or without a batch that ran whole.
pub fn tune(trace: &Trace, target: Option<Duration>, workers: usize) -> Result<Tuning> {
    let (arrivals, measured) = (trace.replayed(), Measured::of(trace)?);
    if arrivals.is_empty() {
        return Err(Error::new(ErrorKind::Config, "the trace has no request"));
    }
    let replayed = arrivals.iter().map(|arrival| u64::from(arrival.rows)).sum();
    let load = Load::Open(arrivals);
    let policies = grid(trace, target);
    let try_one = |policy: &BatchPolicy| {
        let setup = Setup { workers, ..Setup::new(policy.clone()) };
        simulate(&setup, &load, &mut measured.clone()).map(|report| outcome(policy, &report, target, workers))
    };
    let recorded = try_one(&trace.policy)?;
    let mut best = recorded.clone();
    for tried in in_parallel(&policies, &try_one) {
        let tried = tried?;
        if is_better(&tried, &best) {
            best = tried;
        }
    }
    Ok(Tuning { recorded, best, tried: policies.len() + 1, replayed })
}

/// The recorded policy with other sizes and windows: what it says of costs and padding stays.
fn grid(trace: &Trace, target: Option<Duration>) -> Vec<BatchPolicy> {
    let base = BatchPolicy { min_size: 1, adaptive: None, preferred: Vec::new(), ..trace.policy.clone() };
    // Nobody knows how long batches would take that are far larger than any that ran.
    let largest = (trace.largest() * 2).max(1);
    let sizes = SIZES.into_iter().filter(|size| *size <= largest && *size <= base.max_queue);
    let fixed = sizes.flat_map(|max_size| {
        let tick = BatchPolicy { max_size, dispatch: Dispatch::Tick, ..base.clone() };
        let window = |wait| BatchPolicy {
            dispatch: Dispatch::Window,
            max_wait: Duration::from_millis(wait),
            ..tick.clone()
        };
        let windows: Vec<_> = WINDOWS.into_iter().filter(|_| max_size > 1).map(window).collect();
        std::iter::once(tick).chain(windows)
    });
    let high = 200.min(largest).min(base.max_queue);
    let adaptive = target.map(|_| BatchPolicy {
        max_size: high,
        dispatch: Dispatch::Tick,
        adaptive: Some(Adaptive { low: 25.min(high), target }),
        ..base.clone()
    });
    fixed.chain(adaptive).collect()
}

fn in_parallel<T: Send>(policies: &[BatchPolicy], work: &(impl Fn(&BatchPolicy) -> T + Sync)) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = policies.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = policies
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().filter_map(|part| part.join().ok()).flatten().collect()
    })
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn outcome(policy: &BatchPolicy, report: &Report, target: Option<Duration>, workers: usize) -> Outcome {
    let whole = report.whole();
    let limit = target.unwrap_or(Duration::MAX);
    let good = report.answers.iter().filter(|answer| answer.in_time && answer.took <= limit).count();
    Outcome {
        policy: policy.clone(),
        in_time: good as f64 / report.asked.max(1) as f64,
        throughput: report.throughput(&whole),
        p50: report.quantile(&whole, 0.5),
        p99: report.quantile(&whole, 0.99),
        mean_size: report.stats.mean_size(),
        busy: report.busy.as_secs_f64() / (whole.end.as_secs_f64() * workers.max(1) as f64),
    }
}

/// More answers in time; as many, and the slowest come sooner; or half of them do. What is about the same is no better, so
/// that the policy which was recorded is left alone, and the first of the grid wins: the smaller and simpler one.
fn is_better(one: &Outcome, other: &Outcome) -> bool {
    let (answers, latency) = SAME;
    let faster = |one: Duration, other: Duration| one.as_secs_f64() < other.as_secs_f64() * (1.0 - latency);
    if (one.in_time - other.in_time).abs() > answers {
        return one.in_time > other.in_time;
    }
    if faster(one.p99, other.p99) || faster(other.p99, one.p99) {
        return one.p99 < other.p99;
    }
    faster(one.p50, other.p50)
}
