//! The time of some workers, where workers of one queue come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use super::turn::Tasks;
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
    gate: Monitor<Tasks>,
}

impl Shift {
    /// Notes that its workers are there; false where that was known, or it is over.
    pub fn announce(&self) -> bool {
        !self.is_over() && !self.announced.swap(true, Ordering::SeqCst)
    }

    /// Lets its workers take batches from here on.
    pub fn begin(&self) {
        self.open(&self.begun);
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

    /// The same for a task: true once it begins, or is over; else the task is woken then.
    pub(super) fn has_come(&self, waker: &Waker) -> bool {
        if self.begun.load(Ordering::SeqCst) {
            return true;
        }
        let mut gate = self.gate.lock();
        let has_come = self.begun.load(Ordering::SeqCst) || self.is_over();
        if !has_come && !gate.iter().any(|known| known.will_wake(waker)) {
            gate.push(waker.clone());
        }
        has_come
    }

    pub(super) fn end(&self) {
        self.open(&self.over);
    }

    /// Notes what whoever waits before it begins has waited for.
    fn open(&self, news: &AtomicBool) {
        let mut gate = self.gate.lock();
        news.store(true, Ordering::SeqCst);
        let tasks = std::mem::take(&mut *gate);
        drop(gate);
        self.gate.wake_all();
        tasks.into_iter().for_each(Waker::wake);
    }
}
