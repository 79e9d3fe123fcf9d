//! The far side of the owner's tests: connections in memory, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::super::{Condition, Connection, Connector, Pool, PoolSettings};
use crate::error::{Error, ErrorKind, Result};

/// A connection in memory.
pub(super) struct Wire {
    pub(super) far: Arc<Far>,
    pub(super) number: usize,
    /// Requests that it carries, as those who send them count.
    pub(super) carried: AtomicUsize,
    pub(super) usable: AtomicBool,
}

/// What the far side does, and what it has seen.
pub(super) struct Far {
    pub(super) connect_takes: Duration,
    pub(super) check_takes: Duration,
    pub(super) panics: AtomicBool,
    pub(super) refuses: AtomicBool,
    pub(super) capacity: AtomicUsize,
    pub(super) opened: AtomicUsize,
    pub(super) open: AtomicUsize,
    pub(super) most_open: AtomicUsize,
    pub(super) checks: AtomicUsize,
}

impl Default for Far {
    fn default() -> Self {
        Self {
            connect_takes: Duration::from_millis(10),
            check_takes: Duration::from_millis(1),
            panics: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            capacity: AtomicUsize::new(1),
            opened: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            checks: AtomicUsize::new(0),
        }
    }
}

impl Far {
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn most_open(&self) -> usize {
        self.most_open.load(Ordering::SeqCst)
    }

    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    pub(super) fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }
}

impl Connection for Wire {
    fn capacity(&self) -> usize {
        self.far.capacity.load(Ordering::SeqCst)
    }

    fn condition(&self) -> Condition {
        if self.usable.load(Ordering::SeqCst) { Condition::Usable } else { Condition::Closed }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.far.open.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) struct Dialer(pub(super) Arc<Far>);

impl Connector for Dialer {
    type Connection = Wire;

    async fn connect(&self) -> Result<Wire> {
        let far = &self.0;
        sleep(far.connect_takes).await;
        assert!(!far.panics.load(Ordering::SeqCst), "the connector panics");
        if far.refuses.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::ConnectFailed, "connection refused"));
        }
        let number = far.opened.fetch_add(1, Ordering::SeqCst);
        let open = far.open.fetch_add(1, Ordering::SeqCst) + 1;
        far.most_open.fetch_max(open, Ordering::SeqCst);
        let (carried, usable) = (AtomicUsize::new(0), AtomicBool::new(true));
        Ok(Wire { far: Arc::clone(far), number, carried, usable })
    }

    async fn check(&self, _connection: &Wire) -> Result<()> {
        self.0.checks.fetch_add(1, Ordering::SeqCst);
        sleep(self.0.check_takes).await;
        Ok(())
    }
}

pub(super) fn pool(far: &Arc<Far>, settings: PoolSettings) -> Pool<Dialer> {
    Pool::new("test", Dialer(Arc::clone(far)), settings, &Handle::current()).unwrap()
}

pub(super) fn sized(min_size: usize, max_size: usize) -> PoolSettings {
    PoolSettings { min_size, max_size, ..PoolSettings::default() }
}
