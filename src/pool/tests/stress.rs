//! Many threads, and requests that leave at any moment: nothing is lent twice, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::{Lease, Place, Pool, PoolSettings};
use super::far::{Dialer, Far, pool, sized};

const THREADS: u64 = 4;
const TASKS: u64 = 25; // a hundred callers in all
const REQUESTS: u64 = 300;

async fn request(pool: &Pool<Dialer>, random: &mut fastrand::Rng, served: &AtomicU64) {
    let patience = Duration::from_micros(random.u64(0..300));
    let acquired = pool.acquire(None, Place::Unknown);
    let acquired = if random.bool() {
        acquired.await.ok()
    } else {
        timeout(patience, acquired).await.ok().and_then(Result::ok)
    };
    let Some(lease) = acquired else { return };
    let carried = lease.connection().carried.fetch_add(1, Ordering::SeqCst) + 1;
    let capacity = lease.connection().far.capacity.load(Ordering::SeqCst);
    assert!(carried <= capacity, "{carried} requests on a connection for {capacity}");
    for _ in 0..random.usize(0..4) {
        tokio::task::yield_now().await;
    }
    served.fetch_add(1, Ordering::Relaxed);
    end(lease, random.u8(..));
}

fn end(lease: Lease<Dialer>, how: u8) {
    lease.connection().carried.fetch_sub(1, Ordering::SeqCst);
    match how {
        0..10 => drop(lease),
        10..20 => lease.finish(false, None),
        20..30 => lease.untouched(),
        30..33 => {
            lease.connection().usable.store(false, Ordering::SeqCst);
            lease.finish(true, None);
        }
        _ => lease.finish(true, None),
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The tasks of one thread.
fn gust(thread: u64, pool: &Pool<Dialer>, served: &Arc<AtomicU64>) {
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (pool, served) = (pool.clone(), Arc::clone(served));
            tasks.spawn(async move {
                let mut random = fastrand::Rng::with_seed(thread * TASKS + task);
                for _ in 0..REQUESTS {
                    request(&pool, &mut random, &served).await;
                }
            });
        }
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
        };
        timeout(Duration::from_mins(2), all).await.expect("somebody waits for ever");
    });
}

/// Threads with a runtime each, and one more for the pool's own tasks.
fn storm(capacity: usize) {
    let far = Arc::new(Far { connect_takes: Duration::from_micros(50), ..Far::default() });
    far.capacity.store(capacity, Ordering::SeqCst);
    let patient = PoolSettings { acquire_timeout: Some(Duration::from_mins(1)), ..sized(2, 6) };
    let served = AtomicU64::new(0);
    let (served, own) = (Arc::new(served), runtime());
    own.block_on(async {
        let pool = pool(&far, patient);
        let gusts: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (pool, served) = (pool.clone(), Arc::clone(&served));
                tokio::task::spawn_blocking(move || gust(thread, &pool, &served))
            })
            .collect();
        for gust in gusts {
            gust.await.unwrap();
        }
        let stats = pool.stats();
        assert_eq!((stats.leases, stats.waiting, stats.in_use), (0, 0, 0), "{stats:?}");
        assert_eq!(stats.timed_out, 0);
        let served = served.load(Ordering::Relaxed);
        assert!(served > THREADS * TASKS * REQUESTS / 4, "{served} served: {stats:?}");
        assert!(far.most_open() <= 6 && stats.cancelled > 0, "{stats:?}");
        pool.close();
        timeout(Duration::from_mins(1), pool.closed()).await.unwrap();
        assert_eq!(far.open(), 0);
    });
}

#[test]
fn a_storm_of_requests_that_come_and_go_leaves_nothing_behind() {
    storm(1);
}

#[test]
fn a_storm_over_shared_connections_leaves_nothing_behind() {
    storm(3);
}
