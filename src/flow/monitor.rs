//! State that threads wait on.
//!
//! It stands on the standard library's lock and condition, which keep everything inside themselves. `parking_lot` keeps
//! its sleeping threads in a table of the process, which a forked child inherits with threads that it does not have: the
//! first thread that the child starts would be given their memory, and the table would point into it.
#![allow(
    clippy::disallowed_types,
    reason = "see above: a thread that sleeps here must not crash a forked child"
)]

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// A value behind a lock, and threads that wait for it to change.
#[derive(Debug, Default)]
pub struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
    /// For threads that wait for an end, so that they are not woken for each piece of work.
    ended: Condvar,
}

/// The lock, held.
#[derive(Debug)]
pub struct Held<'a, T>(MutexGuard<'a, T>);

impl<T> Monitor<T> {
    /// A value that nobody waits for yet.
    pub const fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new(), ended: Condvar::new() }
    }

    /// Takes the lock. A thread that panicked while it held the lock does not poison it for others.
    pub fn lock(&self) -> Held<'_, T> {
        Held(self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Option<Held<'_, T>> {
        match self.value.try_lock() {
            Ok(held) => Some(Held(held)),
            Err(TryLockError::Poisoned(held)) => Some(Held(held.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Gives the lock back, sleeps until [`wake_one`](Self::wake_one) or `until`, and takes it again.
    pub fn wait<'a>(&'a self, held: Held<'a, T>, until: Option<Instant>) -> Held<'a, T> {
        wait(&self.changed, held, until)
    }

    /// As [`wait`](Self::wait), for [`wake_ended`](Self::wake_ended).
    pub fn wait_ended<'a>(&'a self, held: Held<'a, T>, until: Instant) -> Held<'a, T> {
        wait(&self.ended, held, Some(until))
    }

    /// Wakes one thread that waits for a change.
    pub fn wake_one(&self) {
        self.changed.notify_one();
    }

    /// Wakes every thread that waits for a change.
    pub fn wake_all(&self) {
        self.changed.notify_all();
    }

    /// Wakes every thread that waits for the end.
    pub fn wake_ended(&self) {
        self.ended.notify_all();
    }
}

fn wait<'a, T>(condition: &Condvar, held: Held<'a, T>, until: Option<Instant>) -> Held<'a, T> {
    let Some(until) = until else {
        return Held(condition.wait(held.0).unwrap_or_else(PoisonError::into_inner));
    };
    let left = until.saturating_duration_since(Instant::now());
    if left == Duration::ZERO {
        return held;
    }
    Held(condition.wait_timeout(held.0, left).unwrap_or_else(PoisonError::into_inner).0)
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_waiting_thread_hears_of_a_change() {
        let monitor = Arc::new(Monitor::new(0));
        let other = Arc::clone(&monitor);
        let waiter = std::thread::spawn(move || {
            let mut held = other.lock();
            while *held == 0 {
                held = other.wait(held, None);
            }
            *held
        });
        *monitor.lock() = 7;
        monitor.wake_all();
        assert_eq!(waiter.join().unwrap(), 7);
    }

    #[test]
    fn a_wait_ends_when_its_time_has_come() {
        let monitor = Monitor::new(());
        let until = Instant::now() + Duration::from_millis(5);
        let held = monitor.wait_ended(monitor.lock(), until);
        assert!(monitor.try_lock().is_none());
        drop(held);
        assert!(Instant::now() >= until);
    }
}
