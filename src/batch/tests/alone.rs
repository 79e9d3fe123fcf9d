//! Without batching: a batch holds the rows of one request, by a clock that stands still.

use std::time::Duration;

use super::super::{BatchPolicy, BatchQueue, Budget, Entry, Priority, Reason, Terms};
use super::{assert_rows, key, tick, window, write};
use crate::flow::{Clock, VirtualClock};
use crate::tensor::Spares;

struct Line {
    clock: VirtualClock,
    queue: BatchQueue<usize, u64>,
}

impl Line {
    fn new(policy: BatchPolicy) -> Self {
        let queue = BatchQueue::new(BatchPolicy { alone: true, ..policy }, Spares::new(1 << 16));
        Self { clock: VirtualClock::new(), queue }
    }

    /// Adds a request with a row for each number.
    fn push(&mut self, terms: Terms, numbers: std::ops::Range<u64>) {
        let terms = Terms { request: self.queue.next_request(), ..terms };
        for number in numbers {
            let entry = Entry { waiter: number, arrived: self.clock.now(), deadline: terms.deadline };
            self.queue.push(&key(0), terms, entry, |rows| write(rows, number));
        }
    }

    fn batches(&mut self) -> Vec<Vec<u64>> {
        self.queue.release(self.clock.now());
        let mut batches = Vec::new();
        while let Some(batch) = self.queue.take(self.clock.now()) {
            assert_rows(&batch);
            batches.push(batch.entries.iter().map(|entry| entry.waiter).collect());
        }
        assert_eq!(self.queue.waiting(), 0);
        batches
    }
}

#[test]
fn requests_leave_one_by_one_and_keep_their_rows_together() {
    let mut line = Line::new(tick(10));
    line.push(Terms::default(), 0..1);
    line.push(Terms::default(), 1..4);
    line.push(Terms::default(), 4..6);
    assert_eq!(line.batches(), [vec![0], vec![1, 2, 3], vec![4, 5]]);
}

#[test]
fn nothing_is_held_back_for_company() {
    let policy = BatchPolicy { min_size: 4, preferred: vec![2], ..window(10, Duration::from_hours(1)) };
    let mut line = Line::new(policy);
    line.push(Terms::default(), 0..3);
    assert!(line.queue.take(line.clock.now()).is_none(), "its tick has not ended");
    line.queue.release(line.clock.now());
    let batch = line.queue.take(line.clock.now()).unwrap();
    assert_eq!((batch.entries.len(), batch.reason), (3, Reason::Tick));
}

#[test]
fn a_request_that_is_larger_than_a_batch_takes_several() {
    let mut line = Line::new(tick(4));
    line.push(Terms::default(), 0..6);
    line.push(Terms::default(), 6..8);
    assert_eq!(line.batches(), [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7]]);
}

#[test]
fn who_goes_first_is_as_ever() {
    let mut line = Line::new(tick(10));
    line.push(Priority::Low.into(), 0..2);
    let soon = line.clock.now() + Duration::from_millis(900);
    line.push(Terms { deadline: Some(soon), ..Terms::default() }, 2..4);
    line.push(Priority::High.into(), 4..6);
    let sooner = line.clock.now() + Duration::from_millis(500);
    line.push(Terms { deadline: Some(sooner), ..Terms::default() }, 6..8);
    line.push(Terms::default(), 8..10);
    assert_eq!(line.batches(), [vec![4, 5], vec![6, 7], vec![2, 3], vec![8, 9], vec![0, 1]]);
}

#[test]
fn requests_with_a_cost_stay_within_the_budget() {
    let budget = Some(Budget { max_batch: Some(5), ..Budget::default() });
    let mut line = Line::new(BatchPolicy { budget, ..tick(10) });
    line.push(Terms { cost: 2, ..Terms::default() }, 0..3);
    line.push(Terms { cost: 1, ..Terms::default() }, 3..5);
    assert_eq!(line.batches(), [vec![0, 1], vec![2], vec![3, 4]]);
}

#[test]
fn nobody_joins_a_batch_that_runs() {
    let mut line = Line::new(tick(10));
    line.push(Terms::default(), 0..1);
    line.queue.release(line.clock.now());
    assert!(line.queue.join(&key(0), 5, line.clock.now()).is_none());
}
