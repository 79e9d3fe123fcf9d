//! The time of some workers, where workers of one queue come and go.

use std::sync::atomic::{AtomicBool, Ordering};

/// The time in which some workers take batches of a queue that outlives them: from its beginning until it is over.
#[derive(Debug, Default)]
pub struct Shift {
    begun: AtomicBool,
    over: AtomicBool,
}

impl Shift {
    /// Notes that its workers are there; false where they were already, or it is over.
    pub fn begin(&self) -> bool {
        !self.is_over() && !self.begun.swap(true, Ordering::SeqCst)
    }

    /// True once its workers were there.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// True once its workers are to take nothing more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}
