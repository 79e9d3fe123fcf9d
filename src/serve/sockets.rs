//! How many sockets of a door are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Sockets of a door that are open: its connections, and the one that listens.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Sockets>);

#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) connections: AtomicUsize,
    pub(super) listeners: AtomicUsize,
}

impl Connections {
    /// Blocks until none is open and the port is free again, for at most `limit`; answers whether that came.
    pub fn wait_none(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.is_none()
    }

    pub(super) fn count(&self) -> usize {
        self.0.connections.load(Ordering::Acquire)
    }

    fn is_none(&self) -> bool {
        // The listener first: it may hand over a connection as its last act.
        self.0.listeners.load(Ordering::Acquire) == 0 && self.count() == 0
    }

    pub(super) fn one_more(&self, which: fn(&Sockets) -> &AtomicUsize) -> Counted {
        which(&self.0).fetch_add(1, Ordering::AcqRel);
        Counted { of: self.clone(), which }
    }
}

/// A socket that is counted as long as it lives.
pub(super) struct Counted {
    of: Connections,
    which: fn(&Sockets) -> &AtomicUsize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.of.0).fetch_sub(1, Ordering::AcqRel);
    }
}
