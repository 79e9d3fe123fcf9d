//! Windows on the operating system's clock, with workers that sleep until their end.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::{BatchPolicy, Batcher, Priority, Ran, Reason, Turn};
use super::{Crowd, PATIENCE, joined, key, tick, window, write};

type Line = Arc<Batcher<usize, u64>>;

/// What a worker reports: the requests of a batch, why it was cut, and when.
type Cut = (Vec<u64>, Reason, Instant);

fn open(policy: BatchPolicy) -> Line {
    Arc::new(Batcher::new(policy).unwrap())
}

fn submit(line: &Line, group: usize, number: u64) {
    let row = |rows: &mut _| write(rows, number);
    line.submit(&key(group), Priority::Normal.into(), number, row, &mut Crowd::default()).unwrap();
}

/// A worker that reports each batch, and stays with one of group 1 until `release` speaks or is gone.
fn worker(line: &Line, cuts: &Sender<Cut>, release: Receiver<()>) -> JoinHandle<()> {
    let (line, cuts) = (Arc::clone(line), cuts.clone());
    std::thread::spawn(move || {
        while line.wait() == Turn::Work {
            let Some(batch) = line.take(&mut Crowd::default()) else {
                continue;
            };
            let numbers = batch.entries.iter().map(|entry| entry.waiter).collect();
            cuts.send((numbers, batch.reason, Instant::now())).unwrap();
            if batch.group.key == 1 {
                let _ = release.recv_timeout(PATIENCE);
            }
            line.finish(batch.cut.number, Ran::Unknown);
        }
    })
}

fn next(cuts: &Receiver<Cut>) -> Cut {
    cuts.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_worker_that_sleeps_cuts_a_window_at_its_end_and_not_before() {
    let wait = Duration::from_millis(30);
    let line = open(window(10, wait));
    let (send, cuts) = channel();
    let (_busy, release) = channel();
    let worker = worker(&line, &send, release);
    for number in 0..3 {
        let before = Instant::now();
        submit(&line, 0, number);
        let (numbers, reason, at) = next(&cuts);
        assert_eq!((numbers, reason), (vec![number], Reason::Window));
        assert!(at - before >= wait, "{:?}", at - before);
    }
    line.close(true);
    joined(worker);
}

#[test]
fn a_full_batch_does_not_wait_for_its_window() {
    let line = open(window(3, Duration::from_hours(1)));
    let (send, cuts) = channel();
    let (_busy, release) = channel();
    let worker = worker(&line, &send, release);
    for number in 0..3 {
        submit(&line, 0, number);
    }
    let (numbers, reason, _) = next(&cuts);
    assert_eq!((numbers, reason), (vec![0, 1, 2], Reason::Full));
    line.close(true);
    joined(worker);
}

#[test]
fn a_minimum_holds_a_tick_back_until_enough_have_come() {
    let policy = BatchPolicy { min_size: 2, max_wait: Duration::from_hours(1), ..tick(10) };
    let line = open(policy);
    let (send, cuts) = channel();
    let (_busy, release) = channel();
    let worker = worker(&line, &send, release);
    submit(&line, 0, 0);
    line.release();
    assert!(cuts.recv_timeout(Duration::from_millis(30)).is_err());
    submit(&line, 0, 1);
    line.release();
    assert_eq!(next(&cuts).0, [0, 1]);
    line.close(true);
    joined(worker);
}

#[test]
fn a_window_is_cut_in_time_while_another_worker_is_busy_with_another_group() {
    for turn in 0..20 {
        let line = open(window(2, Duration::from_millis(10)));
        let (send, cuts) = channel();
        let mut busy = Vec::new();
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (release, released) = channel();
                busy.push(release);
                worker(&line, &send, released)
            })
            .collect();
        // In turn: the window runs before the other batch is full, begins after it, and both at once.
        match turn % 3 {
            0 => [(0, 0), (1, 1), (1, 2)],
            1 => [(1, 1), (1, 2), (0, 0)],
            _ => [(1, 1), (0, 0), (1, 2)],
        }
        .into_iter()
        .for_each(|(group, number)| submit(&line, group, number));
        let mut seen = [next(&cuts).0, next(&cuts).0];
        seen.sort_unstable();
        assert_eq!(seen, [vec![0], vec![1, 2]]);
        drop(busy);
        line.close(true);
        workers.into_iter().for_each(joined);
    }
}

#[test]
fn the_only_worker_turns_to_a_window_that_ended_while_it_was_busy() {
    let line = open(window(2, Duration::from_millis(5)));
    let (send, cuts) = channel();
    let (busy, release) = channel();
    let worker = worker(&line, &send, release);
    submit(&line, 1, 1);
    submit(&line, 1, 2);
    assert_eq!(next(&cuts).0, [1, 2]);
    submit(&line, 0, 0);
    assert!(cuts.recv_timeout(Duration::from_millis(20)).is_err());
    drop(busy);
    let (numbers, reason, _) = next(&cuts);
    assert_eq!((numbers, reason), (vec![0], Reason::Window));
    line.close(true);
    joined(worker);
}

#[test]
fn an_event_loop_is_told_when_to_look_again() {
    let line = open(window(2, Duration::from_mins(1)));
    assert_eq!(line.look_again_in(), None);
    submit(&line, 0, 0);
    let wait = line.look_again_in().unwrap();
    assert!(wait > Duration::from_secs(30) && wait <= Duration::from_mins(1));
    submit(&line, 0, 1);
    assert_eq!(line.look_again_in(), Some(Duration::ZERO));
    let line = open(tick(2));
    submit(&line, 0, 0);
    assert_eq!(line.look_again_in(), None, "the end of the tick will tell");
}

/// A window opened by several groups one after another: the worker must wake for the earliest each time.
#[test]
fn one_worker_keeps_the_windows_of_several_groups() {
    let wait = Duration::from_millis(20);
    let line = open(window(10, wait));
    let (send, cuts) = channel();
    let (busy, release) = channel();
    drop(busy);
    let worker = worker(&line, &send, release);
    let mut begun = Vec::new();
    for number in 0..6_u64 {
        begun.push(Instant::now());
        submit(&line, usize::try_from(number).unwrap() + 2, number);
        std::thread::sleep(Duration::from_millis(3));
    }
    for number in 0..6 {
        let (numbers, reason, at) = next(&cuts);
        assert_eq!((numbers, reason), (vec![number], Reason::Window));
        assert!(at - begun[usize::try_from(number).unwrap()] >= wait);
    }
    line.close(true);
    joined(worker);
}
