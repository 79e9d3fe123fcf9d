//! The time of some workers, where workers of one queue come and go.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::flow::Monitor;

/// The time in which some workers take batches of a queue that outlives them: from its beginning until it is over.
///
/// It is announced first: whoever asks hears that the workers are there, and they take nothing yet.
#[derive(Debug, Default)]
pub struct Shift {
    announced: AtomicBool,
    begun: AtomicBool,
    over: AtomicBool,
    /// Workers that came before it began sleep here, and not where they would be woken for a batch in another's place.
    gate: Monitor<()>,
}

impl Shift {
    /// Notes that its workers are there; false where that was known, or it is over.
    pub fn announce(&self) -> bool {
        !self.is_over() && !self.announced.swap(true, Ordering::SeqCst)
    }

    /// Lets its workers take batches from here on.
    pub fn begin(&self) {
        let gate = self.gate.lock();
        self.begun.store(true, Ordering::SeqCst);
        drop(gate);
        self.gate.wake_all();
    }

    /// True once its workers are to take nothing more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Blocks a worker until it begins, or is over.
    pub(super) fn wait(&self) {
        if self.begun.load(Ordering::SeqCst) {
            return;
        }
        let mut gate = self.gate.lock();
        while !self.begun.load(Ordering::SeqCst) && !self.is_over() {
            gate = self.gate.wait(gate, None);
        }
    }

    pub(super) fn end(&self) {
        let gate = self.gate.lock();
        self.over.store(true, Ordering::SeqCst);
        drop(gate);
        self.gate.wake_all();
    }
}
