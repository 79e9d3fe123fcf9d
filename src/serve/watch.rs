//! How long each connection has been at what it is at, and when that is too long.
//!
//! A timer for each request would cost a tenth of what the request does. So time is counted in ticks of one task for all
//! connections: a connection notes in which tick it began what it is at, which is a store, and once a tick all are looked
//! at. A limit is therefore kept to within two ticks, an eighth of the shortest limit each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

use super::HttpSettings;

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing has come yet.
    New,
    /// A request's head has begun.
    Head,
    /// A request's body is read. Its reader has a time-out of its own.
    Body,
    /// The model has the request.
    Answering,
    /// An answer is written.
    Sending,
    /// An answer is written while its model works on it.
    Streaming,
    /// Between two requests.
    Idle,
    /// An HTTP/2 connection with open requests.
    Streams,
    /// An HTTP/2 connection without one: what comes may be anything, so only a request ends this.
    Quiet,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Verdict {
    /// Nothing came, or nothing was taken, for too long: nobody waits for words.
    Drop = 1,
    /// The head of a request takes too long.
    LateHead,
    /// It was idle for too long.
    Idle,
    /// The server closes.
    Closing,
}

/// The limits, in ticks.
#[derive(Debug, Clone, Copy)]
struct Limits {
    head: u64,
    idle: u64,
    stall: u64,
}

impl Limits {
    /// What is to happen to a connection that has been at `phase` for `waited` ticks, and whose other side has taken
    /// nothing for `stalled` of them.
    fn judge(self, phase: Phase, waited: u64, stalled: Option<u64>) -> Option<Verdict> {
        if stalled.is_some_and(|stalled| stalled > self.stall) {
            return Some(Verdict::Drop);
        }
        match phase {
            Phase::New => (waited > self.head).then_some(Verdict::Drop),
            Phase::Head => (waited > self.head).then_some(Verdict::LateHead),
            Phase::Idle | Phase::Quiet => (waited > self.idle).then_some(Verdict::Idle),
            Phase::Body | Phase::Answering | Phase::Sending | Phase::Streaming | Phase::Streams => None,
        }
    }
}

/// Looks after every connection of a door.
#[derive(Debug)]
pub(super) struct Warden {
    tick: Duration,
    limits: Limits,
    now: AtomicU64,
    watches: Mutex<Slab<Arc<Watch>>>,
    /// Rung where there is a connection to look after again.
    work: Notify,
    leaving: AtomicBool,
    closing: AtomicBool,
}

impl Warden {
    pub(super) fn new(settings: &HttpSettings) -> Arc<Self> {
        let shortest = settings.header_timeout.min(settings.body_timeout).min(settings.idle_timeout);
        let tick = (shortest / 8).clamp(Duration::from_millis(2), Duration::from_secs(1));
        let ticks = |limit: Duration| {
            u64::try_from(limit.as_nanos().div_ceil(tick.as_nanos().max(1))).unwrap_or(u64::MAX)
        };
        Arc::new(Self {
            tick,
            limits: Limits {
                head: ticks(settings.header_timeout),
                idle: ticks(settings.idle_timeout),
                stall: ticks(settings.body_timeout),
            },
            now: AtomicU64::new(0),
            watches: Mutex::default(),
            work: Notify::new(),
            leaving: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        })
    }

    /// Looks after connections for as long as the future is polled; sleeps while there is none.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            if self.watches.lock().is_empty() {
                self.work.notified().await;
            }
            tokio::time::sleep(self.tick).await;
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            for (_, watch) in self.watches.lock().iter() {
                if let Some(verdict) = watch.judge(self.limits, now) {
                    watch.end(verdict);
                }
            }
        }
    }

    /// Begins to look after a connection.
    pub(super) fn admit(self: &Arc<Self>) -> Watched {
        let watch = Arc::new(Watch {
            warden: Arc::clone(self),
            phase: AtomicU8::new(Phase::New as u8),
            since: AtomicU64::new(self.now.load(Ordering::Relaxed)),
            stalled_since: AtomicU64::new(NEVER),
            doubtful: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            verdict: AtomicU8::new(0),
            bell: Notify::new(),
        });
        let mut watches = self.watches.lock();
        let key = watches.insert(Arc::clone(&watch));
        if watches.len() == 1 {
            self.work.notify_one();
        }
        drop(watches);
        if self.closing.load(Ordering::Acquire) {
            watch.end(Verdict::Closing);
        }
        Watched { watch, key }
    }

    /// From now on an answer is the last one of its connection. An HTTP/2 connection, which can say so at any time, hears
    /// of it at once; one of HTTP/1 goes on until then, for a request may be on its way.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        for (_, watch) in self.watches.lock().iter() {
            if matches!(watch.phase(), Phase::Streams | Phase::Quiet) {
                watch.end(Verdict::Closing);
            }
        }
    }

    /// Tells every connection, also those to come, that the server closes.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        for (_, watch) in self.watches.lock().iter() {
            watch.end(Verdict::Closing);
        }
    }
}

const NEVER: u64 = u64::MAX;

/// One connection, as the warden sees it.
#[derive(Debug)]
pub(super) struct Watch {
    warden: Arc<Warden>,
    phase: AtomicU8,
    since: AtomicU64,
    stalled_since: AtomicU64,
    /// The other side sends no more, and may be gone: what is sent to it will show.
    doubtful: AtomicBool,
    /// Requests that an HTTP/2 connection has open.
    streams: AtomicUsize,
    verdict: AtomicU8,
    bell: Notify,
}

impl Watch {
    /// The connection turns to `phase`.
    pub(super) fn enter(&self, phase: Phase) {
        self.since.store(self.warden.now.load(Ordering::Relaxed), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        const ALL: [Phase; 9] = [
            Phase::New,
            Phase::Head,
            Phase::Body,
            Phase::Answering,
            Phase::Sending,
            Phase::Streaming,
            Phase::Idle,
            Phase::Streams,
            Phase::Quiet,
        ];
        let phase = self.phase.load(Ordering::Relaxed);
        ALL.into_iter().find(|known| *known as u8 == phase).unwrap_or(Phase::New)
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        if matches!(self.phase(), Phase::New | Phase::Idle) {
            self.enter(Phase::Head);
        }
    }

    /// All that was written is on its way; true where that was an answer.
    pub(super) fn flushed(&self) -> bool {
        let answered = self.phase() == Phase::Sending;
        if answered {
            self.enter(Phase::Idle);
        }
        answered
    }

    /// The other side takes bytes, or does not; true where it takes some again.
    pub(super) fn stalled(&self, stalled: bool) -> bool {
        let since = self.stalled_since.load(Ordering::Relaxed);
        if stalled && since == NEVER {
            self.stalled_since.store(self.warden.now.load(Ordering::Relaxed), Ordering::Relaxed);
        } else if !stalled && since != NEVER {
            self.stalled_since.store(NEVER, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// True where the other side does not take what is written.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled_since.load(Ordering::Relaxed) != NEVER
    }

    /// True where an answer is to be the last one of its connection.
    pub(super) fn is_leaving(&self) -> bool {
        self.warden.leaving.load(Ordering::Relaxed)
    }

    /// The other side may be gone: whoever writes is asked to send something soon.
    pub(super) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    /// True once after [`doubt`](Self::doubt).
    pub(super) fn take_doubt(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed) && self.doubtful.swap(false, Ordering::Relaxed)
    }

    /// A request of an HTTP/2 connection begins.
    pub(super) fn stream_begins(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.enter(Phase::Streams);
    }

    /// A request of an HTTP/2 connection ends.
    pub(super) fn stream_ends(&self) {
        if self.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.enter(Phase::Quiet);
        }
    }

    /// Waits until the connection is to end, and says why.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping the future.
    pub(super) async fn ended(&self) -> Verdict {
        loop {
            match self.verdict.swap(0, Ordering::AcqRel) {
                1 => return Verdict::Drop,
                2 => return Verdict::LateHead,
                3 => return Verdict::Idle,
                4 => return Verdict::Closing,
                _ => self.bell.notified().await,
            }
        }
    }

    fn judge(&self, limits: Limits, now: u64) -> Option<Verdict> {
        let waited = now.saturating_sub(self.since.load(Ordering::Relaxed));
        let stalled = match self.stalled_since.load(Ordering::Relaxed) {
            NEVER => None,
            since => Some(now.saturating_sub(since)),
        };
        limits.judge(self.phase(), waited, stalled)
    }

    /// Tells the connection to end; of two verdicts that it has not heard, the later one counts.
    pub(super) fn end(&self, verdict: Verdict) {
        self.verdict.store(verdict as u8, Ordering::Release);
        self.bell.notify_one();
    }
}

/// A connection that is looked after for as long as this lives.
pub(super) struct Watched {
    pub(super) watch: Arc<Watch>,
    key: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.watch.warden.watches.lock().try_remove(self.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head: 8, idle: 60, stall: 48 };

    #[test]
    fn a_limit_is_passed_only_by_what_it_is_for() {
        for (phase, verdict) in [
            (Phase::New, Some(Verdict::Drop)),
            (Phase::Head, Some(Verdict::LateHead)),
            (Phase::Body, None),
            (Phase::Answering, None),
            (Phase::Sending, None),
            (Phase::Streaming, None),
            (Phase::Idle, Some(Verdict::Idle)),
            (Phase::Streams, None),
            (Phase::Quiet, Some(Verdict::Idle)),
        ] {
            assert_eq!(LIMITS.judge(phase, 1_000, None), verdict, "{phase:?}");
            assert_eq!(LIMITS.judge(phase, 8, None), None, "{phase:?} within every limit");
        }
    }

    #[test]
    fn a_client_that_takes_nothing_is_dropped_whatever_it_is_at() {
        for phase in [Phase::Body, Phase::Answering, Phase::Sending, Phase::Streaming, Phase::Idle] {
            assert_eq!(LIMITS.judge(phase, 0, Some(48)), None);
            assert_eq!(LIMITS.judge(phase, 0, Some(49)), Some(Verdict::Drop));
        }
    }

    fn warden() -> Arc<Warden> {
        Warden::new(&HttpSettings {
            header_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(3),
            ..HttpSettings::default()
        })
    }

    fn run(warden: &Arc<Warden>) -> tokio::task::JoinHandle<()> {
        tokio::runtime::Handle::current().spawn(Arc::clone(warden).run())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_hears_of_its_end_in_time_and_not_before() {
        let warden = warden();
        let _running = run(&warden);
        let start = tokio::time::Instant::now();
        let watched = warden.admit();
        watched.watch.received();
        assert_eq!(watched.watch.ended().await, Verdict::LateHead);
        let passed = start.elapsed();
        assert!((Duration::from_secs(1)..Duration::from_millis(1300)).contains(&passed), "{passed:?}");
        watched.watch.enter(Phase::Sending);
        assert!(watched.watch.flushed());
        assert!(!watched.watch.flushed());
        let start = tokio::time::Instant::now();
        assert_eq!(watched.watch.ended().await, Verdict::Idle);
        let passed = start.elapsed();
        assert!((Duration::from_secs(3)..Duration::from_millis(3300)).contains(&passed), "{passed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_an_open_stream_is_never_idle() {
        let warden = warden();
        let _running = run(&warden);
        let watched = warden.admit();
        watched.watch.stream_begins();
        watched.watch.stream_begins();
        watched.watch.stream_ends();
        let waited = tokio::time::timeout(Duration::from_mins(1), watched.watch.ended()).await;
        assert!(waited.is_err());
        watched.watch.stream_ends();
        watched.watch.received();
        assert_eq!(watched.watch.phase(), Phase::Quiet, "no head begins outside of a stream");
        assert_eq!(watched.watch.ended().await, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_reaches_those_who_are_there_and_those_who_come() {
        let warden = warden();
        let before = warden.admit();
        warden.close();
        let after = warden.admit();
        assert_eq!(before.watch.ended().await, Verdict::Closing);
        assert_eq!(after.watch.ended().await, Verdict::Closing);
        drop((before, after));
        assert!(warden.watches.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn leaving_reaches_http2_at_once_and_lets_the_others_finish() {
        let warden = warden();
        let (one, two) = (warden.admit(), warden.admit());
        two.watch.enter(Phase::Quiet);
        assert!(!one.watch.is_leaving());
        warden.leave();
        assert_eq!(two.watch.ended().await, Verdict::Closing);
        assert!(one.watch.is_leaving());
        let waited = tokio::time::timeout(Duration::from_millis(500), one.watch.ended()).await;
        assert!(waited.is_err(), "{waited:?}");
    }
}
