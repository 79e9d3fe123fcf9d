//! A queue that asks for one wake per burst, however many entries the burst holds.

#[cfg(all(test, loom))]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};
#[cfg(not(all(test, loom)))]
use parking_lot::Mutex;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, Ordering};

/// Many producers, one consumer that sleeps in somebody else's event loop.
///
/// [`push`](BurstQueue::push) answers whether the consumer must be woken. It answers `true` once, until
/// [`drain`](BurstQueue::drain) has begun to take what is there, so a burst costs one wake.
pub struct BurstQueue<T> {
    entries: Mutex<Vec<T>>,
    /// True from the push that asked for a wake until the drain that answers it.
    armed: AtomicBool,
}

impl<T> BurstQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self { entries: Mutex::new(Vec::new()), armed: AtomicBool::new(false) }
    }

    /// Adds an entry; `true` says that the caller must wake the consumer.
    pub fn push(&self, entry: T) -> bool {
        self.lock().push(entry);
        !self.armed.swap(true, Ordering::AcqRel)
    }

    /// Takes everything that is there, in order, by swapping it into `taken`, which must be empty.
    ///
    /// The flag is cleared before the entries are taken: an entry pushed in between asks for a wake of its own
    /// and can never be left behind.
    pub fn drain(&self, taken: &mut Vec<T>) {
        self.armed.store(false, Ordering::Release);
        std::mem::swap(&mut *self.lock(), taken);
    }

    #[cfg(not(all(test, loom)))]
    fn lock(&self) -> parking_lot::MutexGuard<'_, Vec<T>> {
        self.entries.lock()
    }

    #[cfg(all(test, loom))]
    fn lock(&self) -> loom::sync::MutexGuard<'_, Vec<T>> {
        self.entries.lock().unwrap()
    }
}

impl<T> Default for BurstQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_burst_asks_for_one_wake_and_keeps_its_order() {
        let queue = BurstQueue::new();
        assert!(queue.push(1));
        assert!(!queue.push(2));
        let mut taken = Vec::new();
        queue.drain(&mut taken);
        assert_eq!(taken, [1, 2]);
        assert!(queue.push(3));
    }
}

/// Every interleaving of two producers and one consumer: nothing is lost and the consumer is always told.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::{Arc, atomic::AtomicUsize};
    use loom::thread;

    #[test]
    fn no_entry_is_left_without_a_wake() {
        loom::model(|| {
            let queue = Arc::new(BurstQueue::new());
            let wakes = Arc::new(AtomicUsize::new(0));
            let producers: Vec<_> = (0..2)
                .map(|name| {
                    let (queue, wakes) = (queue.clone(), wakes.clone());
                    thread::spawn(move || {
                        if queue.push(name) {
                            wakes.fetch_add(1, Ordering::AcqRel);
                        }
                    })
                })
                .collect();
            let mut seen = Vec::new();
            // The consumer runs only when it was woken, as an event loop's reader does.
            if wakes.swap(0, Ordering::AcqRel) > 0 {
                queue.drain(&mut seen);
            }
            for producer in producers {
                producer.join().unwrap();
            }
            if wakes.swap(0, Ordering::AcqRel) > 0 {
                let mut rest = Vec::new();
                queue.drain(&mut rest);
                seen.append(&mut rest);
            }
            seen.sort_unstable();
            assert_eq!(seen, [0, 1], "an entry was left behind without a wake");
        });
    }
}
