//! Requests with terms of their own: random scripts, and the rules one by one.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use smallvec::smallvec;

use super::super::queue::Outlook;
use super::super::select::{Candidate, Rank, Room, Shares, choose, padded_cost};
use super::super::{Batch, BatchPolicy, BatchQueue, Budget, Entry, GroupKey, Priority, Ran, Reason, Terms};
use super::{tick, window};
use crate::error::ErrorKind;
use crate::flow::{Clock, Moment, VirtualClock};
use crate::tensor::{Column, ColumnSpec, DType, Padding, Rows, Spares};

const MILLI: Duration = Duration::from_millis(1);

/// Rows of `length` bytes, all of them the low byte of the request's number.
fn key(length: usize) -> GroupKey<usize> {
    let spec = ColumnSpec::Numbers { dtype: DType::UInt8, shape: smallvec![length] };
    GroupKey { key: 0, specs: smallvec![spec] }
}

fn byte(number: u64) -> u8 {
    number.to_ne_bytes()[0]
}

struct Line {
    clock: VirtualClock,
    queue: BatchQueue<usize, u64>,
    pushed: u64,
}

impl Line {
    fn new(policy: BatchPolicy) -> Self {
        Self::with(policy, 1)
    }

    fn with(policy: BatchPolicy, workers: usize) -> Self {
        policy.check().unwrap();
        let queue = BatchQueue::with_workers(policy, workers, Spares::new(1 << 16));
        Self { clock: VirtualClock::new(), queue, pushed: 0 }
    }

    /// Terms with a deadline in so many milliseconds.
    fn by(&self, milliseconds: u32) -> Terms {
        Terms { deadline: Some(self.clock.now() + MILLI * milliseconds), ..Terms::default() }
    }

    fn push(&mut self, length: usize, terms: Terms) -> u64 {
        let number = self.pushed;
        self.pushed += 1;
        let entry = Entry { waiter: number, arrived: self.clock.now(), deadline: terms.deadline };
        self.queue.push(&key(length), terms, entry, |rows: &mut Rows| {
            if let [Column::Numbers { memory, .. }] = rows.columns_mut() {
                memory.extend(&vec![byte(number); length]);
            }
        });
        number
    }

    fn release(&mut self) {
        self.queue.release(self.clock.now());
    }

    fn take(&mut self) -> Option<Batch<usize, u64>> {
        let mut batch = self.queue.take(self.clock.now())?;
        self.queue.begin(&mut batch);
        Some(batch)
    }

    fn numbers(&mut self) -> Vec<u64> {
        let batch = self.take();
        batch.map_or_else(Vec::new, |batch| batch.entries.iter().map(|entry| entry.waiter).collect())
    }

    /// Teaches the queue that a batch of one takes so long.
    fn teach(&mut self, took: Duration) {
        for _ in 0..8 {
            self.push(1, Terms::default());
            self.release();
            let batch = self.take().unwrap();
            self.queue.finish(batch.cut.number, Ran::Whole(took));
        }
        self.pushed = 0;
    }
}

fn budget(max_batch: u64) -> BatchPolicy {
    BatchPolicy { budget: Some(Budget { max_batch: Some(max_batch), ..Budget::default() }), ..tick(100) }
}

fn padded(max_batch: u64, multiple: usize) -> BatchPolicy {
    let padding = Padding { multiple, value_bits: 9_f64.to_bits(), columns: u64::MAX };
    let budget = Budget { max_batch: Some(max_batch), padding: Some(padding), ..Budget::default() };
    BatchPolicy { budget: Some(budget), ..tick(100) }
}

fn costs(cost: u32) -> Terms {
    Terms { cost, ..Terms::default() }
}

#[test]
fn the_earliest_deadline_goes_first_and_those_without_one_when_they_have_aged() {
    let mut line = Line::new(BatchPolicy { aging: MILLI * 50, ..tick(2) });
    let none = line.push(4, Terms::default());
    let terms = line.by(90);
    let late = line.push(4, terms);
    let terms = line.by(10);
    let soon = line.push(4, terms);
    let terms = Terms { priority: Priority::Low, ..line.by(5) };
    let low = line.push(4, terms);
    line.release();
    assert_eq!(line.numbers(), [none, soon], "the one without a deadline is due in 50 ms");
    assert_eq!(line.numbers(), [late, low]);
}

#[test]
fn a_low_priority_that_has_waited_counts_as_a_higher_one() {
    let mut line = Line::new(BatchPolicy { aging: MILLI * 10, ..tick(1) });
    let low = line.push(4, Priority::Low.into());
    line.clock.advance(MILLI * 20);
    let high = line.push(4, Priority::High.into());
    line.release();
    assert_eq!(line.numbers(), [low]);
    assert_eq!(line.numbers(), [high]);
}

#[test]
fn tenants_get_their_shares_while_they_compete_and_nothing_for_having_been_away() {
    let weights = vec![("large".to_owned(), 3.0), ("small".to_owned(), 1.0)];
    let mut line = Line::new(BatchPolicy { weights, ..tick(8) });
    let (large, small) = (line.queue.tenant("large"), line.queue.tenant("small"));
    let stranger = line.queue.tenant("stranger");
    assert_eq!(stranger, line.queue.tenant("stranger"));
    for _ in 0..40 {
        line.push(4, Terms { tenant: small, ..Terms::default() });
    }
    line.release();
    for _ in 0..2 {
        line.take();
    }
    let mut of_large = Vec::new();
    for _ in 0..40 {
        of_large.push(line.push(4, Terms { tenant: large, ..Terms::default() }));
    }
    line.release();
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(line.numbers());
    }
    let share = taken.iter().filter(|number| of_large.contains(number)).count();
    assert!((17..=19).contains(&share), "3 of 4 from the moment it is there: {taken:?}");
    assert!(taken.iter().filter(|number| of_large.contains(number)).is_sorted(), "{taken:?}");
}

#[test]
fn short_requests_fill_up_what_long_ones_leave() {
    let mut line = Line::new(budget(10));
    let all = [6, 7, 3, 2, 1].map(|cost| line.push(1, costs(cost)));
    line.release();
    let batch = line.take().unwrap();
    let numbers: Vec<_> = batch.entries.iter().map(|entry| entry.waiter).collect();
    assert_eq!(numbers, [all[0], all[2], all[4]]);
    assert_eq!((batch.reason, batch.cut.cost, batch.cut.padded_cost), (Reason::Budget, 10, 10));
    let rest = line.take().unwrap();
    assert_eq!(rest.cut.cost, 9);
    assert_eq!(rest.reason, Reason::Tick);
}

#[test]
fn a_request_that_never_fits_is_refused_and_a_full_budget_says_so() {
    let mut policy = budget(10);
    policy.budget = policy.budget.map(|budget| Budget { max_queue: Some(12), ..budget });
    let mut line = Line::new(policy);
    let check = |line: &Line, requests, cost| {
        line.queue
            .check_room(requests, &key(1), &costs(cost))
            .map_err(|error| (error.kind(), error.message().to_owned()))
    };
    assert_eq!(check(&line, 1, 10), Ok(()));
    let (kind, message) = check(&line, 1, 11).unwrap_err();
    assert!(kind == ErrorKind::Item && message.contains("max_batch_cost=10"), "{message}");
    let (kind, message) = check(&line, 2, 7).unwrap_err();
    assert!(kind == ErrorKind::Item && message.contains("max_queue_cost=12"), "{message}");
    line.push(1, costs(8));
    let (kind, message) = check(&line, 1, 5).unwrap_err();
    assert!(kind == ErrorKind::Overloaded && message.contains("max_queue_cost=12"), "{message}");
}

#[test]
fn rows_of_different_lengths_share_a_batch_filled_up() {
    let mut line = Line::new(padded(64, 4));
    for length in [3, 5, 6] {
        line.push(length, Terms::default());
    }
    line.release();
    let batch = line.take().unwrap();
    assert_eq!(batch.cut.lengths, [3, 5, 6]);
    assert_eq!((batch.cut.cost, batch.cut.padded_cost), (14, 24));
    let [Column::Numbers { memory, shape, .. }] = batch.rows.columns() else { panic!() };
    assert_eq!(shape.as_slice(), [8]);
    assert_eq!(memory.as_slice()[..8], [0, 0, 0, 9, 9, 9, 9, 9]);
    assert_eq!(memory.as_slice()[16..], [2, 2, 2, 2, 2, 2, 9, 9]);
    let mut batch = batch;
    let left = batch.remove_gone(&Spares::new(0), |number| *number == 1);
    assert_eq!((left.entries.len(), batch.cut.lengths.as_slice()), (1, &[3, 6][..]));
    assert_eq!((batch.cut.cost, batch.cut.padded_cost), (9, 16));
}

#[test]
fn company_of_like_length_is_looked_for_ahead() {
    let mut line = Line::new(padded(1000, 1));
    for _ in 0..50 {
        line.push(10, Terms::default());
        line.push(100, Terms::default());
    }
    line.release();
    while let Some(batch) = line.take() {
        let useful = f64::from(u32::try_from(batch.cut.cost).unwrap());
        let all = f64::from(u32::try_from(batch.cut.padded_cost).unwrap());
        assert!(useful / all > 0.9, "{:?}", batch.cut);
        assert!(batch.cut.padded_cost <= 1000);
    }
    assert_eq!(line.queue.waiting(), 0);
}

#[test]
fn those_of_a_rare_length_are_not_passed_over_for_ever() {
    let mut line = Line::new(BatchPolicy { max_size: 8, ..padded(1 << 20, 1) });
    for length in (0..40).map(|number| 1 + number * 7 % 20) {
        line.push(length, Terms::default());
    }
    let rare = line.push(1, Terms::default());
    let mut left = 0;
    loop {
        line.release();
        let batch = line.numbers();
        if batch.contains(&rare) {
            break;
        }
        left += batch.len();
        for number in batch {
            line.push(100 + usize::try_from(number).unwrap() * 11 % 20, Terms::default());
        }
    }
    // One of the forty ahead of it in each batch of eight would be 320.
    assert!(left <= 200, "{left} left before it");
}

#[test]
fn preferred_sizes_are_cut_where_enough_waits() {
    let mut line = Line::new(BatchPolicy { preferred: vec![4, 8], ..tick(10) });
    for _ in 0..13 {
        line.push(1, Terms::default());
    }
    line.release();
    assert_eq!([line.numbers().len(), line.numbers().len(), line.numbers().len()], [8, 4, 1]);
}

#[test]
fn expired_requests_never_reach_the_model() {
    let mut line = Line::new(window(10, MILLI * 50));
    let terms = line.by(5);
    let late = line.push(1, terms);
    let terms = line.by(500);
    let kept = line.push(1, terms);
    assert_eq!(line.queue.outlook(line.clock.now()), Outlook::Later(Moment::from_nanos(5_000_000)));
    line.clock.advance(MILLI * 5);
    assert_eq!(line.queue.outlook(line.clock.now()), Outlook::Ready);
    let expired = line.queue.expire(line.clock.now());
    assert_eq!(expired.entries.iter().map(|entry| entry.waiter).collect::<Vec<_>>(), [late]);
    assert_eq!((line.take().is_none(), line.queue.stats().expired), (true, 1));
    line.clock.advance(MILLI * 45);
    assert_eq!(line.numbers(), [kept]);
}

#[test]
fn a_hopeless_request_is_refused_with_the_time_after_which_it_would_be_accepted() {
    let mut line = Line::new(tick(1));
    line.teach(MILLI * 10);
    let soon = line.by(25);
    line.queue.check_deadline(&key(1), &soon, line.clock.now()).unwrap();
    for _ in 0..4 {
        line.push(1, Terms::default());
    }
    line.queue
        .check_deadline(&key(1), &soon, line.clock.now())
        .expect("it goes before those without a deadline");
    for _ in 0..4 {
        let terms = line.by(20);
        line.push(1, terms);
    }
    let error = line.queue.check_deadline(&key(1), &soon, line.clock.now()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    let wait = error.wait_before_retry().unwrap();
    assert!(wait >= MILLI * 20 && wait <= MILLI * 40, "{wait:?}");
    let urgent = Terms { priority: Priority::High, ..soon };
    line.queue.check_deadline(&key(1), &urgent, line.clock.now()).unwrap();
}

#[test]
fn an_idle_worker_refuses_nobody_and_so_learns_that_the_function_is_fast_again() {
    let mut line = Line::new(tick(1));
    line.teach(MILLI * 500);
    for _ in 0..400 {
        let soon = line.by(20);
        line.queue.check_deadline(&key(1), &soon, line.clock.now()).unwrap();
        line.push(1, soon);
        line.release();
        let batch = line.take().unwrap();
        let refused = line.queue.check_deadline(&key(1), &line.by(0), line.clock.now());
        assert!(refused.is_err(), "it is busy");
        line.queue.finish(batch.cut.number, Ran::Whole(MILLI));
    }
    let busy = line.by(20);
    line.push(1, busy);
    line.queue.check_deadline(&key(1), &line.by(20), line.clock.now()).expect("it is fast again");
}

#[test]
fn a_batch_is_made_smaller_where_a_larger_one_would_be_late() {
    let mut line = Line::new(tick(100));
    for rows in [1_u32, 10, 20, 40, 5, 30, 2, 60] {
        for _ in 0..rows {
            line.push(1, Terms::default());
        }
        line.release();
        let batch = line.take().unwrap();
        line.queue.finish(batch.cut.number, Ran::Whole(MILLI * rows));
    }
    for _ in 0..50 {
        let terms = line.by(20);
        line.push(1, terms);
    }
    line.release();
    let batch = line.take().unwrap();
    assert_eq!(batch.reason, Reason::Deadline);
    assert!((10..=20).contains(&batch.entries.len()), "{}", batch.entries.len());
    assert!(batch.cut.predicted.unwrap() <= MILLI * 20);
}

#[test]
fn the_last_free_worker_waits_for_company_only_where_half_a_batch_waits() {
    let mut line = Line::with(tick(8), 2);
    line.teach(MILLI);
    let busy = line.push(1, Terms::default());
    line.release();
    assert_eq!(line.numbers(), [busy]);
    for few in [1, 3] {
        for _ in 0..few {
            let terms = line.by(500);
            line.push(1, terms);
        }
        line.release();
        assert_eq!(line.numbers().len(), few, "few waited: they go at once");
        line.queue.finish(line.queue.stats().batches, Ran::Unknown);
    }
    for _ in 0..4 {
        let terms = line.by(500);
        line.push(1, terms);
    }
    line.release();
    let hold = line.clock.now() + MILLI * 50;
    assert_eq!(line.queue.outlook(line.clock.now()), Outlook::Later(hold));
    line.push(1, Terms::default());
    line.release();
    assert_eq!(line.queue.outlook(line.clock.now()), Outlook::Ready, "one of them names no deadline");
}

#[test]
fn a_batch_that_runs_is_joined_whether_it_is_time_or_not() {
    let mut line = Line::new(tick(10));
    let numbers: Vec<_> = (0..5).map(|_| line.push(1, Terms::default())).collect();
    let joined = line.queue.join(&key(1), 3, line.clock.now()).unwrap();
    assert!(joined.entries.iter().map(|entry| entry.waiter).eq(numbers[..3].iter().copied()));
    assert!(line.queue.join(&key(2), 3, line.clock.now()).is_none());
    assert!(line.queue.join(&key(1), 0, line.clock.now()).is_none());
    line.queue.count_joined(&joined);
    assert_eq!((line.queue.stats().joined, line.queue.stats().requests), (3, 3));
    assert_eq!(line.queue.waiting(), 2);
}

#[test]
fn memory_that_runs_out_makes_batches_smaller() {
    let mut line = Line::new(tick(64));
    for _ in 0..64 {
        line.push(1, Terms::default());
    }
    let batch = line.take().unwrap();
    assert_eq!(batch.entries.len(), 64);
    line.queue.finish(batch.cut.number, Ran::OutOfMemory(64));
    for _ in 0..64 {
        line.push(1, Terms::default());
    }
    let batch = line.take().unwrap();
    assert_eq!((batch.entries.len(), batch.cut.cap), (32, 32));
    assert_eq!((line.queue.stats().out_of_memory, line.queue.stats().cap), (1, 32));
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0_u8..3, 0_u64..50, 0_u64..50, 0_u32..3, 1_u32..40, any::<bool>());
    proptest::collection::vec(one, 1..60).prop_map(|all| {
        let mut candidates: Vec<_> = all
            .into_iter()
            .enumerate()
            .map(|(at, (level, due, arrived, tenant, cost, late))| {
                let rank = Rank {
                    level,
                    share: 0.0,
                    due: Moment::from_nanos(due),
                    arrived: Moment::from_nanos(arrived),
                };
                Candidate { at, rank, tenant, cost, late }
            })
            .collect();
        candidates.sort_by(|one, other| one.rank.order(&other.rank));
        candidates
    })
}

/// A request as the scripts know it: its class (priority, tenant, length) and its number.
type Class = (u8, u32, usize);

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nobody twice, the first always, never more rows or cost than there is room for; and where lengths decide, those
    /// of the first who are late, up to a quarter.
    #[test]
    fn a_choice_keeps_to_its_room(
        candidates in candidates(),
        rows in 1_usize..30,
        cost in proptest::option::of(1_u64..400),
        padded in proptest::option::of(1_u64..9),
        overhead in proptest::option::of(0.0_f64..500.0),
    ) {
        let choice = choose(&candidates, &Room { rows, cost, padded, overhead });
        prop_assert!(choice.picked.contains(&0));
        prop_assert!(choice.picked.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", choice.picked);
        prop_assert!(choice.picked.len() <= rows && *choice.picked.last().unwrap() < candidates.len());
        let late = 1 + candidates.iter().skip(1).take_while(|candidate| candidate.late).count();
        let front = late.min(rows.min(candidates.len()).div_ceil(4));
        let lengths_alone = padded.is_some() && cost.is_none();
        prop_assert!(!lengths_alone || choice.picked.iter().copied().take(front).eq(0..front));
        let costs = choice.picked.iter().map(|at| candidates[*at].cost);
        let spent = padded_cost(costs, padded);
        prop_assert!(choice.picked.len() == 1 || cost.is_none_or(|cost| spent <= cost), "{spent} of {cost:?}");
    }

    /// Shares are as the weights say, whatever the costs, as long as everyone has something waiting.
    #[test]
    fn shares_follow_the_weights(weights in proptest::collection::vec(0.5_f64..8.0, 2..5), cost in 1_u32..9) {
        let mut shares = Shares::new(weights.iter().copied());
        let rank = Rank { level: 0, share: 0.0, due: Moment::default(), arrived: Moment::default() };
        let mut waiting: Vec<Candidate> = (1_u32..)
            .take(weights.len())
            .map(|tenant| Candidate { at: 0, rank, tenant, cost, late: false })
            .collect();
        for candidate in &mut waiting {
            candidate.rank.share = shares.turn(candidate.tenant, cost);
        }
        let mut served = vec![0.0; weights.len()];
        for _ in 0..4_000 {
            let first = waiting.iter_mut().min_by(|one, other| one.rank.order(&other.rank)).unwrap();
            shares.serve(first);
            served[first.tenant as usize - 1] += 1.0;
            first.rank.share = shares.turn(first.tenant, cost);
        }
        let total: f64 = weights.iter().sum();
        for (weight, served) in weights.iter().zip(served) {
            let (expected, found) = (weight / total, served / 4_000.0);
            prop_assert!((expected - found).abs() < 0.01, "{expected} {found}");
        }
    }

    /// Whatever comes, leaves or expires: nobody is lost or doubled, budgets hold, rows stay with their requests, and
    /// within a class of equals those who came first go first.
    #[test]
    fn nobody_is_lost_and_equals_keep_their_order(
        padding in any::<bool>(),
        shares in any::<bool>(),
        max_size in 1_usize..12,
        steps in proptest::collection::vec((0_u8..10, 0_u8..3, 0_u32..3, 1_usize..9, 0_u64..30), 1..160),
    ) {
        let mut policy = if padding { padded(40, 2) } else { budget(40) };
        policy.max_size = max_size;
        policy.aging = MILLI * 20;
        if shares {
            policy.weights = vec![("a".to_owned(), 2.0), ("b".to_owned(), 1.0)];
        }
        let mut line = Line::new(policy);
        let tenants = [Terms::default().tenant, line.queue.tenant("a"), line.queue.tenant("b")];
        let mut waiting: HashMap<u64, (Class, bool)> = HashMap::new();
        let mut out = 0_u64;
        for (what, priority, tenant, length, time) in steps {
            match what {
                0..=5 => {
                    let dated = time % 3 == 0;
                    let own = line.by(u32::try_from(time).unwrap());
                    let terms = Terms {
                        priority: Priority::ALL[usize::from(priority)],
                        tenant: tenants[tenant as usize],
                        deadline: own.deadline.filter(|_| dated),
                        cost: u32::try_from(length).unwrap(),
                        ..Terms::default()
                    };
                    let number = line.push(if padding { length } else { 4 }, terms);
                    waiting.insert(number, ((priority, tenant, length), dated));
                }
                6 => line.release(),
                7 => line.clock.advance(MILLI * u32::try_from(time).unwrap()),
                8 => {
                    let left = line.queue.remove_gone(|number| number % 7 == time % 7);
                    for entry in left.entries {
                        waiting.remove(&entry.waiter).unwrap();
                        out += 1;
                    }
                }
                _ => {
                    for entry in line.queue.expire(line.clock.now()).entries {
                        prop_assert!(waiting.remove(&entry.waiter).unwrap().1, "it had no deadline");
                        out += 1;
                    }
                    let Some(batch) = line.take() else { continue };
                    out += leaves(&mut waiting, &batch, max_size);
                }
            }
            prop_assert_eq!(line.queue.waiting(), waiting.len());
        }
        line.queue.close();
        while let Some(batch) = line.take() {
            out += leaves(&mut waiting, &batch, max_size);
        }
        prop_assert_eq!((waiting.len(), out), (0, line.pushed));
    }
}

/// Checks a batch against those who wait, and takes its requests from them.
fn leaves(waiting: &mut HashMap<u64, (Class, bool)>, batch: &Batch<usize, u64>, max_size: usize) -> u64 {
    let cut = &batch.cut;
    assert!(batch.entries.len() <= max_size);
    assert!(batch.entries.len() == 1 || cut.padded_cost <= 40, "{cut:?}");
    let [Column::Numbers { memory, row_bytes, .. }] = batch.rows.columns() else { panic!() };
    let mut cost = 0;
    for (row, entry) in batch.entries.iter().enumerate() {
        let ((priority, tenant, length), dated) = waiting.remove(&entry.waiter).expect("nobody is doubled");
        cost += length as u64;
        let bytes = &memory.as_slice()[row * row_bytes..(row + 1) * row_bytes];
        let own = if cut.lengths.is_empty() { *row_bytes } else { length };
        assert!(bytes[..own].iter().all(|found| *found == byte(entry.waiter)));
        assert!(bytes[own..].iter().all(|found| *found == 9), "filled up with the value of the policy");
        let class = (priority, tenant, length);
        let overtaken = waiting.iter().find(|(number, (other, other_dated))| {
            **number < entry.waiter && *other == class && !other_dated && !dated
        });
        assert_eq!(overtaken, None, "{entry:?} overtook an equal");
    }
    assert_eq!(cost, cut.cost);
    batch.entries.len() as u64
}
