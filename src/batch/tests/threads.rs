//! Many producers, many workers, real waits: everything is answered, once, and with its own row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::{BatchPolicy, BatchStats, Batcher, Priority, Ran, Turn};
use super::{Crowd, PATIENCE, assert_rows, joined, key, tick, until, window, write};
use crate::error::ErrorKind;

const REQUESTS: u64 = 600;

const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

type Line = Arc<Batcher<usize, u64>>;

fn worker(line: &Line, answered: &Arc<Vec<AtomicU64>>) -> JoinHandle<()> {
    let (line, answered) = (Arc::clone(line), Arc::clone(answered));
    std::thread::spawn(move || {
        while line.wait() == Turn::Work {
            let Some(batch) = line.take(&mut Crowd::default()) else {
                continue;
            };
            assert_rows(&batch);
            for entry in &batch.entries {
                answered[usize::try_from(entry.waiter).unwrap()].fetch_add(1, Ordering::Relaxed);
            }
            line.finish(batch.cut.number, Ran::Unknown);
        }
    })
}

/// Sends its share of the requests, again and again where the queue is full.
fn producer(line: &Line, numbers: std::ops::Range<u64>, batch_of: u64) -> JoinHandle<u64> {
    let line = Arc::clone(line);
    std::thread::spawn(move || {
        let mut refused = 0;
        for number in numbers {
            let lot = usize::try_from(number / batch_of % 3).unwrap();
            let submit = || {
                let row = |rows: &mut _| write(rows, number);
                line.submit(&key(lot), PRIORITIES[lot].into(), number, row, &mut Crowd::default())
            };
            while let Err(error) = submit() {
                assert_eq!(error.kind(), ErrorKind::Overloaded);
                refused += 1;
                line.release();
                std::thread::yield_now();
            }
            // Not every request ends a tick.
            if number % 3 == 0 {
                line.release();
            }
        }
        line.release();
        refused
    })
}

fn all_are_answered(policy: BatchPolicy, producers: u64, workers: usize) -> BatchStats {
    let line: Line = Arc::new(Batcher::new(policy).unwrap());
    let answered: Arc<Vec<_>> = Arc::new((0..REQUESTS).map(|_| AtomicU64::new(0)).collect());
    let workers: Vec<_> = (0..workers).map(|_| worker(&line, &answered)).collect();
    let share = REQUESTS / producers;
    let producers: Vec<_> =
        (0..producers).map(|at| producer(&line, at * share..(at + 1) * share, 7)).collect();
    let refused: u64 = producers.into_iter().map(joined).sum();
    line.close(true);
    workers.into_iter().for_each(joined);
    assert!(line.wait_idle(PATIENCE));
    assert!(answered.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    let stats = line.stats();
    assert_eq!((stats.requests, stats.queued, stats.abandoned), (REQUESTS, 0, 0));
    assert_eq!(stats.rejected, refused);
    assert_eq!(stats.reasons.iter().sum::<u64>(), stats.batches);
    stats
}

#[test]
fn every_request_is_answered_once_under_tick_dispatch() {
    for (producers, workers) in [(1, 1), (4, 1), (4, 3), (1, 4)] {
        let stats = all_are_answered(tick(16), producers, workers);
        assert!(stats.largest <= 16);
    }
}

#[test]
fn every_request_is_answered_once_under_window_dispatch() {
    for (producers, workers) in [(1, 1), (4, 1), (4, 3)] {
        let policy = window(16, Duration::from_millis(2));
        let stats = all_are_answered(policy, producers, workers);
        assert!(stats.largest <= 16);
    }
}

#[test]
fn every_request_is_answered_once_with_a_minimum() {
    let policy = BatchPolicy { min_size: 8, max_wait: Duration::from_millis(2), ..tick(16) };
    all_are_answered(policy, 4, 2);
}

#[test]
fn every_request_is_answered_once_through_a_queue_that_is_mostly_full() {
    for workers in [1, 3] {
        let policy = BatchPolicy { max_queue: 5, ..tick(4) };
        all_are_answered(policy, 4, workers);
    }
}

#[test]
fn a_hundred_workers_answer_a_hundred_producers_once_each() {
    for policy in [tick(4), BatchPolicy { max_queue: 20, ..tick(4) }, window(16, Duration::from_millis(1))] {
        all_are_answered(policy, 100, 100);
    }
}

/// Has three workers asleep, submits, ends the tick, and fails unless each of them gets a batch while the others hold theirs.
fn keeps_three_busy(max_size: usize, submit: impl FnOnce(&Line)) {
    let line: Line = Arc::new(Batcher::new(tick(max_size)).unwrap());
    let taken = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (line, taken) = (Arc::clone(&line), Arc::clone(&taken));
            std::thread::spawn(move || {
                assert_eq!(line.wait(), Turn::Work);
                let batch = line.take(&mut Crowd::default()).unwrap();
                taken.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
                until("each of them has a batch", || line.running() == 3);
            })
        })
        .collect();
    // Time to fall asleep: whoever is awake needs no waking.
    std::thread::sleep(Duration::from_millis(30));
    submit(&line);
    line.release();
    workers.into_iter().for_each(joined);
    assert_eq!(taken.load(Ordering::Relaxed), 11);
}

fn submit_all(line: &Line, group: usize, numbers: std::ops::Range<u64>) {
    let begin = numbers.start;
    let row = |rows: &mut _, row: usize| write(rows, begin + row as u64);
    line.submit_all(&key(group), Priority::Normal.into(), numbers.collect(), row, &mut Crowd::default())
        .unwrap();
}

#[test]
fn a_burst_larger_than_a_batch_sets_every_worker_to_work() {
    keeps_three_busy(4, |line| submit_all(line, 0, 0..11));
}

#[test]
fn groups_that_end_their_tick_together_set_a_worker_each_to_work() {
    keeps_three_busy(100, |line| {
        submit_all(line, 0, 0..2);
        submit_all(line, 1, 2..5);
        submit_all(line, 2, 5..11);
    });
}
