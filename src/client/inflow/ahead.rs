//! How far a stream is read ahead of whoever takes it, and all streams of a client together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What a stream is read ahead at first.
const FIRST_AHEAD: usize = 64 * 1024;
/// What a failure shows of a body at most.
const MOST_KEPT: usize = 1024 * 1024;
/// What a failure shows of a body at least, where there was as much.
const LEAST_KEPT: usize = 8 * 1024;
/// What all streams keep together for that, as far as the least allows.
const ALL_KEPT: usize = 4 * 1024 * 1024;

/// How much may lie in memory of bodies that are read as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// Bytes of one stream at most that nobody has taken yet.
    pub window: usize,
    /// Bytes of all streams of the client together. Each of them may have one portion beyond that, so that none stands
    /// still for others.
    pub memory: usize,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self { window: 1 << 20, memory: 10 << 20 }
    }
}

/// What all streams of a client hold.
#[derive(Debug)]
pub struct StreamMemory {
    settings: StreamSettings,
    held: AtomicUsize,
    streams: AtomicUsize,
    /// Told when there is room again after there was none.
    freed: Notify,
}

impl StreamMemory {
    /// Of no stream yet.
    pub fn new(settings: StreamSettings) -> Arc<Self> {
        let [held, streams] = [0, 0].map(AtomicUsize::new);
        Arc::new(Self { settings, held, streams, freed: Notify::new() })
    }

    /// Bytes that nobody has taken yet.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Becomes ready when there is room again.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Wakes every stream that waits for room.
    pub(super) fn tell(&self) {
        self.freed.notify_waiters();
    }

    fn is_spent(&self) -> bool {
        self.held() >= self.settings.memory
    }

    /// How many bytes of each body a failure is to show.
    fn kept(&self) -> usize {
        (ALL_KEPT / self.streams.load(Ordering::Relaxed).max(1)).clamp(LEAST_KEPT, MOST_KEPT)
    }
}

/// One stream's share.
#[derive(Debug)]
pub(super) struct Ahead {
    memory: Arc<StreamMemory>,
    /// Bytes that nobody has taken yet.
    held: usize,
    /// How many there may be just now.
    limit: usize,
    is_paused: bool,
}

impl Ahead {
    pub(super) fn new(memory: &Arc<StreamMemory>) -> Self {
        memory.streams.fetch_add(1, Ordering::Relaxed);
        let limit = FIRST_AHEAD.min(memory.settings.window);
        Self { memory: Arc::clone(memory), held: 0, limit, is_paused: false }
    }

    pub(super) fn memory(&self) -> &Arc<StreamMemory> {
        &self.memory
    }

    /// How many bytes of the body a failure is to show.
    pub(super) fn kept(&self) -> usize {
        self.memory.kept()
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.held += bytes;
        self.memory.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives bytes back that were taken; true where the stream waits for that and can go on.
    pub(super) fn give_back(&mut self, bytes: usize) -> bool {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        let before = self.memory.held.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.memory.settings.memory && before - bytes < self.memory.settings.memory {
            self.memory.tell();
        }
        if !self.is_paused {
            return false;
        }
        if self.held == 0 {
            // Whoever takes was faster than the pause: it is read further ahead from now on.
            self.limit = (self.limit * 2).min(self.memory.settings.window);
        }
        self.held <= self.limit / 2
    }

    /// Whether no more is to be read.
    pub(super) fn is_full(&self) -> bool {
        self.held >= self.limit || self.held > 0 && self.memory.is_spent()
    }

    pub(super) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.memory.streams.fetch_sub(1, Ordering::Relaxed);
        self.give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(window: usize, memory: usize) -> Arc<StreamMemory> {
        StreamMemory::new(StreamSettings { window, memory })
    }

    #[test]
    fn a_stream_is_read_further_ahead_where_its_reader_is_fast() {
        let memory = memory(200_000, 1 << 30);
        let mut ahead = Ahead::new(&memory);
        let mut limits = Vec::new();
        for _ in 0..4 {
            ahead.add(ahead.limit);
            assert!(ahead.is_full());
            ahead.pause(true);
            assert!(!ahead.give_back(ahead.limit / 4), "it is fuller than half");
            assert!(ahead.give_back(ahead.limit));
            ahead.pause(false);
            limits.push(ahead.limit);
        }
        assert_eq!(limits, [131_072, 200_000, 200_000, 200_000]);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn all_streams_together_hold_no_more_than_they_may_and_each_of_them_something() {
        let memory = memory(1 << 20, 1000);
        let (mut one, mut other) = (Ahead::new(&memory), Ahead::new(&memory));
        one.add(1000);
        assert!(one.is_full() && !other.is_full());
        other.add(10);
        assert!(other.is_full());
        one.give_back(100);
        assert!(!one.is_full() && !other.is_full());
        drop((one, other));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn many_streams_show_less_of_each_body() {
        let memory = memory(1 << 20, 1 << 20);
        let streams: Vec<_> = (0..40).map(|_| Ahead::new(&memory)).collect();
        assert_eq!(streams[0].kept(), (4 << 20) / 40);
        drop(streams);
        assert_eq!(Ahead::new(&memory).kept(), 1 << 20);
    }
}
