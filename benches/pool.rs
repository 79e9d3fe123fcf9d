//! The pool without a network: what a request pays for its connection, alone and behind many that wait.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use penstock::error::Result;
use penstock::flow::Moment;
use penstock::pool::{
    BalancePolicy, Balancer, Condition, Connection, Connector, EjectSettings, Lease, Outcome, Place, Pool,
    PoolSettings,
};
use tokio::runtime::{Builder, Runtime};

const MAX: usize = 64;
/// Requests that wait.
const WAITING: [usize; 4] = [64, 1_000, 4_000, 16_000];

struct Wire;

impl Connection for Wire {
    fn capacity(&self) -> usize {
        1
    }

    fn condition(&self) -> Condition {
        Condition::Usable
    }
}

struct Dialer;

impl Connector for Dialer {
    type Connection = Wire;

    async fn connect(&self) -> Result<Wire> {
        Ok(Wire)
    }

    async fn check(&self, _connection: &Wire) -> Result<()> {
        Ok(())
    }
}

type Request<'a> = Pin<Box<dyn Future<Output = Result<Lease<Dialer>>> + 'a>>;

fn open(runtime: &Runtime) -> Result<Pool<Dialer>> {
    let settings = PoolSettings {
        min_size: 0,
        max_size: MAX,
        acquire_timeout: Some(Duration::from_mins(10)),
        ..PoolSettings::default()
    };
    Pool::new("bench", Dialer, settings, runtime.handle())
}

fn acquire(pool: &Pool<Dialer>) -> Request<'_> {
    Box::pin(pool.acquire(None, Place::Unknown))
}

/// Every connection, so that whoever comes must wait.
fn fill(runtime: &Runtime, pool: &Pool<Dialer>) -> Result<Vec<Lease<Dialer>>> {
    (0..MAX).map(|_| runtime.block_on(acquire(pool))).collect()
}

fn free(criterion: &mut Criterion, runtime: &Runtime) -> Result<()> {
    let pool = open(runtime)?;
    drop(fill(runtime, &pool)?.into_iter().map(|lease| lease.finish(true, None)).collect::<Vec<_>>());
    criterion.bench_function("pool/take a free connection and give it back", |bencher| {
        bencher.iter(|| {
            if let Some(lease) = pool.try_acquire(black_box(&Place::Unknown)) {
                lease.finish(true, None);
            }
        });
    });
    assert_eq!(pool.stats().in_use, 0);
    Ok(())
}

/// One joins the line, the first is served, and goes on.
fn behind_others(criterion: &mut Criterion, runtime: &Runtime) -> Result<()> {
    let mut group = criterion.benchmark_group("pool/wait, be served in turn, give back");
    group.throughput(Throughput::Elements(1));
    for waiting in WAITING {
        let _guard = runtime.enter();
        let pool = open(runtime)?;
        let mut held = fill(runtime, &pool)?.into_iter();
        let mut context = Context::from_waker(Waker::noop());
        let mut line = std::collections::VecDeque::new();
        let mut join = |line: &mut std::collections::VecDeque<_>| {
            let mut request = acquire(&pool);
            assert!(request.as_mut().poll(&mut context).is_pending(), "a connection was free");
            line.push_back(request);
        };
        (0..waiting).for_each(|_| join(&mut line));
        let mut lease = held.next();
        group.bench_function(BenchmarkId::from_parameter(waiting), |bencher| {
            bencher.iter(|| {
                join(&mut line);
                if let Some(lease) = lease.take() {
                    lease.finish(true, None);
                }
                lease = line.pop_front().and_then(|first| runtime.block_on(first).ok());
            });
        });
        assert_eq!((pool.stats().waiting, pool.stats().size), (waiting, MAX));
    }
    group.finish();
    Ok(())
}

/// One joins the line at its end, another leaves from its middle.
fn leaving(criterion: &mut Criterion, runtime: &Runtime) -> Result<()> {
    let mut group = criterion.benchmark_group("pool/join a line and leave it");
    for waiting in WAITING {
        let _guard = runtime.enter();
        let pool = open(runtime)?;
        let held = fill(runtime, &pool)?;
        let mut context = Context::from_waker(Waker::noop());
        let mut line: Vec<Option<Request<'_>>> = (0..waiting).map(|_| None).collect();
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(waiting), |bencher| {
            bencher.iter(|| {
                let mut request = acquire(&pool);
                assert!(request.as_mut().poll(&mut context).is_pending(), "a connection was free");
                next = (next + waiting / 2 + 1) % waiting;
                if let Some(place) = line.get_mut(next) {
                    drop(place.replace(request));
                }
            });
        });
        drop((line, held));
    }
    group.finish();
    Ok(())
}

fn balancer(criterion: &mut Criterion) {
    let mut balancer = Balancer::new(BalancePolicy::P2cFirstByte, 4, EjectSettings::default());
    let mut random = fastrand::Rng::with_seed(1);
    let mut nanos = 0;
    criterion.bench_function("balancer/pick by time to first byte and end", |bencher| {
        bencher.iter(|| {
            nanos += 1_000;
            let now = Moment::from_nanos(nanos);
            if let Some(pick) = balancer.pick(now, &[], &mut random) {
                balancer.started(pick.endpoint);
                balancer.first_byte(pick.endpoint, Duration::from_micros(500), now);
                balancer.ended(pick, Outcome::Success, now);
            }
        });
    });
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
        .configure_from_args();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        penstock::error::Error::with_source(
            penstock::error::ErrorKind::Internal,
            "no runtime could be made",
            error,
        )
    })?;
    free(&mut criterion, &runtime)?;
    behind_others(&mut criterion, &runtime)?;
    leaving(&mut criterion, &runtime)?;
    balancer(&mut criterion);
    criterion.final_summary();
    Ok(())
}
