//! Who gets into the queue: bounds, requests of several rows, and the room that those who left make.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Attendance, BatchPolicy, Batcher, Priority, Ran, Removed, Turn};
use super::{Crowd, assert_rows, joined, key, tick, window, write};
use crate::error::{ErrorKind, Result};

/// Longer than the pause between two searches for those who left.
const BETWEEN_SEARCHES: Duration = Duration::from_millis(15);

type Line = Batcher<usize, u64>;

fn bounded(max_queue: usize) -> Line {
    Batcher::new(BatchPolicy { max_queue, ..tick(100) }).unwrap()
}

fn submit(line: &Line, number: u64, crowd: &mut Crowd) -> Result<()> {
    let row = |rows: &mut _| write(rows, number);
    line.submit(&key(2), Priority::Normal.into(), number, row, crowd)
}

fn submit_all(line: &Line, numbers: &[u64], crowd: &mut Crowd) -> Result<()> {
    let row = |rows: &mut _, row: usize| write(rows, numbers[row]);
    line.submit_all(&key(2), Priority::Normal.into(), numbers.to_vec(), row, crowd)
}

/// Everything that waits, in the order that it leaves.
fn drain(line: &Line, crowd: &mut Crowd) -> Vec<u64> {
    line.close(true);
    let mut numbers = Vec::new();
    while line.wait() == Turn::Work {
        if let Some(batch) = line.take(crowd) {
            assert_rows(&batch);
            numbers.extend(batch.entries.iter().map(|entry| entry.waiter));
            line.finish(batch.cut.number, Ran::Unknown);
        }
    }
    numbers
}

#[test]
fn a_policy_that_contradicts_itself_opens_no_batcher() {
    let refused = Line::new(window(0, Duration::ZERO)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Config);
}

#[test]
fn one_request_too_many_is_refused_by_name_and_counted() {
    let (line, mut crowd) = (bounded(2), Crowd::default());
    submit(&line, 0, &mut crowd).unwrap();
    submit(&line, 1, &mut crowd).unwrap();
    let error = submit(&line, 2, &mut crowd).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.message().contains("max_queue=2"), "{error}");
    assert_eq!((line.stats().rejected, line.stats().queued), (1, 2));
    assert_eq!(drain(&line, &mut crowd), [0, 1]);
    assert!(crowd.forgotten().is_empty());
}

#[test]
fn those_who_left_make_room_in_a_full_queue() {
    let (line, mut crowd) = (bounded(3), Crowd::default());
    submit_all(&line, &[0, 1, 2], &mut crowd).unwrap();
    crowd.leave([1]);
    submit(&line, 3, &mut crowd).unwrap();
    assert_eq!(crowd.forgotten(), [1]);
    assert_eq!((line.stats().abandoned, line.stats().queued), (1, 3));
    assert_eq!(drain(&line, &mut crowd), [0, 2, 3]);
}

#[test]
fn those_who_left_make_room_for_a_request_of_several_rows() {
    let (line, mut crowd) = (bounded(4), Crowd::default());
    submit_all(&line, &[0, 1, 2, 3], &mut crowd).unwrap();
    crowd.leave([0, 2]);
    submit_all(&line, &[4, 5], &mut crowd).unwrap();
    assert_eq!(crowd.forgotten(), [0, 2]);
    assert_eq!(drain(&line, &mut crowd), [1, 3, 4, 5]);
}

#[test]
fn room_that_is_not_enough_lets_no_row_in_and_still_forgets_those_who_left() {
    let (line, mut crowd) = (bounded(4), Crowd::default());
    submit_all(&line, &[0, 1, 2, 3], &mut crowd).unwrap();
    crowd.leave([3]);
    let error = submit_all(&line, &[4, 5], &mut crowd).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(crowd.forgotten(), [3]);
    assert_eq!((line.stats().rejected, line.stats().queued), (1, 3));
    assert_eq!(drain(&line, &mut crowd), [0, 1, 2]);
}

/// The search for those who left must go by the clock also where every request is refused and no tick ends.
#[test]
fn those_who_leave_after_a_refusal_make_room_for_the_next() {
    let (line, mut crowd) = (bounded(2), Crowd::default());
    submit_all(&line, &[0, 1], &mut crowd).unwrap();
    line.release();
    submit(&line, 2, &mut crowd).unwrap_err();
    crowd.leave([0, 1]);
    std::thread::sleep(BETWEEN_SEARCHES);
    submit(&line, 3, &mut crowd).unwrap();
    assert_eq!(crowd.forgotten(), [0, 1]);
}

/// A request counts from its own arrival, not from that of one that was refused long before it.
#[test]
fn a_refused_request_does_not_date_the_next_one_back() {
    let (line, mut crowd) = (bounded(2), Crowd::default());
    submit_all(&line, &[0, 1], &mut crowd).unwrap();
    line.release();
    submit(&line, 2, &mut crowd).unwrap_err();
    assert_eq!(line.take(&mut crowd).unwrap().entries.len(), 2);
    std::thread::sleep(BETWEEN_SEARCHES);
    let before = line.now();
    submit(&line, 3, &mut crowd).unwrap();
    line.release();
    let batch = line.take(&mut crowd).unwrap();
    assert!(batch.entries[0].arrived >= before);
}

#[test]
fn requests_of_several_rows_come_in_whole_or_not_at_all() {
    let (line, mut crowd) = (bounded(5), Crowd::default());
    submit_all(&line, &[0, 1, 2], &mut crowd).unwrap();
    let error = submit_all(&line, &[3, 4, 5], &mut crowd).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(line.stats().queued, 3);
    submit_all(&line, &[6, 7], &mut crowd).unwrap();
    let error = submit_all(&line, &[8; 6], &mut crowd).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Item, "it could never fit");
    assert!(error.message().contains("max_queue=5"), "{error}");
    assert_eq!(drain(&line, &mut crowd), [0, 1, 2, 6, 7]);
}

#[test]
fn rows_of_one_request_come_in_whole_under_threads_too() {
    let line = Arc::new(bounded(100));
    let senders = (0..4_u64).map(|sender| {
        let line = Arc::clone(&line);
        std::thread::spawn(move || {
            let begins = (0..20).map(|turn| (sender * 20 + turn) * 3);
            let fits = |begin: &u64| {
                let numbers = [*begin, begin + 1, begin + 2];
                submit_all(&line, &numbers, &mut Crowd::default()).is_ok()
            };
            begins.filter(fits).collect::<Vec<_>>()
        })
    });
    let senders: Vec<_> = senders.collect();
    let mut accepted: Vec<_> = senders.into_iter().flat_map(joined).collect();
    assert_eq!(accepted.len(), 33, "100 places hold 33 requests of 3 rows");
    let numbers = drain(&line, &mut Crowd::default());
    let mut begins: Vec<_> = numbers
        .chunks(3)
        .map(|rows| {
            assert_eq!(rows, [rows[0], rows[0] + 1, rows[0] + 2]);
            rows[0]
        })
        .collect();
    begins.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(begins, accepted);
}

#[test]
fn a_batch_reaches_the_worker_without_those_who_left() {
    let (line, mut crowd) = (bounded(10), Crowd::default());
    submit_all(&line, &[0, 1, 2, 3], &mut crowd).unwrap();
    line.release();
    crowd.leave([0, 3]);
    let batch = line.take(&mut crowd).unwrap();
    assert_rows(&batch);
    assert!(batch.entries.iter().map(|entry| entry.waiter).eq([1, 2]));
    let stats = line.stats();
    assert_eq!(
        (stats.requests, stats.batches, stats.abandoned),
        (2, 1, 2),
        "only what the model sees counts as requested"
    );
    assert_eq!(crowd.forgotten(), [0, 3]);
}

#[test]
fn a_batch_that_everybody_left_is_none() {
    let (line, mut crowd) = (bounded(10), Crowd::default());
    submit_all(&line, &[0, 1], &mut crowd).unwrap();
    line.release();
    crowd.leave([0, 1]);
    assert!(line.take(&mut crowd).is_none());
    assert_eq!(crowd.forgotten(), [0, 1]);
    assert_eq!((line.running(), line.is_idle()), (0, true));
    assert_eq!((line.stats().batches, line.stats().abandoned), (0, 2));
}

/// Looks at the batcher from within `forget`, which would hang if the lock were held.
struct Curious<'a>(&'a Line, Vec<usize>);

impl Attendance<u64> for Curious<'_> {
    fn is_gone(&mut self, _: &u64) -> bool {
        true
    }

    fn forget(&mut self, _: Removed<u64>) {
        self.1.push(self.0.stats().queued);
    }

    fn expire(&mut self, _: Removed<u64>) {}
}

#[test]
fn those_who_left_are_forgotten_without_the_lock() {
    let line = bounded(2);
    submit_all(&line, &[0, 1], &mut Crowd::default()).unwrap();
    let mut curious = Curious(&line, Vec::new());
    let row = |rows: &mut _| write(rows, 2);
    line.submit(&key(2), Priority::Normal.into(), 2, row, &mut curious).unwrap();
    line.release();
    assert!(line.take(&mut curious).is_none());
    assert_eq!(curious.1, [1, 0]);
}
