//! The batcher without Python: what a request costs in the core, and what each of its parts does.
//!
//! Rows are 256 bytes (float32[64]); every figure is for all rows of a tick, and Criterion divides it by them.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use penstock::batch::{
    Attendance, BatchPolicy, Batcher, GroupKey, Pressure, Ran, Removed, Terms, Turn, verdict,
};
use penstock::flow::{BurstQueue, Moment};
use penstock::tensor::{Column, ColumnSpec, DType, Rows, Specs};

const ROW: [u8; 256] = [7; 256];
/// Rows in a tick.
const TICKS: [usize; 3] = [1, 100, 1_000];

type Key = GroupKey<u32>;

/// Nobody ever leaves.
struct Patient;

impl Attendance<usize> for Patient {
    fn is_gone(&mut self, _waiter: &usize) -> bool {
        false
    }

    fn forget(&mut self, _removed: Removed<usize>) {}

    fn expire(&mut self, _removed: Removed<usize>) {}
}

fn key() -> Key {
    let spec = ColumnSpec::Numbers { dtype: DType::Float32, shape: std::iter::once(64).collect() };
    GroupKey { key: 0, specs: Specs::from_iter([spec]) }
}

fn open() -> penstock::error::Result<Arc<Batcher<u32, usize>>> {
    Ok(Arc::new(Batcher::new(BatchPolicy::default())?))
}

fn write(rows: &mut Rows) {
    for column in rows.columns_mut() {
        if let Column::Numbers { memory, .. } = column {
            memory.extend(black_box(&ROW));
        }
    }
}

/// Submits a tick's rows and ends the tick; answers how many were accepted, which is all of them.
fn submit_tick(batcher: &Batcher<u32, usize>, key: &Key, rows: usize) -> usize {
    let accepted = (0..rows)
        .filter(|&waiter| {
            let normal = Terms::default();
            let submitted = batcher.submit(key, normal, waiter, write, &mut Patient);
            submitted.is_ok()
        })
        .count();
    batcher.release();
    accepted
}

/// Takes every batch that may be taken; answers how many rows they held.
fn take_all(batcher: &Batcher<u32, usize>) -> usize {
    let mut taken = 0;
    while let Some(batch) = batcher.take(&mut Patient) {
        taken += batch.entries.len();
        let number = batch.cut.number;
        drop(black_box(batch));
        batcher.finish(number, Ran::Unknown);
    }
    taken
}

fn one_thread(criterion: &mut Criterion) -> penstock::error::Result<()> {
    let mut group = criterion.benchmark_group("batcher/one thread");
    for rows in TICKS {
        let (batcher, key) = (open()?, key());
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            bencher.iter(|| {
                submit_tick(&batcher, &key, rows);
                let taken = take_all(&batcher);
                assert_eq!(taken, rows, "a row was lost");
            });
        });
    }
    group.finish();
    Ok(())
}

/// One producer and one worker. The producer waits for the worker where it is ahead by half of the queue.
fn two_threads(criterion: &mut Criterion) -> penstock::error::Result<()> {
    let mut group = criterion.benchmark_group("batcher/producer and worker");
    for rows in TICKS {
        let batcher = open()?;
        let taken = Arc::new(AtomicUsize::new(0));
        let worker = std::thread::spawn({
            let (batcher, taken) = (Arc::clone(&batcher), Arc::clone(&taken));
            move || {
                while batcher.wait() == Turn::Work {
                    taken.fetch_add(take_all(&batcher), Ordering::Release);
                }
            }
        });
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            bencher.iter_custom(|ticks| produce(&batcher, &taken, rows, ticks));
        });
        drop(batcher.close(true));
        assert!(worker.join().is_ok(), "the worker panicked");
    }
    group.finish();
    Ok(())
}

/// The time from the first row until the worker has taken the last.
fn produce(batcher: &Batcher<u32, usize>, taken: &AtomicUsize, rows: usize, ticks: u64) -> Duration {
    let key = key();
    let half = BatchPolicy::default().max_queue / 2;
    let mut sent = 0;
    taken.store(0, Ordering::Release);
    let wait_until_behind_by = |most: usize, sent: usize| {
        while sent - taken.load(Ordering::Acquire) > most {
            std::thread::yield_now();
        }
    };
    let start = Instant::now();
    for _ in 0..ticks {
        sent += submit_tick(batcher, &key, rows);
        wait_until_behind_by(half, sent);
    }
    wait_until_behind_by(0, sent);
    start.elapsed()
}

fn decision(criterion: &mut Criterion) {
    let policy = BatchPolicy::default();
    let pressure = Pressure {
        waiting: 50,
        cap: 100,
        cost: 50,
        oldest: Moment::from_nanos(1_000),
        released: true,
        closing: false,
        latest_start: None,
        deferrable: false,
    };
    criterion.bench_function("verdict", |bencher| {
        bencher
            .iter(|| verdict(black_box(&policy), black_box(&pressure), black_box(Moment::from_nanos(2_000))));
    });
}

fn burst_queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("burst queue/push and drain");
    for entries in [1_usize, 100] {
        let queue = BurstQueue::new();
        group.throughput(Throughput::Elements(entries as u64));
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter_batched_ref(
                Vec::new,
                |taken| {
                    for entry in 0..entries {
                        black_box(queue.push(entry));
                    }
                    queue.drain(taken);
                    assert_eq!(taken.len(), entries);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn main() -> penstock::error::Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(50)
        .configure_from_args();
    one_thread(&mut criterion)?;
    two_threads(&mut criterion)?;
    decision(&mut criterion);
    burst_queue(&mut criterion);
    criterion.final_summary();
    Ok(())
}
