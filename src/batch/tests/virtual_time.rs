//! A batcher that lives by a clock that a test moves.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::batch::{Batcher, Reason, Terms, Turn};
use crate::flow::{Clock, TimeSource, VirtualClock};

#[test]
fn a_sleeping_worker_takes_a_window_when_the_clock_says_so() {
    let clock = Arc::new(VirtualClock::new());
    let policy = window(10, Duration::from_hours(1));
    let batcher = Batcher::with(policy, 1, TimeSource::Virtual(Arc::clone(&clock))).unwrap();
    let batcher = Arc::new(batcher);
    let worker = std::thread::spawn({
        let batcher = Arc::clone(&batcher);
        move || {
            assert_eq!(batcher.wait(), Turn::Work);
            batcher.take(&mut Crowd::default()).unwrap()
        }
    });
    for number in 0..3 {
        let write = |rows: &mut Rows| write(rows, number);
        batcher.submit(&key(0), Terms::default(), number, write, &mut Crowd::default()).unwrap();
        batcher.release();
    }
    clock.advance(Duration::from_secs(3_599));
    assert!(batcher.take(&mut Crowd::default()).is_none());
    clock.advance(Duration::from_secs(1));
    let batch = joined(worker);
    assert_eq!((batch.entries.len(), batch.reason), (3, Reason::Window));
    assert_eq!(clock.now().since(batch.entries[0].arrived), Duration::from_hours(1));
}

#[test]
fn whoever_waits_for_the_end_hears_that_the_last_has_expired() {
    let clock = Arc::new(VirtualClock::new());
    let policy = window(10, Duration::from_mins(1));
    let batcher = Arc::new(Batcher::with(policy, 1, TimeSource::Virtual(Arc::clone(&clock))).unwrap());
    let deadline = Some(clock.now() + Duration::from_secs(1));
    let terms = Terms { deadline, ..Terms::default() };
    batcher.submit(&key(0), terms, 7, |rows| write(rows, 7), &mut Crowd::default()).unwrap();
    clock.advance(Duration::from_secs(2));
    drop(batcher.close(true));
    let waiter = std::thread::spawn({
        let batcher = Arc::clone(&batcher);
        move || batcher.wait_idle(2 * PATIENCE)
    });
    std::thread::sleep(Duration::from_millis(20));
    assert!(batcher.take(&mut Crowd::default()).is_none());
    assert!(joined(waiter));
}
