//! The books of a run while it goes on: written by the clients, read by whoever watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::feed::Job;
use super::report::Report;
use crate::error::Result;

/// One for all clients: it costs little to lock, and stands as it is when the run is cut short.
pub(super) struct Ledger {
    books: Mutex<Report>,
    sent: AtomicU64,
    counted_from: Mutex<Option<Instant>>,
    stop: Notify,
    stopped: AtomicBool,
}

impl Ledger {
    /// The books, which are free but for moments.
    pub(super) fn books(&self) -> MutexGuard<'_, Report> {
        self.books.lock()
    }

    pub(super) fn count_sent(&self, job: &Job) {
        self.sent.fetch_add(u64::from(!job.uncounted), Ordering::Relaxed);
    }

    pub(super) fn take_back_sent(&self, job: &Job) {
        self.sent.fetch_sub(u64::from(!job.uncounted), Ordering::Relaxed);
    }

    /// Opens the books: what is begun from that moment on is counted.
    pub(super) fn open(&self, counted_from: Instant) {
        *self.counted_from.lock() = Some(counted_from);
    }

    /// Waits until somebody wants the run to end; dropping the future loses nothing.
    pub(super) async fn asked_to_stop(&self) {
        self.stop.notified().await;
    }

    /// What the books hold, as the report of a run that has ended.
    pub(super) fn close(&self) -> Result<Report> {
        let mut report = std::mem::replace(&mut *self.books(), Report::new()?);
        report.sent = self.sent.load(Ordering::Relaxed);
        report.stopped = self.stopped.load(Ordering::Relaxed);
        Ok(report)
    }
}

/// Looks at a run from outside, from any thread, and can end it.
#[derive(Clone)]
pub struct Watch {
    ledger: Arc<Ledger>,
}

/// What a run has found so far.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Since the figures began, which is after the warm-up; none before.
    pub elapsed: Option<Duration>,
    /// Requests answered, whatever the status.
    pub answered: u64,
    /// Requests answered with a status from 200 to 299, or `OK` over gRPC.
    pub ok: u64,
    /// Requests lost.
    pub failed: u64,
    /// Answers that the check refused.
    pub wrong: u64,
    /// Median latency.
    pub p50: Duration,
    /// What 99 % of the answers stayed within.
    pub p99: Duration,
}

impl Watch {
    /// For one run: hand it to [`run_watched`](super::run_watched).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) where the histograms could not be built.
    pub fn new() -> Result<Self> {
        let ledger = Ledger {
            books: Mutex::new(Report::new()?),
            sent: AtomicU64::new(0),
            counted_from: Mutex::new(None),
            stop: Notify::new(),
            stopped: AtomicBool::new(false),
        };
        Ok(Self { ledger: Arc::new(ledger) })
    }

    /// What the run has found so far. The clients wait while the histogram is copied, some 20 µs.
    pub fn snapshot(&self) -> Snapshot {
        let counted_from = *self.ledger.counted_from.lock();
        let books = self.ledger.books();
        let (answered, ok, failed, wrong) = (books.answered(), books.ok, books.failed(), books.wrong);
        let latency = books.latency.clone();
        drop(books);
        Snapshot {
            elapsed: counted_from.and_then(|start| Instant::now().checked_duration_since(start)),
            answered,
            ok,
            failed,
            wrong,
            p50: latency.quantile(0.5),
            p99: latency.quantile(0.99),
        }
    }

    /// Ends the run as the deadline would: the report says what was found by then.
    pub fn stop(&self) {
        self.ledger.stopped.store(true, Ordering::Relaxed);
        // Kept for a run that does not wait yet.
        self.ledger.stop.notify_one();
    }

    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}
