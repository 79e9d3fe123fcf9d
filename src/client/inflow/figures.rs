//! What a stream has come to, and what all streams of a client have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// The longest time between two events that is told apart from longer ones, in microseconds.
const LONGEST_GAP: u64 = 3600 * 1_000_000;

/// What one stream has come to so far.
#[derive(Debug, Clone, Default)]
pub struct StreamFigures {
    /// From the call to the first event, or the first bytes.
    pub first: Option<Duration>,
    /// From one event, line or portion to the next: what half of them did not exceed.
    pub gap_p50: Option<Duration>,
    /// What 99 % of them did not exceed.
    pub gap_p99: Option<Duration>,
    /// Times that reading had to stop until somebody took something.
    pub stalls: u64,
    /// How long it stood, all in all.
    pub stalled: Duration,
    /// Bytes of the body, without its content coding.
    pub bytes: u64,
    /// Events, lines or portions.
    pub events: u64,
    /// Comments between events.
    pub comments: u64,
}

/// Counts while the stream goes on.
#[derive(Debug)]
pub(super) struct Counting {
    started: Instant,
    first: Option<Duration>,
    last: Instant,
    /// In microseconds; there from the second event on.
    gaps: Option<Box<Histogram<u32>>>,
    events: u64,
    stalls: u64,
    stalled: Duration,
}

impl Counting {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            first: None,
            last: started,
            gaps: None,
            events: 0,
            stalls: 0,
            stalled: Duration::ZERO,
        }
    }

    /// So many came at once.
    pub(super) fn came(&mut self, events: u64, now: Instant) {
        let gap = now.saturating_duration_since(self.last);
        self.last = now;
        let mut together = events;
        if self.first.is_none() {
            self.first = Some(now.saturating_duration_since(self.started));
            together = together.saturating_sub(1);
        }
        if together > 0 {
            self.gap(gap, together);
        }
        self.events += events;
    }

    fn gap(&mut self, gap: Duration, events: u64) {
        if self.gaps.is_none() {
            self.gaps = Histogram::new_with_bounds(1, LONGEST_GAP, 1).ok().map(Box::new);
        }
        if let Some(gaps) = &mut self.gaps {
            let micros = u64::try_from(gap.as_micros()).unwrap_or(LONGEST_GAP);
            gaps.saturating_record(micros);
            // Those that came with it waited for nothing.
            gaps.saturating_record_n(0, u32::try_from(events - 1).unwrap_or(u32::MAX));
        }
    }

    /// When the last came; when it was asked for, where nothing has.
    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// Forgets what was counted in another form.
    pub(super) fn recount(&mut self) {
        *self = Self { stalls: self.stalls, stalled: self.stalled, ..Self::new(self.started) };
    }

    pub(super) fn stalled(&mut self) {
        self.stalls += 1;
    }

    pub(super) fn went_on(&mut self, after: Duration) {
        self.stalled += after;
    }

    pub(super) fn figures(&self, bytes: u64, comments: u64) -> StreamFigures {
        let quantile =
            |share| self.gaps.as_ref().map(|gaps| Duration::from_micros(gaps.value_at_quantile(share)));
        StreamFigures {
            first: self.first,
            gap_p50: quantile(0.5),
            gap_p99: quantile(0.99),
            stalls: self.stalls,
            stalled: self.stalled,
            bytes,
            events: self.events,
            comments,
        }
    }
}

/// What all streams of a client have come to.
#[derive(Debug, Default)]
pub struct StreamCounts {
    opened: AtomicU64,
    ended: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
    drained: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCount {
    /// Streams that were asked for.
    pub opened: u64,
    /// Those that are not over.
    pub open: u64,
    /// Those whose caller left before their end: the server was told.
    pub cancelled: u64,
    /// Those that broke off, or ran out of time.
    pub failed: u64,
    /// Those whose caller left at `[DONE]`, and whose end was read for him.
    pub drained: u64,
}

impl StreamCounts {
    /// What was counted.
    pub fn now(&self) -> StreamCount {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let over = read(&self.ended) + read(&self.cancelled) + read(&self.failed);
        let opened = read(&self.opened);
        let (cancelled, failed, drained) = (read(&self.cancelled), read(&self.failed), read(&self.drained));
        StreamCount { opened, open: opened.saturating_sub(over), cancelled, failed, drained }
    }

    /// Counts a stream; what becomes of it, the ticket hears.
    pub fn begin(self: &Arc<Self>) -> StreamTicket {
        self.opened.fetch_add(1, Ordering::Relaxed);
        StreamTicket { counts: Arc::clone(self), is_over: false }
    }
}

/// One stream that is counted. Dropping it says that its caller has left.
#[derive(Debug)]
pub struct StreamTicket {
    counts: Arc<StreamCounts>,
    is_over: bool,
}

impl StreamTicket {
    /// It came to its end; for a caller who had left at `[DONE]` it was `drained`.
    pub fn ended(&mut self, drained: bool) {
        self.is_over = true;
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
        self.counts.drained.fetch_add(u64::from(drained), Ordering::Relaxed);
    }

    /// It broke off, or ran out of time.
    pub fn failed(&mut self) {
        self.is_over = true;
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for StreamTicket {
    fn drop(&mut self) {
        if !self.is_over {
            self.counts.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_come_together_wait_for_nothing() {
        let start = Instant::now();
        let mut counting = Counting::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        counting.came(1, at(100));
        for number in 1..=50 {
            counting.came(1, at(100 + number * 20));
        }
        let figures = counting.figures(7, 0);
        assert_eq!(figures.first, Some(Duration::from_millis(100)));
        let p50 = figures.gap_p50.unwrap().as_secs_f64();
        assert!((0.018..0.023).contains(&p50), "{p50}");
        counting.came(1000, at(3000));
        let figures = counting.figures(7, 0);
        assert_eq!((figures.gap_p50, figures.events), (Some(Duration::ZERO), 1051));
    }

    #[test]
    fn every_stream_is_counted_once() {
        let counts = Arc::new(StreamCounts::default());
        let [mut one, mut two, three, four] = [(); 4].map(|()| counts.begin());
        one.ended(true);
        two.failed();
        drop((one, two, three));
        let count = counts.now();
        assert_eq!((count.opened, count.open, count.cancelled, count.failed, count.drained), (4, 1, 1, 1, 1));
        drop(four);
        assert_eq!(counts.now().open, 0);
    }
}
