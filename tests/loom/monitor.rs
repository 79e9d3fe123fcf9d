//! `src/flow/monitor.rs` upon loom's lock and condition, for the code that waits on it.
//!
//! Time does not pass under loom. A wait for a change is for ever, so that a lost wake shows as a deadlock; a pause is
//! over at once, with the lock given back in between.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use loom::sync::{Condvar, Mutex, MutexGuard};

pub struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
}

pub struct Held<'a, T>(MutexGuard<'a, T>);

impl<T> Monitor<T> {
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new() }
    }

    pub fn lock(&self) -> Held<'_, T> {
        Held(self.value.lock().unwrap())
    }

    pub fn wait<'a>(&'a self, held: Held<'a, T>, _until: Option<Instant>) -> Held<'a, T> {
        Held(self.changed.wait(held.0).unwrap())
    }

    pub fn wait_ended<'a>(&'a self, held: Held<'a, T>, _until: Instant) -> Held<'a, T> {
        drop(held);
        loom::thread::yield_now();
        self.lock()
    }

    pub fn wake_one(&self) {
        self.changed.notify_one();
    }

    pub fn wake_all(&self) {
        self.changed.notify_all();
    }

    pub fn wake_ended(&self) {}
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
