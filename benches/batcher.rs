//! The batcher without Python: what a request costs in the core, and what each of its parts does.
//!
//! Rows are 256 bytes (float32[64]); every figure is for all rows of a tick, and Criterion divides it by them.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use penstock::batch::{
    Attendance, BatchPolicy, Batcher, Budget, GroupKey, Pressure, Ran, Removed, Terms, Turn, verdict,
};
use penstock::flow::{BurstQueue, Moment, TimeSource};
use penstock::tensor::{Column, ColumnSpec, DType, Padding, Rows, Specs};

const ROW: [u8; 256] = [7; 256];
/// Rows in a tick.
const TICKS: [usize; 3] = [1, 100, 1_000];
/// Clients that wait for their answers, and workers that give them.
const CLIENTS: usize = 64;
const WORKERS: usize = 4;

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

/// Requests with terms: what each kind of them costs beside one that has none.
fn with_terms(criterion: &mut Criterion) -> penstock::error::Result<()> {
    let plain = BatchPolicy::default;
    let budget = Budget { max_batch: Some(2_000), ..Budget::default() };
    let padding = Padding { multiple: 8, value_bits: 0, columns: 1 };
    let padded = Budget { max_batch: Some(100 * 64), padding: Some(padding), ..budget };
    let weights = vec![("a".to_owned(), 2.0), ("b".to_owned(), 1.0)];
    let policies = [
        ("deadlines", plain()),
        ("costs", BatchPolicy { budget: Some(budget), ..plain() }),
        ("padding", BatchPolicy { budget: Some(padded), ..plain() }),
        ("weights", BatchPolicy { weights, ..plain() }),
    ];
    let mut group = criterion.benchmark_group("batcher/terms");
    for (name, policy) in policies {
        for rows in [100, 1_000] {
            let batcher = Batcher::new(policy.clone())?;
            let key = key();
            let tenants = [batcher.tenant("a"), batcher.tenant("b")];
            let dated = name == "deadlines";
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                bencher.iter(|| {
                    let deadline = dated.then(|| batcher.now() + Duration::from_hours(1));
                    for waiter in 0..rows {
                        let [first, second] = tenants;
                        let tenant = if waiter % 2 == 0 { first } else { second };
                        let cost = 1 + u32::try_from(waiter % 40).unwrap_or(1);
                        let terms = Terms { deadline, tenant, cost, ..Terms::default() };
                        let submitted = batcher.submit(&key, terms, waiter, write, &mut Patient);
                        assert!(submitted.is_ok(), "it was refused");
                    }
                    batcher.release();
                    assert_eq!(take_all(&batcher), rows, "a row was lost");
                });
            });
        }
    }
    group.finish();
    Ok(())
}

/// Four workers of a function that takes 2 ms, and 64 clients that ask again when they are answered. Workers that race for
/// each request are the same code, told of the end of a tick after every single one.
fn one_queue_or_a_race(criterion: &mut Criterion) -> penstock::error::Result<()> {
    let mut group = criterion.benchmark_group("batcher/64 clients of 4 workers");
    group.sample_size(10).throughput(Throughput::Elements(CLIENTS as u64));
    for (name, races) in [("one queue", false), ("race", true)] {
        let batcher = Arc::new(Batcher::with(BatchPolicy::default(), WORKERS, TimeSource::system())?);
        let (answers, answered) = std::sync::mpsc::channel::<Vec<usize>>();
        let workers: Vec<_> = (0..WORKERS).map(|_| worker(&batcher, answers.clone())).collect();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| ask_again_and_again(&batcher, &answered, rounds, races));
        });
        let stats = batcher.stats();
        let mut out = std::io::stderr().lock();
        // Nobody reads it where that fails.
        let _ = writeln!(out, "{name}: mean batch {:.1}, largest {}", stats.mean_size(), stats.largest);
        drop(batcher.close(true));
        for worker in workers {
            assert!(worker.join().is_ok(), "a worker panicked");
        }
    }
    group.finish();
    Ok(())
}

fn worker(
    batcher: &Arc<Batcher<u32, usize>>,
    answers: std::sync::mpsc::Sender<Vec<usize>>,
) -> std::thread::JoinHandle<()> {
    let batcher = Arc::clone(batcher);
    std::thread::spawn(move || {
        while batcher.wait() == Turn::Work {
            while let Some(batch) = batcher.take(&mut Patient) {
                std::thread::sleep(Duration::from_millis(2));
                // Whoever waited may have left at the end of a measurement.
                let _ = answers.send(batch.entries.iter().map(|entry| entry.waiter).collect());
                batcher.finish(batch.cut.number, Ran::Unknown);
            }
        }
    })
}

/// The time in which every client is answered so many times.
fn ask_again_and_again(
    batcher: &Batcher<u32, usize>,
    answered: &std::sync::mpsc::Receiver<Vec<usize>>,
    rounds: u64,
    races: bool,
) -> Duration {
    let key = key();
    let submit = |client| {
        let submitted = batcher.submit(&key, Terms::default(), client, write, &mut Patient);
        assert!(submitted.is_ok(), "it was refused");
        if races {
            batcher.release();
        }
    };
    let mut left: Vec<u64> = vec![rounds; CLIENTS];
    let mut out = CLIENTS;
    let start = Instant::now();
    (0..CLIENTS).for_each(submit);
    batcher.release();
    while out > 0 {
        let Ok(mut clients) = answered.recv() else { break };
        // Whatever else was answered meanwhile belongs to this tick.
        clients.extend(answered.try_iter().flatten());
        out -= clients.len();
        for client in clients {
            if let Some(left) = left.get_mut(client) {
                *left -= 1;
                if *left > 0 {
                    submit(client);
                    out += 1;
                }
            }
        }
        batcher.release();
    }
    start.elapsed()
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
    with_terms(&mut criterion)?;
    one_queue_or_a_race(&mut criterion)?;
    decision(&mut criterion);
    burst_queue(&mut criterion);
    criterion.final_summary();
    Ok(())
}
