//! A bell for whoever waits until something changes that nobody waits for otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Monitor;

/// A bell. To ring it costs the load of an atomic where nobody listens.
#[derive(Debug)]
pub struct Bell {
    rung: Monitor<u64>,
    told: watch::Sender<()>,
    listening: AtomicUsize,
}

/// Somebody who hears every ring from the moment on that this was made.
#[derive(Debug)]
pub struct Listener {
    bell: Arc<Bell>,
    seen: u64,
    told: watch::Receiver<()>,
}

impl Bell {
    /// A bell that nobody listens to.
    pub fn new() -> Arc<Self> {
        let (rung, told) = (Monitor::new(0), watch::Sender::new(()));
        Arc::new(Self { rung, told, listening: AtomicUsize::new(0) })
    }

    /// Wakes whoever listens. What they are to see must have happened before, in the one order of all such changes.
    pub fn ring(&self) {
        if self.listening.load(Ordering::SeqCst) > 0 {
            *self.rung.lock() += 1;
            self.rung.wake_all();
            self.told.send_replace(());
        }
    }

    /// Hears every ring from here on: whoever listens looks once more at what he waits for before he waits.
    pub fn listen(self: &Arc<Self>) -> Listener {
        self.listening.fetch_add(1, Ordering::SeqCst);
        Listener { bell: Arc::clone(self), seen: *self.rung.lock(), told: self.told.subscribe() }
    }
}

impl Listener {
    /// Blocks until the bell rings, for at most `limit`.
    pub fn wait(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut rung = self.bell.rung.lock();
        while *rung == self.seen && Instant::now() < end {
            rung = self.bell.rung.wait(rung, Some(end));
        }
    }

    /// As [`wait`](Self::wait), without blocking; on a runtime.
    pub async fn heard(mut self, limit: Duration) {
        // Either way there is something to look at.
        let _ = tokio::time::timeout(limit, self.told.changed()).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.bell.listening.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    #[test]
    fn a_ring_between_listening_and_waiting_is_heard() {
        let bell = Bell::new();
        bell.ring();
        let listener = bell.listen();
        bell.ring();
        let began = Instant::now();
        listener.wait(PATIENCE);
        assert!(began.elapsed() < PATIENCE);
    }

    #[test]
    fn who_sleeps_is_woken() {
        let bell = Bell::new();
        let listener = bell.listen();
        let ringer = Arc::clone(&bell);
        let thread = std::thread::spawn(move || ringer.ring());
        listener.wait(PATIENCE);
        thread.join().unwrap();
        drop(listener);
        assert_eq!(bell.listening.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_task_hears_it_too() {
        let bell = Bell::new();
        let listener = bell.listen();
        bell.ring();
        listener.heard(PATIENCE).await;
    }
}
