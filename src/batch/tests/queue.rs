//! The queue's rules one by one, by a clock that stands still.

use std::sync::Arc;
use std::time::Duration;

use super::super::queue::Outlook;
use super::super::{BatchPolicy, BatchQueue, Entry, Priority, Reason};
use super::{assert_rows, key, tick, window, write};
use crate::flow::{Clock, Moment, VirtualClock};
use crate::tensor::Spares;

const NANO: Duration = Duration::from_nanos(1);

struct Line {
    clock: VirtualClock,
    queue: BatchQueue<usize, u64>,
}

impl Line {
    fn new(policy: BatchPolicy) -> Self {
        Self { clock: VirtualClock::new(), queue: BatchQueue::new(policy, Spares::new(1 << 16)) }
    }

    /// Adds a request; answers whether a worker should look.
    fn push(&mut self, group: usize, priority: Priority, number: u64) -> bool {
        let entry = Entry { waiter: number, arrived: self.clock.now(), deadline: None };
        self.queue.push(&key(group), priority.into(), entry, |rows| {
            write(rows, number);
        })
    }

    fn push_all(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.push(0, Priority::Normal, number);
        }
    }

    fn release(&mut self) -> bool {
        self.queue.release(self.clock.now())
    }

    fn outlook(&self) -> Outlook {
        self.queue.outlook(self.clock.now())
    }

    /// The requests of the next batch and why it was cut; none where nothing may be cut.
    fn take(&mut self) -> Option<(Vec<u64>, Reason)> {
        let batch = self.queue.take(self.clock.now())?;
        assert_rows(&batch);
        let numbers = batch.entries.iter().map(|entry| entry.waiter);
        Some((numbers.collect(), batch.reason))
    }
}

#[test]
fn under_tick_dispatch_nothing_leaves_before_the_tick_ends() {
    let mut line = Line::new(tick(10));
    line.push_all(0..3);
    line.clock.advance(Duration::from_hours(1));
    assert_eq!((line.outlook(), line.take()), (Outlook::Idle, None));
    assert!(line.release());
    assert_eq!(line.outlook(), Outlook::Ready);
    line.push_all([3]);
    let taken = line.take();
    assert_eq!(taken, Some((vec![0, 1, 2, 3], Reason::Tick)));
    assert!(!line.release(), "nothing waits");
}

#[test]
fn the_end_of_a_tick_counts_for_those_who_had_come_by_then() {
    let mut line = Line::new(tick(10));
    line.push_all([0]);
    line.release();
    assert!(line.take().is_some());
    line.push_all([1]);
    assert_eq!((line.outlook(), line.take()), (Outlook::Idle, None));
    line.release();
    assert_eq!(line.take(), Some((vec![1], Reason::Tick)));
}

#[test]
fn what_a_full_batch_leaves_behind_waits_for_the_end_of_its_own_tick() {
    let mut line = Line::new(tick(4));
    line.push_all(0..2);
    line.release();
    line.push_all(2..7);
    assert_eq!(line.take(), Some((vec![0, 1, 2, 3], Reason::Full)));
    assert_eq!((line.outlook(), line.take()), (Outlook::Idle, None));
    line.release();
    assert_eq!(line.take(), Some((vec![4, 5, 6], Reason::Tick)));
}

#[test]
fn a_removal_leaves_those_who_came_in_this_tick_to_its_end() {
    let mut line = Line::new(tick(4));
    line.push_all([0]);
    line.release();
    line.push_all([1]);
    let removed = line.queue.remove_gone(|number| *number == 0);
    assert_eq!(removed.entries.len(), 1);
    assert_eq!((line.outlook(), line.take()), (Outlook::Idle, None));
    line.release();
    assert_eq!(line.take(), Some((vec![1], Reason::Tick)));
}

#[test]
fn a_window_ends_to_the_nanosecond() {
    let wait = Duration::from_millis(50);
    let mut line = Line::new(window(10, wait));
    line.clock.advance(Duration::from_nanos(7));
    let end = line.clock.now() + wait;
    line.push_all([0]);
    line.clock.advance(wait / 2);
    line.push_all([1]);
    assert_eq!(line.outlook(), Outlook::Later(end));
    line.clock.advance((wait / 2).saturating_sub(NANO));
    assert_eq!((line.outlook(), line.take()), (Outlook::Later(end), None));
    line.clock.advance(NANO);
    assert_eq!(line.clock.now(), end);
    assert_eq!(line.outlook(), Outlook::Ready);
    assert_eq!(line.take(), Some((vec![0, 1], Reason::Window)));
}

#[test]
fn a_window_starts_anew_with_the_first_request_that_is_left() {
    let wait = Duration::from_millis(10);
    let mut line = Line::new(window(2, wait));
    line.push_all([0]);
    line.clock.advance(NANO * 5);
    line.push_all([1]);
    line.clock.advance(NANO * 5);
    line.push_all([2]);
    let third = line.clock.now();
    assert_eq!(line.take(), Some((vec![0, 1], Reason::Full)));
    assert_eq!(line.outlook(), Outlook::Later(third + wait));
    line.push(1, Priority::Normal, 3);
    line.queue.remove_gone(|number| *number == 2);
    assert_eq!(line.outlook(), Outlook::Later(line.clock.now() + wait));
    line.queue.remove_gone(|_| true);
    assert_eq!(line.outlook(), Outlook::Idle);
}

#[test]
fn the_end_of_a_tick_means_nothing_under_window_dispatch() {
    let mut line = Line::new(window(10, Duration::from_millis(1)));
    line.push_all([0]);
    line.release();
    assert_eq!(line.take(), None);
    line.clock.advance(Duration::from_millis(1));
    assert_eq!(line.take(), Some((vec![0], Reason::Window)));
}

#[test]
fn too_few_requests_wait_for_more_but_no_longer_than_the_window() {
    let wait = Duration::from_millis(50);
    let policy = BatchPolicy { min_size: 3, ..tick(10) };
    let mut line = Line::new(policy);
    line.push_all([0]);
    assert_eq!(line.outlook(), Outlook::Idle, "the tick has not ended");
    line.release();
    assert_eq!(line.outlook(), Outlook::Later(Moment::default() + wait));
    line.push_all([1, 2]);
    assert_eq!(line.take(), Some((vec![0, 1, 2], Reason::Tick)));
    line.push_all([3]);
    line.release();
    line.clock.advance(wait);
    assert_eq!(line.take(), Some((vec![3], Reason::Window)));
}

#[test]
fn higher_priorities_are_put_into_a_batch_first_and_each_keeps_its_order() {
    let mut line = Line::new(tick(4));
    for (number, priority) in [
        (0, Priority::Low),
        (1, Priority::Normal),
        (2, Priority::High),
        (3, Priority::Normal),
        (4, Priority::High),
        (5, Priority::Low),
    ] {
        line.push(2, priority, number);
    }
    line.release();
    assert_eq!(line.take(), Some((vec![2, 4, 1, 3], Reason::Full)));
    line.push(2, Priority::High, 6);
    assert_eq!(line.take(), Some((vec![6, 0, 5], Reason::Tick)));
}

#[test]
fn the_group_with_the_best_priority_goes_first_then_the_one_that_waited_longest() {
    let mut line = Line::new(tick(10));
    line.push(0, Priority::Normal, 0);
    line.clock.advance(NANO);
    line.push(1, Priority::Normal, 1);
    line.clock.advance(NANO);
    line.push(2, Priority::High, 2);
    line.release();
    assert_eq!(line.take(), Some((vec![2], Reason::Key)));
    assert_eq!(line.take(), Some((vec![0], Reason::Key)));
    assert_eq!(line.take(), Some((vec![1], Reason::Tick)));
    assert_eq!(line.take(), None);
}

#[test]
fn a_worker_is_called_for_a_full_batch_a_new_window_or_while_closing() {
    let mut line = Line::new(tick(3));
    let called: Vec<_> = (0..7).map(|number| line.push(0, Priority::Normal, number)).collect();
    assert_eq!(called, [false, false, true, false, false, true, false]);
    let mut line = Line::new(window(3, NANO));
    assert!(line.push(0, Priority::Normal, 0));
    assert!(!line.push(0, Priority::Normal, 1));
    assert!(line.push(1, Priority::Normal, 2), "another group's window");
    line.queue.close();
    assert!(line.push(0, Priority::Normal, 3));
}

#[test]
fn closing_hands_out_what_waits_in_batches_of_the_usual_size() {
    let mut line = Line::new(tick(2));
    line.push_all(0..5);
    line.queue.close();
    assert!(line.queue.is_closing());
    assert_eq!(line.take(), Some((vec![0, 1], Reason::Full)));
    assert_eq!(line.take(), Some((vec![2, 3], Reason::Full)));
    assert_eq!(line.take(), Some((vec![4], Reason::Drain)));
    assert_eq!((line.outlook(), line.take()), (Outlook::Idle, None));
}

#[test]
fn a_batch_that_leaves_whole_is_handed_over_uncopied() {
    let spares = Spares::new(1 << 16);
    let mut queue = BatchQueue::new(tick(2), Arc::clone(&spares));
    let mut address = std::ptr::null();
    for number in 0..2 {
        let entry = Entry { waiter: number, arrived: Moment::default(), deadline: None };
        queue.push(&key(0), Priority::Normal.into(), entry, |rows| {
            write(rows, number);
            address = bytes(rows).as_ptr();
        });
    }
    let batch = queue.take(Moment::default()).unwrap();
    assert_eq!(bytes(&batch.rows).as_ptr(), address);
    assert_eq!(address as usize % 64, 0);
}

fn bytes(rows: &crate::tensor::Rows) -> &[u8] {
    match rows.columns() {
        [crate::tensor::Column::Numbers { memory, .. }] => memory.as_slice(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn groups_come_and_go_without_end() {
    let mut line = Line::new(tick(10));
    line.push(1_000_000, Priority::Normal, 1);
    for number in 0..1_000_u64 {
        let group = usize::try_from(number).unwrap();
        line.push(group, Priority::Normal, number);
        line.release();
        line.take().unwrap();
    }
    assert_eq!(line.queue.waiting(), 1);
    line.push(1_000_000, Priority::Normal, 2);
    line.release();
    while line.queue.waiting() > 0 {
        line.take().unwrap();
    }
}

#[test]
fn refusals_and_leavers_are_counted() {
    let mut line = Line::new(tick(10));
    line.push_all(0..4);
    line.queue.count_rejected();
    line.queue.remove_gone(|number| *number < 2);
    line.queue.count_abandoned(1);
    let stats = line.queue.stats();
    assert_eq!((stats.rejected, stats.abandoned, stats.queued), (1, 3, 2));
}

#[test]
fn what_a_full_batch_leaves_behind_waits_for_a_worker_and_not_for_company() {
    let mut line = Line::new(tick(2));
    line.push_all(0..3);
    line.release();
    let ready = line.clock.now();
    line.clock.advance(Duration::from_millis(5));
    assert_eq!(line.queue.take(line.clock.now()).unwrap().cut.ready, ready);
    line.clock.advance(Duration::from_millis(5));
    let cut = line.queue.take(line.clock.now()).unwrap().cut;
    assert_eq!((cut.ready, cut.taken.since(cut.ready)), (ready, Duration::from_millis(10)));
}
