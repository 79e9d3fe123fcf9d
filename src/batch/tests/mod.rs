//! The queue against a model of it, and the batcher under threads.

mod admission;
mod alone;
mod closing;
#[allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "the figures are what the proofs are for"
)]
mod proofs;
mod queue;
mod script;
mod simulated;
mod terms;
mod threads;
mod traces;
mod virtual_time;
mod windows;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};

use super::{Attendance, Batch, BatchPolicy, Dispatch, GroupKey, Removed};
use crate::tensor::{Column, ColumnSpec, DType, Rows, Specs};

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn tick(max_size: usize) -> BatchPolicy {
    BatchPolicy { max_size, ..BatchPolicy::default() }
}

fn window(max_size: usize, max_wait: Duration) -> BatchPolicy {
    BatchPolicy { max_size, max_wait, dispatch: Dispatch::Window, ..BatchPolicy::default() }
}

/// Three groups: numbers, objects, and all kinds of columns together.
fn key(group: usize) -> GroupKey<usize> {
    let numbers = ColumnSpec::Numbers { dtype: DType::UInt64, shape: smallvec![2] };
    let texts = ColumnSpec::Texts { shape: SmallVec::new() };
    let specs: Specs = match group {
        0 => smallvec![numbers],
        1 => smallvec![ColumnSpec::Objects],
        _ => smallvec![numbers, texts, ColumnSpec::Objects],
    };
    GroupKey { key: group, specs }
}

/// Writes the row that stands for a request: its number, in every column.
fn write(rows: &mut Rows, number: u64) {
    for column in rows.columns_mut() {
        match column {
            Column::Numbers { memory, .. } => {
                memory.extend(&number.to_ne_bytes());
                memory.extend(&(!number).to_ne_bytes());
            }
            Column::Texts { texts, .. } => texts.push(number.to_string().as_bytes()),
            Column::Objects(ids) => ids.push(number),
        }
    }
}

/// The rows that requests of these numbers must have written.
fn assert_rows<K>(batch: &Batch<K, u64>) {
    let numbers: Vec<u64> = batch.entries.iter().map(|entry| entry.waiter).collect();
    for column in batch.rows.columns() {
        match column {
            Column::Numbers { memory, .. } => {
                let expected: Vec<u8> = numbers
                    .iter()
                    .flat_map(|number| [number.to_ne_bytes(), (!number).to_ne_bytes()].concat())
                    .collect();
                assert_eq!(memory.as_slice(), expected, "rows of {numbers:?}");
            }
            Column::Texts { texts, .. } => {
                let expected: Vec<_> = numbers.iter().map(u64::to_string).collect();
                assert_eq!(texts.len(), expected.len());
                let found = texts.range(0..texts.len());
                assert!(found.eq(expected.iter().map(String::as_bytes)));
            }
            Column::Objects(ids) => assert_eq!(ids, &numbers),
        }
    }
}

/// The requests that have left, and what the batcher was told to forget.
#[derive(Clone, Default)]
struct Crowd {
    gone: Arc<Mutex<Vec<u64>>>,
    forgotten: Arc<Mutex<Vec<u64>>>,
    expired: Arc<Mutex<Vec<u64>>>,
}

impl Crowd {
    fn leave(&self, numbers: impl IntoIterator<Item = u64>) {
        self.gone.lock().extend(numbers);
    }

    fn forgotten(&self) -> Vec<u64> {
        self.forgotten.lock().clone()
    }
}

impl Attendance<u64> for Crowd {
    fn is_gone(&mut self, waiter: &u64) -> bool {
        self.gone.lock().contains(waiter)
    }

    fn forget(&mut self, removed: Removed<u64>) {
        let numbers = removed.entries.into_iter().map(|entry| entry.waiter);
        self.forgotten.lock().extend(numbers);
    }

    fn expire(&mut self, removed: Removed<u64>) {
        self.expired.lock().extend(removed.entries.into_iter().map(|entry| entry.waiter));
    }
}

/// Looks until it is so, and fails if that never comes.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it never came that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a thread answers, which must end: a test that hangs says less than one that fails.
fn joined<T>(thread: JoinHandle<T>) -> T {
    until("the thread ended", || thread.is_finished());
    thread.join().unwrap()
}
