//! The owner on tokio's virtual time: who waits, what is opened in tasks, and what is given back.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::{Place, PoolSettings, Retired};
use super::far::{Far, pool, sized};
use crate::error::ErrorKind;

const NOWHERE: Place = Place::Unknown;

/// Lets every task go on until it waits for time or for another.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Goes on with a future by one step, which must not end it.
fn begin<F: Future>(future: std::pin::Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_opened_lent_and_lent_again() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(0, 2));
    assert!(pool.try_acquire(&Place::Unknown).is_none());
    let lease = pool.acquire(None, "here".into()).await.unwrap();
    assert!(!lease.is_reused());
    assert_eq!(lease.connection().number, 0);
    lease.finish(true, None);
    let lease = pool.try_acquire(&Place::Unknown).unwrap();
    assert!(lease.is_reused());
    lease.finish(true, None);
    let stats = pool.stats();
    assert_eq!((stats.size, stats.idle, stats.created, stats.reused, stats.waited), (1, 1, 1, 1, 1));
    pool.close();
    pool.closed().await;
    assert_eq!(far.open(), 0);
    let error = pool.acquire(None, Place::Unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_burst_opens_no_more_than_max_size_and_every_request_is_served() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, PoolSettings { acquire_timeout: None, ..sized(0, 8) });
    let mut requests = JoinSet::new();
    for _ in 0..1_000 {
        let pool = pool.clone();
        requests.spawn(async move {
            let lease = pool.acquire(None, NOWHERE).await.unwrap();
            sleep(Duration::from_millis(1)).await;
            lease.finish(true, None);
        });
    }
    while let Some(ended) = requests.join_next().await {
        ended.unwrap();
    }
    let stats = pool.stats();
    assert_eq!((far.most_open(), far.opened(), stats.acquired, stats.waiting), (8, 8, 1_000, 0));
    assert!(stats.reuse_rate() > 0.99 && stats.wait_max >= Duration::from_millis(100), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_the_earlier_of_its_two_limits_and_leaves_nothing_behind() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(0, 1));
    let held = pool.acquire(None, NOWHERE).await.unwrap();
    for (until, after) in [(None, 2_000), (Some(500), 500), (Some(60_000), 2_000), (Some(0), 0)] {
        let start = Instant::now();
        let until = until.map(|millis| start + Duration::from_millis(millis));
        let error = pool.acquire(until, NOWHERE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AcquireTimeout);
        assert_eq!(start.elapsed().as_millis(), after, "{error}");
    }
    assert_eq!((pool.stats().waiting, pool.stats().timed_out), (0, 4));
    held.finish(true, None);
    assert!(pool.try_acquire(&NOWHERE).is_some());
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_while_waiting_gives_the_place_in_line_back() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(0, 1));
    let held = pool.acquire(None, NOWHERE).await.unwrap();
    {
        let mut first = pin!(pool.acquire(None, NOWHERE));
        begin(first.as_mut());
        assert_eq!(pool.stats().waiting, 1);
    }
    assert_eq!((pool.stats().waiting, pool.stats().cancelled), (0, 1));
    held.finish(true, None);
    assert_eq!(pool.stats().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_between_grant_and_receipt_hands_the_connection_on() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(0, 1));
    let held = pool.acquire(None, NOWHERE).await.unwrap();
    let mut second = pin!(pool.acquire(None, NOWHERE));
    {
        let mut first = pin!(pool.acquire(None, NOWHERE));
        begin(first.as_mut());
        begin(second.as_mut());
        held.finish(true, None);
        assert_eq!((pool.stats().leases, pool.stats().waiting), (1, 1), "the first was given it");
    }
    let lease = timeout(Duration::from_millis(1), second).await.unwrap().unwrap();
    assert_eq!((lease.connection().number, far.opened()), (0, 1), "nobody had touched it");
    lease.finish(true, None);
}

#[tokio::test(start_paused = true)]
async fn a_connect_outlives_the_request_that_asked_for_it() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(0, 1));
    let left = timeout(Duration::from_millis(5), pool.acquire(None, NOWHERE)).await;
    assert!(left.is_err());
    sleep(Duration::from_millis(10)).await;
    assert_eq!((pool.stats().idle, far.opened()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_fails_or_panics_is_told_to_those_who_wait() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(2, 4));
    far.refuses.store(true, Ordering::SeqCst);
    let start = Instant::now();
    for _ in 0..10 {
        let error = pool.acquire(None, NOWHERE).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::ConnectFailed, "connection refused"));
    }
    assert!(start.elapsed() < Duration::from_millis(200), "nobody waited for a pause");
    far.panics.store(true, Ordering::SeqCst);
    let error = pool.acquire(None, NOWHERE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    far.panics.store(false, Ordering::SeqCst);
    far.refuses.store(false, Ordering::SeqCst);
    pool.acquire(None, NOWHERE).await.unwrap().finish(true, None);
    let stats = pool.stats();
    assert_eq!((stats.failed, stats.refused, stats.created, stats.connecting), (11, 11, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_dropped_in_the_middle_closes_its_connection() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(0, 1));
    drop(pool.acquire(None, NOWHERE).await.unwrap());
    assert_eq!((far.open(), pool.stats().retired_for(Retired::Abandoned)), (0, 1));
    pool.acquire(None, NOWHERE).await.unwrap().finish(false, None);
    assert_eq!((far.open(), pool.stats().retired_for(Retired::Spent)), (0, 1));
    pool.acquire(None, NOWHERE).await.unwrap().untouched();
    assert_eq!(far.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_went_stale_is_not_lent() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(0, 1));
    let lease = pool.acquire(None, NOWHERE).await.unwrap();
    let wire = lease.shared();
    lease.finish(true, None);
    wire.usable.store(false, Ordering::SeqCst);
    drop(wire);
    let lease = pool.acquire(None, NOWHERE).await.unwrap();
    assert_eq!((lease.connection().number, lease.is_reused(), far.open()), (1, false, 1));
}

#[tokio::test(start_paused = true)]
async fn the_pool_is_maintained_without_anybody_asking_it() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, PoolSettings { held_too_long: Some(Duration::from_mins(1)), ..sized(1, 4) });
    let leases = [pool.acquire(None, NOWHERE).await.unwrap(), pool.acquire(None, NOWHERE).await.unwrap()];
    for lease in leases {
        lease.finish(true, None);
    }
    sleep(Duration::from_secs(29)).await;
    assert_eq!(far.checks(), 0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((far.checks(), far.open()), (2, 2));
    sleep(Duration::from_secs(270)).await;
    assert_eq!((far.open(), pool.stats().retired_for(Retired::Idle)), (1, 1));
    sleep(Duration::from_mins(5)).await;
    assert_eq!(
        (pool.stats().retired_for(Retired::Age), far.open(), far.opened()),
        (1, 1, 3),
        "it was replaced"
    );
    let held = pool.acquire(None, "main.py:7".into()).await.unwrap();
    sleep(Duration::from_secs(61)).await;
    assert_eq!(pool.stats().held_too_long, 1);
    assert_eq!(pool.explain().held[0].place, "main.py:7".into());
    held.finish(true, None);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_never_ends_has_failed() {
    let far = Arc::new(Far { check_takes: Duration::from_hours(1), ..Far::default() });
    let pool = pool(&far, sized(0, 4));
    pool.acquire(None, NOWHERE).await.unwrap().finish(true, None);
    sleep(Duration::from_secs(34)).await;
    assert_eq!((far.checks(), far.open()), (1, 1));
    sleep(Duration::from_secs(2)).await;
    assert_eq!((far.open(), pool.stats().checks_failed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn closing_refuses_those_who_wait_and_lets_leases_end() {
    let far = Arc::new(Far::default());
    let pool = pool(&far, sized(0, 2));
    let held = pool.acquire(None, NOWHERE).await.unwrap();
    let idle = pool.acquire(None, NOWHERE).await.unwrap();
    let mut waiting = pin!(pool.acquire(None, NOWHERE));
    begin(waiting.as_mut());
    pool.close();
    assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(pool.try_acquire(&NOWHERE).is_none() && pool.is_closed());
    idle.finish(true, None);
    assert_eq!(far.open(), 1);
    assert!(timeout(Duration::from_mins(1), pool.closed()).await.is_err(), "one is still held");
    held.finish(true, None);
    timeout(Duration::from_secs(1), pool.closed()).await.unwrap();
    pool.close();
    assert_eq!(far.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_pool_that_is_dropped() {
    let far = Arc::new(Far { connect_takes: Duration::from_secs(5), ..Far::default() });
    let pool = pool(&far, sized(0, 2));
    let _ = timeout(Duration::from_millis(1), pool.acquire(None, NOWHERE)).await;
    settle().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 2, "a connect, and the one that sleeps");
    drop(pool.clone());
    assert!(!pool.is_closed());
    drop(pool);
    settle().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    assert_eq!(Arc::strong_count(&far), 1);
}
