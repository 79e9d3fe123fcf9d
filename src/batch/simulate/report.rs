//! What became of a load.

use std::ops::Range;
use std::time::Duration;

use super::Call;
use crate::batch::BatchStats;
use crate::flow::Moment;

/// A request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// When it came.
    pub arrived: Moment,
    /// Time until its answer.
    pub took: Duration,
    /// True where the answer came before its deadline, or it had none.
    pub in_time: bool,
}

impl Answered {
    fn at(&self) -> Duration {
        (self.arrived + self.took).since(Moment::default())
    }
}

/// What became of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests that came.
    pub asked: u64,
    /// Those that the batcher refused.
    pub refused: u64,
    /// Those whose time had passed before the function saw them.
    pub expired: u64,
    /// Those that still waited at the end.
    pub waiting: usize,
    /// The others, in the order of their answers.
    pub answers: Vec<Answered>,
    /// Cost of all rows that the function was given.
    pub cost: u64,
    /// Cost of all batches, padding included.
    pub padded_cost: u64,
    /// Time that the function took, of all workers together.
    pub busy: Duration,
    /// Until the last answer.
    pub elapsed: Duration,
    /// The batcher's own counters.
    pub stats: BatchStats,
}

impl Report {
    pub(super) fn count(&mut self, call: &Call, took: Duration) {
        self.cost += call.cost;
        self.padded_cost += call.padded_cost;
        self.busy += took;
    }

    /// From the beginning to the last answer.
    pub fn whole(&self) -> Range<Duration> {
        Duration::ZERO..self.elapsed + Duration::from_nanos(1)
    }

    /// Answers that came within that time.
    pub fn answered(&self, within: &Range<Duration>) -> impl Iterator<Item = &Answered> {
        self.answers.iter().filter(move |answer| within.contains(&answer.at()))
    }

    /// Answers a second within that time.
    pub fn throughput(&self, within: &Range<Duration>) -> f64 {
        per_second(self.answered(within).count(), within)
    }

    /// Answers a second, within that time, that came before their deadline and took at most `limit`.
    pub fn goodput(&self, within: &Range<Duration>, limit: Duration) -> f64 {
        let good = self.answered(within).filter(|answer| answer.in_time && answer.took <= limit);
        per_second(good.count(), within)
    }

    /// The latency that this share of the answers within that time did not exceed; zero where there were none.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a list that fits into memory"
    )]
    pub fn quantile(&self, within: &Range<Duration>, share: f64) -> Duration {
        let mut took: Vec<_> = self.answered(within).map(|answer| answer.took).collect();
        if took.is_empty() {
            return Duration::ZERO;
        }
        let at = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len()) - 1;
        *took.select_nth_unstable(at).1
    }

    /// Cost of rows as a share of the cost of batches: what padding left useful.
    #[allow(clippy::cast_precision_loss, reason = "costs stay far below 2^52")]
    pub fn useful(&self) -> f64 {
        if self.padded_cost == 0 { 1.0 } else { self.cost as f64 / self.padded_cost as f64 }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn per_second(count: usize, within: &Range<Duration>) -> f64 {
    let seconds = within.end.saturating_sub(within.start).as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
