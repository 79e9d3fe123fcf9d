//! A connection in memory, for the decisions alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::super::{Condition, Connection};

/// The other end of a [`Fake`].
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) number: usize,
    capacity: AtomicUsize,
    condition: AtomicU8,
}

impl Peer {
    pub(super) fn new(number: usize, capacity: usize) -> Arc<Self> {
        Arc::new(Self { number, capacity: AtomicUsize::new(capacity), condition: AtomicU8::new(0) })
    }

    pub(super) fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    pub(super) fn drain(&self) {
        self.condition.store(1, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.condition.store(2, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct Fake(pub(super) Arc<Peer>);

impl Connection for Fake {
    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn condition(&self) -> Condition {
        match self.0.condition.load(Ordering::Relaxed) {
            0 => Condition::Usable,
            1 => Condition::Draining,
            _ => Condition::Closed,
        }
    }
}
