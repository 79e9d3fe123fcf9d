//! How a batcher ends.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Batcher, Priority, Ran, Turn};
use super::{Crowd, PATIENCE, joined, key, tick, until, window, write};
use crate::error::{ErrorKind, Result};

type Line = Batcher<usize, u64>;

fn submit(line: &Line, number: u64) -> Result<()> {
    let row = |rows: &mut _| write(rows, number);
    line.submit(&key(0), Priority::Normal.into(), number, row, &mut Crowd::default())
}

#[test]
fn workers_that_wait_are_told_when_nothing_will_come() {
    for policy in [tick(10), window(10, Duration::from_hours(1))] {
        let line = Arc::new(Line::new(policy).unwrap());
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let line = Arc::clone(&line);
                std::thread::spawn(move || line.wait())
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20));
        line.close(true);
        for worker in workers {
            assert_eq!(joined(worker), Turn::Done);
        }
        assert_eq!(line.wait(), Turn::Done, "and so is whoever comes later");
    }
}

#[test]
fn draining_hands_out_what_waited_before_it_says_done() {
    let line = Line::new(window(2, Duration::from_hours(1))).unwrap();
    for number in 0..5 {
        submit(&line, number).unwrap();
    }
    assert_eq!(line.close(true).entries.len(), 0);
    let mut sizes = Vec::new();
    while line.wait() == Turn::Work {
        let batch = line.take(&mut Crowd::default()).unwrap();
        sizes.push(batch.entries.len());
        line.finish(batch.cut.number, Ran::Unknown);
    }
    assert_eq!(sizes, [2, 2, 1]);
    assert!(line.wait_idle(Duration::ZERO));
}

#[test]
fn closing_without_draining_answers_with_what_waited() {
    let line = Line::new(tick(2)).unwrap();
    for number in 0..5 {
        submit(&line, number).unwrap();
    }
    let left = line.close(false);
    let mut numbers: Vec<_> = left.entries.iter().map(|entry| entry.waiter).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(line.wait(), Turn::Done);
    assert!(line.take(&mut Crowd::default()).is_none());
    assert!(line.close(false).entries.is_empty(), "closing twice is closing once");
}

#[test]
fn a_drain_can_still_be_cut_short() {
    let line = Line::new(tick(10)).unwrap();
    submit(&line, 0).unwrap();
    assert!(line.close(true).entries.is_empty());
    assert_eq!(line.close(false).entries.len(), 1);
}

#[test]
fn nothing_is_accepted_after_closing() {
    let line = Line::new(tick(10)).unwrap();
    assert!(!line.is_closed());
    line.close(true);
    assert!(line.is_closed());
    assert_eq!(submit(&line, 0).unwrap_err().kind(), ErrorKind::Closed);
    let row = |rows: &mut _, _| write(rows, 0);
    let several = line.submit_all(&key(0), Priority::Normal.into(), vec![0, 1], row, &mut Crowd::default());
    assert_eq!(several.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(line.stats().rejected, 0, "that is no overload");
}

#[test]
fn idleness_waits_for_the_batch_that_runs() {
    let line = Arc::new(Line::new(tick(10)).unwrap());
    submit(&line, 0).unwrap();
    assert!(!line.is_idle());
    line.close(true);
    let batch = line.take(&mut Crowd::default()).unwrap();
    assert_eq!((line.running(), line.is_idle()), (1, false));
    assert!(!line.wait_idle(Duration::from_millis(5)));
    let waiter = {
        let line = Arc::clone(&line);
        std::thread::spawn(move || line.wait_idle(PATIENCE))
    };
    line.finish(batch.cut.number, Ran::Unknown);
    assert!(joined(waiter));
    assert_eq!((line.running(), line.is_idle()), (0, true));
}

#[test]
fn producers_that_race_with_the_end_are_answered_or_refused() {
    for drain in [true, false] {
        let line = Arc::new(Line::new(tick(8)).unwrap());
        let producers: Vec<_> = (0..3_u64)
            .map(|producer| {
                let line = Arc::clone(&line);
                let numbers = (0..).map(move |turn| producer << 32 | turn);
                std::thread::spawn(move || {
                    let accepted = numbers.take_while(|number| {
                        line.release();
                        submit(&line, *number).is_ok()
                    });
                    accepted.collect::<Vec<_>>()
                })
            })
            .collect();
        let worker = {
            let line = Arc::clone(&line);
            std::thread::spawn(move || work(&line))
        };
        until("some were answered", || line.stats().requests > 50);
        let left = line.close(drain);
        let mut accepted: Vec<_> = producers.into_iter().flat_map(joined).collect();
        let mut out = joined(worker);
        assert!(line.wait_idle(PATIENCE));
        out.extend(left.entries.iter().map(|entry| entry.waiter));
        out.sort_unstable();
        accepted.sort_unstable();
        assert!(out == accepted, "{} out of {}", out.len(), accepted.len());
    }
}

fn work(line: &Line) -> Vec<u64> {
    let mut seen = Vec::new();
    while line.wait() == Turn::Work {
        if let Some(batch) = line.take(&mut Crowd::default()) {
            seen.extend(batch.entries.iter().map(|entry| entry.waiter));
            line.finish(batch.cut.number, Ran::Unknown);
        }
    }
    seen
}
