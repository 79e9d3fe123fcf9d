//! Random scripts: after every step the queue must agree with a model that is a plain list.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::queue::Outlook;
use super::super::{
    Batch, BatchPolicy, BatchQueue, BatchStats, Dispatch, Entry, Pressure, Priority, Ran, Reason, Removed,
    Verdict, verdict,
};
use super::{assert_rows, key, write};
use crate::flow::{Clock, Moment, VirtualClock};
use crate::tensor::Spares;

const GROUPS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Push { group: usize, priority: Priority },
    Release,
    Advance(u64),
    Take,
    RemoveGone { of: u64, rest: u64 },
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let priority = prop_oneof![
        1 => Just(Priority::High),
        3 => Just(Priority::Normal),
        1 => Just(Priority::Low),
    ];
    let step = prop_oneof![
        300 => (0..GROUPS, priority).prop_map(|(group, priority)| Step::Push { group, priority }),
        60 => Just(Step::Release),
        60 => (0_u64..40).prop_map(Step::Advance),
        100 => Just(Step::Take),
        20 => (1_u64..5, 0_u64..5).prop_map(|(of, rest)| Step::RemoveGone { of, rest }),
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 1..200)
}

fn policies() -> impl Strategy<Value = BatchPolicy> {
    let dispatch = prop_oneof![Just(Dispatch::Tick), Just(Dispatch::Window)];
    (1_usize..8, 1_usize..8, 1_u64..100, dispatch).prop_map(|(one, other, wait, dispatch)| BatchPolicy {
        min_size: one.min(other),
        max_size: one.max(other),
        max_wait: Duration::from_nanos(wait),
        dispatch,
        max_queue: 50,
        ..BatchPolicy::default()
    })
}

/// A request that waits, in the model.
#[derive(Debug, Clone)]
struct Waiting {
    number: u64,
    group: usize,
    priority: Priority,
    arrived: Moment,
    /// True once a tick has ended since it came.
    released: bool,
}

/// The queue, and beside it the list of what it must hold, in the order of arrival.
struct Pair {
    clock: VirtualClock,
    queue: BatchQueue<usize, u64>,
    waiting: Vec<Waiting>,
    spares: Arc<Spares>,
    pushed: u64,
    /// Every request that came out, by whichever way.
    out: Vec<u64>,
    /// What the statistics must say.
    stats: BatchStats,
}

impl Pair {
    fn new(policy: BatchPolicy) -> Self {
        policy.check().unwrap();
        let spares = Spares::new(1 << 12);
        Self {
            clock: VirtualClock::new(),
            queue: BatchQueue::new(policy, Arc::clone(&spares)),
            waiting: Vec::new(),
            spares,
            pushed: 0,
            out: Vec::new(),
            stats: BatchStats::default(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push { group, priority } => self.push(group, priority),
            Step::Release => {
                assert_eq!(self.queue.release(self.clock.now()), !self.waiting.is_empty());
                for waiting in &mut self.waiting {
                    waiting.released = true;
                }
            }
            Step::Advance(nanos) => self.clock.advance(Duration::from_nanos(nanos)),
            Step::Take => self.take(),
            Step::RemoveGone { of, rest } => {
                let removed = self.queue.remove_gone(|number| number % of == rest % of);
                self.removed(&removed, |waiting| waiting.number % of == rest % of);
            }
            Step::Close => self.queue.close(),
        }
        self.agree();
    }

    fn push(&mut self, group: usize, priority: Priority) {
        assert_eq!(self.queue.is_full(), self.waiting.len() >= 50);
        if self.queue.is_full() || self.queue.is_closing() {
            return;
        }
        let (number, arrived) = (self.pushed, self.clock.now());
        let entry = Entry { waiter: number, arrived, deadline: None };
        self.queue.push(&key(group), priority.into(), entry, |rows| write(rows, number));
        self.pushed += 1;
        self.waiting.push(Waiting { number, group, priority, arrived, released: false });
    }

    fn of_group(&self, group: usize) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(move |waiting| waiting.group == group)
    }

    fn verdict(&self, group: usize) -> Option<Verdict> {
        let first = self.of_group(group).next()?;
        let waiting = self.of_group(group).count();
        let pressure = Pressure {
            waiting,
            cap: self.queue.policy().max_size,
            cost: waiting as u64,
            oldest: first.arrived,
            released: first.released,
            closing: self.queue.is_closing(),
            latest_start: None,
            deferrable: false,
        };
        Some(verdict(self.queue.policy(), &pressure, self.clock.now()))
    }

    /// The groups that may be cut, the most urgent first: best priority, then the oldest request of it.
    fn cuttable(&self) -> Vec<(Priority, Moment, usize, Reason)> {
        let order = |group| {
            let Some(Verdict::Cut(reason)) = self.verdict(group) else {
                return None;
            };
            let first = self.of_group(group).min_by_key(|waiting| (waiting.priority, waiting.arrived))?;
            Some((first.priority, first.arrived, group, reason))
        };
        let mut groups: Vec<_> = (0..GROUPS).filter_map(order).collect();
        groups.sort_unstable();
        groups
    }

    fn outlook(&self) -> Outlook {
        let verdicts: Vec<_> = (0..GROUPS).filter_map(|group| self.verdict(group)).collect();
        let held = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::HoldUntil(end) => Some(*end),
            _ => None,
        });
        if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Cut(_))) {
            Outlook::Ready
        } else {
            held.min().map_or(Outlook::Idle, Outlook::Later)
        }
    }

    fn take(&mut self) {
        let cuttable = self.cuttable();
        let outlook = self.queue.outlook(self.clock.now());
        let taken = self.queue.take(self.clock.now());
        assert_eq!(taken.is_some(), outlook == Outlook::Ready);
        let Some(mut batch) = taken else {
            assert_eq!(cuttable, [], "a group may be cut and nothing was taken");
            return;
        };
        let group = batch.group.key;
        assert_eq!(*batch.group, key(group));
        let urgency = |at: usize| (cuttable[at].0, cuttable[at].1);
        let found = cuttable.iter().position(|cut| cut.2 == group);
        let found = found.expect("the group was not to be cut yet");
        assert_eq!(urgency(found), urgency(0), "another group was more urgent");
        self.leaves(&batch, group);
        let others_only = self.of_group(group).next().is_none() && !self.waiting.is_empty();
        let expected = match cuttable[found].3 {
            Reason::Tick if others_only => Reason::Key,
            reason => reason,
        };
        assert_eq!(batch.reason, expected);
        self.queue.begin(&mut batch);
        self.stats.count(batch.entries.len(), batch.reason);
        self.stats.cost += batch.entries.len() as u64;
        self.stats.padded_cost = self.stats.cost;
        self.queue.finish(batch.cut.number, Ran::Unknown);
    }

    /// The batch must hold the first requests of the group, best priority first, each with its own row.
    fn leaves(&mut self, batch: &Batch<usize, u64>, group: usize) {
        let mut line: Vec<_> = self.of_group(group).cloned().collect();
        line.sort_by_key(|waiting| waiting.priority);
        line.truncate(self.queue.policy().max_size);
        let numbers: Vec<_> = batch.entries.iter().map(|entry| entry.waiter).collect();
        let expected: Vec<_> = line.iter().map(|waiting| waiting.number).collect();
        assert_eq!(numbers, expected);
        let arrived = batch.entries.iter().map(|entry| entry.arrived);
        assert!(arrived.eq(line.iter().map(|waiting| waiting.arrived)));
        assert_rows(batch);
        self.waiting.retain(|waiting| !numbers.contains(&waiting.number));
        self.out.extend(numbers);
    }

    fn removed(&mut self, removed: &Removed<u64>, gone: impl Fn(&Waiting) -> bool) {
        let (left, kept): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(gone);
        self.waiting = kept;
        let mut numbers: Vec<_> = removed.entries.iter().map(|entry| entry.waiter).collect();
        let objects: Vec<_> = numbers
            .iter()
            .copied()
            .filter(|number| left.iter().any(|was| was.number == *number && was.group != 0))
            .collect();
        assert_eq!(removed.objects, objects);
        self.out.extend(&numbers);
        numbers.sort_unstable();
        assert!(left.iter().map(|was| was.number).eq(numbers));
        self.stats.abandoned += left.len() as u64;
    }

    fn agree(&mut self) {
        assert_eq!(self.queue.waiting(), self.waiting.len());
        assert_eq!(self.queue.outlook(self.clock.now()), self.outlook());
        self.stats.queued = self.waiting.len();
        self.stats.cap = self.queue.policy().max_size;
        assert_eq!(self.queue.stats(), self.stats);
    }

    /// Closes, takes what is left, and looks whether every request came out once.
    fn finish(mut self) {
        self.step(&Step::Close);
        while !self.waiting.is_empty() {
            self.step(&Step::Take);
        }
        self.step(&Step::Take);
        self.out.sort_unstable();
        assert!(self.out.iter().copied().eq(0..self.pushed));
        let stats = self.queue.stats();
        assert_eq!(stats.requests + stats.abandoned, self.pushed);
        assert_eq!(stats.reasons.iter().sum::<u64>(), stats.batches);
        assert_eq!(Arc::strong_count(&self.spares), 2, "memory is still held");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_queue_agrees_with_a_plain_list_whatever_happens(
        policy in policies(),
        steps in steps(),
    ) {
        let mut pair = Pair::new(policy);
        for step in &steps {
            pair.step(step);
        }
        pair.finish();
    }

    /// A batch that was taken loses those who left since, and nobody else.
    #[test]
    fn removal_from_a_taken_batch_keeps_rows_with_their_entries(
        group in 0..GROUPS,
        size in 1_u64..20,
        gone in any::<u32>(),
    ) {
        let spares = Spares::new(1 << 12);
        let mut queue = BatchQueue::new(super::tick(20), Arc::clone(&spares));
        for number in 0..size {
            let entry = Entry { waiter: number, arrived: Moment::default(), deadline: None };
            queue.push(&key(group), Priority::Normal.into(), entry, |rows| write(rows, number));
        }
        queue.close();
        let mut batch = queue.take(Moment::default()).unwrap();
        let is_gone = |number: &u64| gone & (1 << number) != 0;
        let mut asked = Vec::new();
        let removed = batch.remove_gone(&spares, |number| {
            asked.push(*number);
            is_gone(number)
        });
        assert!(asked.iter().copied().eq(0..size), "each is asked about once: {asked:?}");
        let (left, kept): (Vec<_>, Vec<_>) = (0..size).partition(is_gone);
        assert!(removed.entries.iter().map(|entry| entry.waiter).eq(left.iter().copied()));
        assert!(batch.entries.iter().map(|entry| entry.waiter).eq(kept));
        prop_assert_eq!(removed.objects, if group == 0 { Vec::new() } else { left });
        assert_rows(&batch);
    }
}
