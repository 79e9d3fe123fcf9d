//! What a batch was, and where its time went: one account for each batch, open while it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cut, Entry, Ran};
use crate::flow::{BatchTrace, Moment, TraceContext};
use crate::metrics::{BatchCount, PARTS};

/// What a batch was, and where its time went.
#[derive(Debug, Clone)]
pub struct BatchAccount {
    /// When a worker took it.
    pub taken: Instant,
    /// When the model was given it first; `None` where it never was.
    pub called: Option<Instant>,
    /// When its answers were there.
    pub done: Instant,
    /// Time that the model had it, all rounds together.
    pub model: Duration,
    /// Its rows.
    pub rows: usize,
    /// Why it was cut.
    pub reason: &'static str,
    /// How it was cut.
    pub cut: Cut,
    /// What its requests waited until a worker took it, added up.
    pub waited: Waited,
    /// The earliest deadline of a request in it.
    pub deadline: Option<Moment>,
    /// Calls of the model beyond the first.
    pub reruns: u32,
    /// Rows that were answered with an error.
    pub failed: usize,
    /// What there is to learn from it.
    pub ran: Ran,
    /// What their senders call its requests, as far as they do.
    pub ids: Vec<Arc<str>>,
    /// The traces of its requests, as far as they have any.
    pub trace: BatchTrace,
}

/// What requests waited until a worker took their batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waited {
    /// From their arrival until their batch could have been taken: for company.
    pub queue: Duration,
    /// From there until it was: for a worker that is free.
    pub slot: Duration,
}

/// The parts of a batch's time, from the arrival of its first request to its answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// From the arrival of its first request until it could have been taken.
    pub queue: Duration,
    /// From there until a worker took it.
    pub slot: Duration,
    /// From there until the model was called: its input was made.
    pub gather: Duration,
    /// The model's own time.
    pub model: Duration,
    /// The rest, until its answers were there: what the model returned was taken apart.
    pub scatter: Duration,
}

impl Parts {
    /// The names of the parts, in their order.
    pub const NAMES: [&'static str; PARTS.len()] = PARTS;

    /// The parts, in that order.
    pub fn each(self) -> [Duration; PARTS.len()] {
        [self.queue, self.slot, self.gather, self.model, self.scatter]
    }
}

impl BatchAccount {
    /// The account of a batch that a worker takes now.
    pub fn open(rows: usize, reason: &'static str, cut: Cut) -> Self {
        let now = Instant::now();
        Self {
            taken: now,
            called: None,
            done: now,
            model: Duration::ZERO,
            rows,
            reason,
            cut,
            waited: Waited::default(),
            deadline: None,
            reruns: 0,
            failed: 0,
            ran: Ran::Unknown,
            ids: Vec::new(),
            trace: BatchTrace::default(),
        }
    }

    /// Counts what each of its requests has waited, and finds the earliest deadline.
    pub fn add_requests<W>(&mut self, entries: &[Entry<W>]) {
        for entry in entries {
            self.waited.queue += self.cut.ready.since(entry.arrived);
            self.waited.slot += self.cut.taken.since(self.cut.ready.max(entry.arrived));
            if let Some(deadline) = entry.deadline {
                self.deadline = Some(self.deadline.map_or(deadline, |earliest| earliest.min(deadline)));
            }
        }
    }

    /// The context of the batch's own work: what is asked of others on its behalf names it, where it had one when its model was
    /// called. `None` where no request of it is in a trace.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace.own()
    }

    /// The model is called now; only the first time counts.
    pub fn call(&mut self) {
        self.called.get_or_insert_with(Instant::now);
    }

    /// Closes the account: the model had the batch for that long, and the answers are there.
    pub fn close(&mut self, model: Duration) {
        self.model = model;
        self.done = Instant::now();
    }

    /// When it could have been taken, had a worker been free.
    fn ready(&self) -> Instant {
        let slot = self.cut.taken.since(self.cut.ready);
        self.taken.checked_sub(slot).unwrap_or(self.taken)
    }

    /// Where the time of a request in it went which came at that moment.
    pub fn parts_since(&self, arrived: Instant) -> Parts {
        let ready = self.ready();
        Parts {
            queue: ready.saturating_duration_since(arrived),
            slot: self.taken.saturating_duration_since(ready.max(arrived)),
            ..self.parts()
        }
    }

    /// Where its time went, with that of its first request.
    pub fn parts(&self) -> Parts {
        let gather = self.called.unwrap_or(self.taken).saturating_duration_since(self.taken);
        let ran = self.done.saturating_duration_since(self.taken);
        Parts {
            queue: self.cut.ready.since(self.cut.oldest),
            slot: self.cut.taken.since(self.cut.ready.max(self.cut.oldest)),
            gather,
            model: self.model,
            scatter: ran.saturating_sub(gather).saturating_sub(self.model),
        }
    }

    /// What is counted of it.
    pub fn count(&self) -> BatchCount {
        BatchCount {
            parts: self.parts().each(),
            cost: self.cut.cost,
            padded_cost: self.cut.padded_cost,
            misjudged: self.misjudged(),
        }
    }

    /// By how much the model's time was not as predicted, where it was and the model ran the batch as a whole.
    pub fn misjudged(&self) -> Option<Duration> {
        match (self.ran, self.cut.predicted) {
            (Ran::Whole(took), Some(predicted)) => Some(took.abs_diff(predicted)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::from_nanos(milliseconds * 1_000_000)
    }

    fn millis(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn cut() -> Cut {
        Cut { oldest: at(100), ready: at(110), taken: at(130), predicted: Some(millis(9)), ..Cut::default() }
    }

    #[test]
    fn the_parts_of_its_time_leave_nothing_out() {
        let mut account = BatchAccount::open(3, "tick", cut());
        account.called = Some(account.taken + millis(2));
        account.done = account.taken + millis(10);
        account.model = millis(7);
        let parts = account.parts();
        assert_eq!(parts.each(), [10, 20, 2, 7, 1].map(millis));
        let of_late = account.parts_since(account.taken.checked_sub(millis(5)).unwrap());
        assert_eq!(of_late.each(), [0, 5, 2, 7, 1].map(millis), "what came later waited less");
        let of_early = account.parts_since(account.taken.checked_sub(millis(25)).unwrap());
        assert_eq!(of_early.each(), [5, 20, 2, 7, 1].map(millis));
    }

    #[test]
    fn every_request_has_waited_for_itself() {
        let entry = |arrived, deadline| Entry { waiter: (), arrived, deadline };
        let mut account = BatchAccount::open(3, "tick", cut());
        account.add_requests(&[
            entry(at(100), None),
            entry(at(105), Some(at(900))),
            entry(at(125), Some(at(400))),
        ]);
        assert_eq!(account.waited, Waited { queue: millis(15), slot: millis(45) });
        assert_eq!(account.deadline, Some(at(400)));
    }

    #[test]
    fn a_prediction_is_judged_by_whole_batches_alone() {
        let mut account = BatchAccount::open(3, "tick", cut());
        assert_eq!(account.misjudged(), None);
        for (took, error) in [(12, 3), (4, 5)] {
            account.ran = Ran::Whole(millis(took));
            assert_eq!(account.misjudged(), Some(millis(error)));
        }
        account.ran = Ran::OutOfMemory(3);
        assert_eq!(account.misjudged(), None);
    }

    #[test]
    fn only_the_first_call_counts() {
        let mut account = BatchAccount::open(1, "tick", Cut::default());
        account.call();
        let first = account.called;
        account.call();
        assert_eq!(account.called, first);
    }
}
