//! A channel from one producer to one reader, bounded by bytes, that never holds its producer up.
//!
//! The producer is a batch that many readers wait for: it asks [`Sender::has_room`] and leaves out whoever is too slow.
//! Nobody is woken here: a send hands back whom to wake, so that one message wakes the readers of a whole step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::Bell;

/// What a stream does whose reader is too slow for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowReader {
    /// Its producer pauses until the reader has made room.
    #[default]
    Pause,
    /// What the reader has not taken is kept, as far as the memory of all streams goes; then the producer pauses.
    Buffer,
    /// What has no room is left out, and counted.
    Drop,
}

impl SlowReader {
    /// The policy of that name: `pause`, `buffer` or `drop`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "pause" => Some(Self::Pause),
            "buffer" => Some(Self::Buffer),
            "drop" => Some(Self::Drop),
            _ => None,
        }
    }
}

/// The memory that all streams of a process share, and what came of sharing it.
#[derive(Debug)]
pub struct StreamMemory {
    limit: usize,
    held: AtomicUsize,
    open: AtomicUsize,
    pauses: AtomicU64,
    dropped: AtomicU64,
}

impl StreamMemory {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        let (held, open) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limit, held, open, pauses: AtomicU64::new(0), dropped: AtomicU64::new(0) })
    }

    /// Bytes that were sent and not taken yet, of all streams.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Streams that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How often a producer paused for its reader.
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// Pieces that were left out because their reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts a producer that pauses for a reader elsewhere.
    pub fn count_pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    /// What one stream may hold now: a part of what is free, so that a few who hold much leave the others room; never
    /// less than a quarter of its fair share, so that nobody stands still because of others.
    fn share(&self, part: usize) -> usize {
        let free = self.limit.saturating_sub(self.held());
        (free / part).max(self.limit / (4 * self.open().max(1)))
    }
}

/// How much the streams of a process may hold, and what becomes of a slow reader.
#[derive(Debug, Clone)]
pub struct StreamLimits {
    /// Bytes that one stream may hold.
    pub window: usize,
    /// What all of them share.
    pub memory: Arc<StreamMemory>,
    /// What becomes of one whose reader is too slow.
    pub slow_reader: SlowReader,
}

impl StreamLimits {
    /// Bytes that one stream may hold unless a setting says otherwise.
    pub const WINDOW: usize = 1 << 20;
    /// Bytes that all streams may hold unless a setting says otherwise.
    pub const MEMORY: usize = 10 << 20;

    fn allowed(&self) -> usize {
        match self.slow_reader {
            SlowReader::Pause | SlowReader::Drop => self.window.min(self.memory.share(4)),
            SlowReader::Buffer => self.memory.share(1),
        }
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        let memory = StreamMemory::new(Self::MEMORY);
        Self { window: Self::WINDOW, memory, slow_reader: SlowReader::Pause }
    }
}

/// What a piece takes in memory until it is taken, in bytes.
pub trait Weight {
    /// That many bytes.
    fn weight(&self) -> usize;
}

#[derive(Debug)]
struct Shared<T, E> {
    state: Mutex<State<T, E>>,
    /// Bytes that were sent and not taken yet.
    held: AtomicUsize,
    left: AtomicBool,
    paused: AtomicBool,
    limits: StreamLimits,
    /// Rung when a reader that held its producer up has made room, or has left.
    bell: Arc<Bell>,
    /// A producer that is a task of its own, and waits for its reader.
    producer: Mutex<Option<Waker>>,
}

#[derive(Debug)]
struct State<T, E> {
    pieces: VecDeque<T>,
    end: Option<E>,
    /// True once nothing more comes, with an end or without one.
    ended: bool,
    reader: Option<Waker>,
}

/// The producer's end. Dropping it ends the stream without an end.
#[derive(Debug)]
pub struct Sender<T: Weight, E>(Arc<Shared<T, E>>);

/// The reader's end. Dropping it is how a reader leaves.
#[derive(Debug)]
pub struct Receiver<T: Weight, E> {
    shared: Arc<Shared<T, E>>,
    /// Taken from the channel, and not by the reader yet.
    ready: VecDeque<T>,
    /// Bytes that the reader took, and that the producer was not told of yet.
    taken: usize,
    end: Option<E>,
    ended: bool,
}

/// A channel within those limits. `bell` is rung when a reader that held its producer up has made room, or has left.
pub fn channel<T: Weight, E>(limits: StreamLimits, bell: Arc<Bell>) -> (Sender<T, E>, Receiver<T, E>) {
    limits.memory.open.fetch_add(1, Ordering::Relaxed);
    let state = State { pieces: VecDeque::new(), end: None, ended: false, reader: None };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        held: AtomicUsize::new(0),
        left: AtomicBool::new(false),
        paused: AtomicBool::new(false),
        limits,
        bell,
        producer: Mutex::default(),
    });
    let receiver =
        Receiver { shared: Arc::clone(&shared), ready: VecDeque::new(), taken: 0, end: None, ended: false };
    (Sender(shared), receiver)
}

impl<T: Weight, E> Sender<T, E> {
    /// Sends a piece; answers whom to wake, if anybody sleeps. A reader that has left is sent nothing.
    #[must_use]
    pub fn send(&self, piece: T) -> Option<Waker> {
        let shared = &*self.0;
        let weight = piece.weight();
        if shared.limits.slow_reader == SlowReader::Drop && !shared.has_room_for(weight) {
            shared.limits.memory.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let mut state = shared.state.lock();
        if shared.left.load(Ordering::Relaxed) {
            return None;
        }
        shared.held.fetch_add(weight, Ordering::Relaxed);
        shared.limits.memory.held.fetch_add(weight, Ordering::Relaxed);
        state.pieces.push_back(piece);
        state.reader.take()
    }

    /// Ends the stream after what was sent; answers whom to wake.
    #[must_use]
    pub fn end(self, end: E) -> Option<Waker> {
        let mut state = self.0.state.lock();
        state.end = Some(end);
        state.ended = true;
        state.reader.take()
    }

    /// False where the producer is to pause until [`has_resumed`](Self::has_resumed).
    pub fn has_room(&self) -> bool {
        self.0.limits.slow_reader == SlowReader::Drop || self.0.has_room_for(0)
    }

    /// Notes that the producer pauses: its bell is rung when there is room again.
    pub fn pause(&self) {
        self.0.limits.memory.count_pause();
        self.0.paused.store(true, Ordering::SeqCst);
    }

    /// True where a producer that paused may go on: the reader has taken half of what it had been sent at least.
    pub fn has_resumed(&self) -> bool {
        let resumed = self.0.held.load(Ordering::SeqCst) <= self.0.limits.allowed() / 2;
        if resumed {
            self.0.paused.store(false, Ordering::Relaxed);
        }
        resumed
    }

    /// Bytes that were sent and not taken yet.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// True where the reader has left.
    pub fn is_left(&self) -> bool {
        self.0.left.load(Ordering::SeqCst)
    }

    /// Ready once the reader has left: for a producer that is a task of its own.
    pub fn poll_left(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_left() {
            self.0.wake_producer_by(context.waker());
        }
        if self.is_left() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready once a producer that [paused](Self::pause) may go on, or the reader has left.
    pub fn poll_resumed(&self, context: &Context<'_>) -> Poll<()> {
        self.0.wake_producer_by(context.waker());
        if self.is_left() || self.has_resumed() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<T: Weight, E> Drop for Sender<T, E> {
    fn drop(&mut self) {
        let sleeper = {
            let mut state = self.0.state.lock();
            let ended = std::mem::replace(&mut state.ended, true);
            if ended { None } else { state.reader.take() }
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl<T, E> Shared<T, E> {
    fn has_room_for(&self, more: usize) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        held == 0 || held + more < self.limits.allowed()
    }

    fn release(&self, taken: usize) {
        self.held.fetch_sub(taken, Ordering::SeqCst);
        self.limits.memory.held.fetch_sub(taken, Ordering::Relaxed);
        if self.paused.load(Ordering::SeqCst) {
            self.bell.ring();
            self.wake_producer();
        }
    }

    /// The task that is woken when a paused producer has room again, and when the reader leaves.
    fn wake_producer_by(&self, waker: &Waker) {
        let mut producer = self.producer.lock();
        match &mut *producer {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn wake_producer(&self) {
        let waiting = self.producer.lock().take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl<T: Weight, E> Receiver<T, E> {
    /// The next piece, or `None` at the end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.ready.is_empty() {
            self.tell();
            if self.ended {
                return Poll::Ready(None);
            }
            let mut state = self.shared.state.lock();
            if state.pieces.is_empty() {
                if !state.ended {
                    match &mut state.reader {
                        Some(reader) => reader.clone_from(context.waker()),
                        none => *none = Some(context.waker().clone()),
                    }
                    return Poll::Pending;
                }
                self.ended = true;
                self.end = state.end.take();
                return Poll::Ready(None);
            }
            std::mem::swap(&mut state.pieces, &mut self.ready);
        }
        let piece = self.ready.pop_front();
        self.taken += piece.as_ref().map_or(0, Weight::weight);
        // Told in larger parts: the counters belong to another thread's cache.
        if self.taken >= self.shared.limits.window / 8 {
            self.tell();
        }
        Poll::Ready(piece)
    }

    /// What the stream ended with, once, after the last piece; `None` where its producer was dropped.
    pub fn end(&mut self) -> Option<E> {
        self.end.take()
    }

    fn tell(&mut self) {
        if self.taken > 0 {
            self.shared.release(std::mem::take(&mut self.taken));
        }
    }
}

impl<T: Weight, E> Drop for Receiver<T, E> {
    fn drop(&mut self) {
        let pieces = {
            let mut state = self.shared.state.lock();
            self.shared.left.store(true, Ordering::SeqCst);
            state.reader = None;
            std::mem::take(&mut state.pieces)
        };
        drop(pieces);
        let memory = &self.shared.limits.memory;
        let held = self.shared.held.swap(0, Ordering::SeqCst);
        memory.held.fetch_sub(held, Ordering::Relaxed);
        memory.open.fetch_sub(1, Ordering::Relaxed);
        if self.shared.paused.load(Ordering::SeqCst) {
            self.shared.bell.ring();
        }
        self.shared.wake_producer();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Heavy(usize);

    impl Weight for Heavy {
        fn weight(&self) -> usize {
            self.0
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn limits(window: usize, memory: usize, slow_reader: SlowReader) -> StreamLimits {
        StreamLimits { window, memory: StreamMemory::new(memory), slow_reader }
    }

    fn open(limits: &StreamLimits) -> (Sender<Heavy, &'static str>, Receiver<Heavy, &'static str>) {
        channel(limits.clone(), Bell::new())
    }

    fn poll(receiver: &mut Receiver<Heavy, &'static str>) -> Poll<Option<usize>> {
        let polled = receiver.poll_next(&mut Context::from_waker(Waker::noop()));
        polled.map(|piece| piece.map(|Heavy(weight)| weight))
    }

    #[test]
    fn pieces_come_in_order_and_then_the_end() {
        let (sender, mut receiver) = open(&StreamLimits::default());
        for weight in 1..=3 {
            assert!(sender.send(Heavy(weight)).is_none());
        }
        assert_eq!(poll(&mut receiver), Poll::Ready(Some(1)));
        assert!(sender.send(Heavy(4)).is_none());
        assert!(sender.end("done").is_none());
        for weight in 2..=4 {
            assert_eq!(poll(&mut receiver), Poll::Ready(Some(weight)));
        }
        assert_eq!(poll(&mut receiver), Poll::Ready(None));
        assert_eq!((receiver.end(), receiver.end()), (Some("done"), None));
        assert_eq!(poll(&mut receiver), Poll::Ready(None));
    }

    #[test]
    fn a_reader_that_sleeps_is_handed_back_once() {
        let (sender, mut receiver) = open(&StreamLimits::default());
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        assert!(receiver.poll_next(&mut Context::from_waker(&waker)).is_pending());
        let woken = sender.send(Heavy(1)).unwrap();
        assert!(sender.send(Heavy(1)).is_none());
        woken.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(matches!(poll(&mut receiver), Poll::Ready(Some(1))));
        assert!(matches!(poll(&mut receiver), Poll::Ready(Some(1))));
        assert!(receiver.poll_next(&mut Context::from_waker(&waker)).is_pending());
        drop(sender);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!((poll(&mut receiver), receiver.end()), (Poll::Ready(None), None));
    }

    #[test]
    fn a_producer_that_is_a_task_is_woken_by_room_and_by_a_reader_that_leaves() {
        let (sender, mut receiver) = open(&limits(100, 10_000, SlowReader::Pause));
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let _ = (sender.send(Heavy(60)), sender.send(Heavy(60)));
        assert!(!sender.has_room());
        sender.pause();
        assert!(sender.poll_resumed(&context).is_pending());
        assert!(matches!(poll(&mut receiver), Poll::Ready(Some(60))));
        assert!(matches!(poll(&mut receiver), Poll::Ready(Some(60))));
        assert!(poll(&mut receiver).is_pending());
        assert!(count.0.load(Ordering::Relaxed) > 0 && sender.poll_resumed(&context).is_ready());
        let woken = count.0.load(Ordering::Relaxed);
        assert!(sender.poll_left(&context).is_pending());
        drop(receiver);
        assert_eq!(count.0.load(Ordering::Relaxed), woken + 1);
        assert!(sender.poll_left(&context).is_ready() && sender.poll_resumed(&context).is_ready());
    }

    #[test]
    fn a_stream_holds_its_window_and_one_piece_and_goes_on_at_half() {
        let limits = limits(100, 10_000, SlowReader::Pause);
        let (sender, mut receiver) = open(&limits);
        let sent = (0..).take_while(|_| {
            let room = sender.has_room();
            if room {
                let _ = sender.send(Heavy(30));
            }
            room
        });
        assert_eq!(sent.count(), 4);
        sender.pause();
        assert_eq!((limits.memory.held(), limits.memory.pauses(), sender.held()), (120, 1, 120));
        assert!(!sender.has_resumed());
        assert_eq!(poll(&mut receiver), Poll::Ready(Some(30)));
        assert_eq!(poll(&mut receiver), Poll::Ready(Some(30)));
        assert!(!sender.has_resumed());
        assert_eq!(poll(&mut receiver), Poll::Ready(Some(30)));
        assert!(sender.has_resumed());
    }

    #[test]
    fn a_reader_that_makes_room_or_leaves_rings_for_a_producer_that_waits() {
        for leaves in [false, true] {
            let bell = Bell::new();
            let (sender, mut receiver) =
                channel::<Heavy, ()>(limits(10, 1000, SlowReader::Pause), Arc::clone(&bell));
            let _ = sender.send(Heavy(10));
            assert!(!sender.has_room());
            sender.pause();
            let listener = bell.listen();
            if leaves {
                drop(receiver);
                assert!(sender.is_left());
            } else {
                assert!(receiver.poll_next(&mut Context::from_waker(Waker::noop())).is_ready());
            }
            let began = std::time::Instant::now();
            listener.wait(std::time::Duration::from_mins(1));
            assert!(began.elapsed().as_secs() < 60);
        }
    }

    #[test]
    fn those_who_hold_much_leave_the_others_room() {
        let limits = limits(1 << 20, 1 << 20, SlowReader::Pause);
        let streams: Vec<_> = (0..64).map(|_| open(&limits)).collect();
        for (sender, _) in &streams {
            while sender.has_room() {
                let _ = sender.send(Heavy(256));
            }
        }
        let held: Vec<_> = streams.iter().map(|(sender, _)| sender.held()).collect();
        assert!(held.iter().all(|held| *held >= (1 << 20) / 64 / 4), "{held:?}");
        assert!(limits.memory.held() <= (1 << 20) * 5 / 4 + 64 * 256, "{}", limits.memory.held());
        drop(streams);
        assert_eq!((limits.memory.held(), limits.memory.open()), (0, 0));
    }

    #[test]
    fn a_buffer_takes_the_memory_of_all_and_then_pauses() {
        let limits = limits(10, 1000, SlowReader::Buffer);
        let (sender, _receiver) = open(&limits);
        while sender.has_room() {
            let _ = sender.send(Heavy(10));
        }
        assert!((500..=1000).contains(&sender.held()), "{}", sender.held());
    }

    #[test]
    fn what_has_no_room_is_dropped_whole_and_counted() {
        let limits = limits(100, 1000, SlowReader::Drop);
        let (sender, mut receiver) = open(&limits);
        for _ in 0..10 {
            assert!(sender.has_room());
            let _ = sender.send(Heavy(40));
        }
        assert_eq!((limits.memory.dropped(), sender.held()), (8, 80));
        assert_eq!(poll(&mut receiver), Poll::Ready(Some(40)));
    }

    #[test]
    fn a_reader_that_has_left_is_sent_nothing() {
        let limits = StreamLimits::default();
        let (sender, receiver) = open(&limits);
        let _ = sender.send(Heavy(5));
        drop(receiver);
        let _ = sender.send(Heavy(7));
        assert_eq!((sender.held(), limits.memory.held()), (0, 0));
    }
}
