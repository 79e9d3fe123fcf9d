//! What is counted for answers that come in pieces.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use super::Registry;

/// The counters of the streamed answers of one door.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
    open: Gauge,
    started: Counter,
    cancelled: Counter,
    failed: Counter,
    pieces: Counter,
    chunks: Counter,
    bytes: Counter,
    plain_bytes: Counter,
    packed_bytes: Counter,
    keep_alives: Counter,
    reader_waits: Counter,
    pauses: Counter,
    dropped: Counter,
    held: Gauge,
    first_piece: Histogram,
    piece_gap: Histogram,
}

/// An answer that is under way. Its client went away, where this is dropped before the answer has ended.
#[derive(Debug)]
pub struct StreamCount {
    open: Gauge,
    cancelled: Counter,
    failed: Counter,
    ended: bool,
}

impl StreamCount {
    /// It came to an end, be it a failure that was told.
    pub fn ended(&mut self) {
        self.ended = true;
    }

    /// It came to an end by a failure.
    pub fn failed(&mut self) {
        self.failed.inc();
        self.ended();
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.open.dec();
        if !self.ended {
            self.cancelled.inc();
        }
    }
}

/// Upper bounds in seconds: from a step of a small model to a prompt that takes a minute.
const FIRST: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0];
const GAP: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

impl StreamMetrics {
    /// Counters by their names in `registry`.
    pub fn new(registry: &Registry) -> Self {
        let streams = Self {
            open: Gauge::default(),
            started: Counter::default(),
            cancelled: Counter::default(),
            failed: Counter::default(),
            pieces: Counter::default(),
            chunks: Counter::default(),
            bytes: Counter::default(),
            plain_bytes: Counter::default(),
            packed_bytes: Counter::default(),
            keep_alives: Counter::default(),
            reader_waits: Counter::default(),
            pauses: Counter::default(),
            dropped: Counter::default(),
            held: Gauge::default(),
            first_piece: Histogram::new(FIRST),
            piece_gap: Histogram::new(GAP),
        };
        streams.register(registry);
        streams
    }

    fn register(&self, registry: &Registry) {
        let names = &mut registry.names();
        names.register("stream_open", "Streamed answers that are under way", self.open.clone());
        names.register("stream_held_bytes", "Bytes that readers have not taken yet", self.held.clone());
        for (name, help, counter) in [
            ("stream_started", "Streamed answers that were begun", &self.started),
            ("stream_cancelled", "Streamed answers whose client went away before their end", &self.cancelled),
            ("stream_failed", "Streamed answers that broke off with an error", &self.failed),
            ("stream_pieces", "Pieces of streamed answers: tokens, where a step says one", &self.pieces),
            ("stream_chunks", "Chunks that streamed answers left in", &self.chunks),
            ("stream_bytes", "Bytes that streamed answers left in", &self.bytes),
            ("stream_plain_bytes", "Bytes of streamed answers before they were packed", &self.plain_bytes),
            ("stream_packed_bytes", "Bytes of streamed answers after they were packed", &self.packed_bytes),
            ("stream_keep_alives", "Comments that were sent while nothing else came", &self.keep_alives),
            ("stream_reader_waits", "Times that a streamed answer waited for its reader", &self.reader_waits),
            ("stream_pauses", "Times that a request got no step because of its reader", &self.pauses),
            ("stream_dropped", "Pieces that were left out because their reader was too slow", &self.dropped),
        ] {
            names.register(name, help, counter.clone());
        }
        for (name, help, histogram) in [
            ("stream_first_piece", "Time from the whole request to the first piece", &self.first_piece),
            ("stream_piece_gap", "Time from a piece of a streamed answer to the next", &self.piece_gap),
        ] {
            names.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    /// Counts an answer that is begun, until what comes back is dropped.
    pub fn begin(&self) -> StreamCount {
        self.started.inc();
        self.open.inc();
        let (open, cancelled, failed) = (self.open.clone(), self.cancelled.clone(), self.failed.clone());
        StreamCount { open, cancelled, failed, ended: false }
    }

    /// Counts an answer that broke off with an error.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// Counts pieces that leave.
    pub fn pieces(&self, pieces: u64) {
        self.pieces.inc_by(pieces);
    }

    /// Counts a chunk of so many bytes.
    pub fn chunk(&self, bytes: usize) {
        self.chunks.inc();
        self.bytes.inc_by(bytes as u64);
    }

    /// Counts bytes that were packed.
    pub fn packed(&self, plain: usize, packed: usize) {
        self.plain_bytes.inc_by(plain as u64);
        self.packed_bytes.inc_by(packed as u64);
    }

    /// Counts a comment.
    pub fn kept_alive(&self) {
        self.keep_alives.inc();
    }

    /// Counts a time that an answer waited for its reader.
    pub fn reader_waits(&self) {
        self.reader_waits.inc();
    }

    /// Brings what is counted elsewhere up to date, before the text is made: bytes that readers have not taken, and how
    /// often they held their requests up or had pieces left out.
    pub fn observe(&self, held: usize, pauses: u64, dropped: u64) {
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
        self.pauses.inner().store(pauses, Ordering::Relaxed);
        self.dropped.inner().store(dropped, Ordering::Relaxed);
    }

    /// Counts how long the first piece took.
    pub fn first_piece(&self, took: Duration) {
        self.first_piece.observe(took.as_secs_f64());
    }

    /// Counts how long after a piece the next one left.
    pub fn piece_gap(&self, gap: Duration) {
        self.piece_gap.observe(gap.as_secs_f64());
    }
}
