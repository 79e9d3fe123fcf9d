//! The owner on tokio's virtual time: who waits, what is opened in tasks, and what is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::super::{Condition, Connection, Connector, Place, Pool, PoolSettings};
use crate::error::{Error, ErrorKind, Result};

/// A connection in memory.
struct Line {
    world: Arc<World>,
    number: usize,
    condition: AtomicBool,
}

/// What the connector's other side does, and what it has seen.
struct World {
    connect_takes: Duration,
    refuses: AtomicBool,
    capacity: AtomicUsize,
    healthy: AtomicBool,
    opened: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    connecting: AtomicUsize,
    checks: AtomicUsize,
}

impl Default for World {
    fn default() -> Self {
        Self {
            connect_takes: Duration::from_millis(10),
            refuses: AtomicBool::new(false),
            capacity: AtomicUsize::new(1),
            healthy: AtomicBool::new(true),
            opened: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            connecting: AtomicUsize::new(0),
            checks: AtomicUsize::new(0),
        }
    }
}

impl World {
    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

impl Connection for Line {
    fn capacity(&self) -> usize {
        self.world.capacity.load(Ordering::SeqCst)
    }

    fn condition(&self) -> Condition {
        if self.condition.load(Ordering::SeqCst) { Condition::Usable } else { Condition::Closed }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.world.open.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Dialer(Arc<World>);

impl Connector for Dialer {
    type Connection = Line;

    async fn connect(&self) -> Result<Line> {
        self.0.connecting.fetch_add(1, Ordering::SeqCst);
        sleep(self.0.connect_takes).await;
        self.0.connecting.fetch_sub(1, Ordering::SeqCst);
        if self.0.refuses.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::ConnectFailed, "connection refused"));
        }
        let number = self.0.opened.fetch_add(1, Ordering::SeqCst);
        let open = self.0.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_open.fetch_max(open, Ordering::SeqCst);
        Ok(Line { world: Arc::clone(&self.0), number, condition: AtomicBool::new(true) })
    }

    async fn check(&self, connection: &Line) -> Result<()> {
        self.0.checks.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(1)).await;
        if self.0.healthy.load(Ordering::SeqCst) && connection.condition() == Condition::Usable {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::ReadFailed, "not ready"))
        }
    }
}

fn pool(world: &Arc<World>, settings: PoolSettings) -> Pool<Dialer> {
    Pool::new("test", Dialer(Arc::clone(world)), settings, &Handle::current()).unwrap()
}

fn small(min_size: usize, max_size: usize) -> PoolSettings {
    PoolSettings { min_size, max_size, ..PoolSettings::default() }
}

/// Lets every task go on until it waits for time or for another.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_opened_lent_and_lent_again() {
    let world = Arc::new(World::default());
    let pool = pool(&world, small(0, 2));
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
    assert_eq!(world.open(), 0);
    let error = pool.acquire(None, Place::Unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
