//! What is counted for each model. Names follow `penstock_<part>_<what>_<unit>`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry as Names, Unit};

use super::process::{ProcessMetrics, pauses};
use super::window::{Window, Windows};

/// How often a lock was taken, and how long that took.
#[derive(Debug, Default)]
pub struct LockCounts {
    acquisitions: AtomicU64,
    wait_nanos: AtomicU64,
}

impl LockCounts {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self { acquisitions: AtomicU64::new(0), wait_nanos: AtomicU64::new(0) }
    }

    /// Counts one acquisition.
    pub fn count(&self, wait: Duration) {
        self.acquisitions.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.wait_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Times that the lock was taken.
    pub fn acquisitions(&self) -> u64 {
        self.acquisitions.load(Ordering::Relaxed)
    }

    /// Time spent waiting for the lock.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.wait_nanos.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    model: String,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPart {
    model: String,
    part: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    model: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    model: String,
    reason: &'static str,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With an answer.
    Ok,
    /// Refused: the fault of whoever sent it.
    Invalid,
    /// Refused: the queue was full, or the server was closing.
    Overloaded,
    /// Its time passed before its answer was there.
    Expired,
    /// The model failed.
    Failed,
    /// Whoever sent it hung up before its answer was there.
    Gone,
}

impl Outcome {
    const ALL: [Self; 6] =
        [Self::Ok, Self::Invalid, Self::Overloaded, Self::Expired, Self::Failed, Self::Gone];
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Gone => "gone",
        };
        name.encode(encoder)
    }
}

/// The parts of a batch's time: from the arrival of its first request until it could be taken, until a worker took it,
/// until the model was called, the model's own, and the rest until its answers were there.
pub const PARTS: [&str; 5] = ["queue", "slot", "gather", "model", "scatter"];

/// What a batch costs: for its rows, and for what they are filled up with.
const KINDS: [&str; 2] = [USEFUL, PADDING];
const USEFUL: &str = "useful";
const PADDING: &str = "padding";

/// A batch that is done, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchCount {
    /// Its time, by the [`PARTS`].
    pub parts: [Duration; PARTS.len()],
    /// What its requests cost.
    pub cost: u64,
    /// What it cost itself: more where rows are padded.
    pub padded_cost: u64,
    /// By how much its time was not as predicted, where it was.
    pub misjudged: Option<Duration>,
}

/// Every family of metrics, and the text of all of them.
pub struct Registry {
    names: Mutex<Names>,
    /// What every exporter calls by the same names, which have no word of Penstock's before them.
    process: Names,
    windows: Windows,
    requests: Family<ByOutcome, Counter>,
    request_seconds: Family<OfModel, Histogram, fn() -> Histogram>,
    batches: Family<ByReason, Counter>,
    batch_size: Family<OfModel, Histogram, fn() -> Histogram>,
    batch_wait: Family<ByPart, Histogram, fn() -> Histogram>,
    batch_cost: Family<ByKind, Counter>,
    prediction_error: Family<OfModel, Histogram, fn() -> Histogram>,
    batch_cap: Family<OfModel, Gauge>,
    queue_depth: Family<OfModel, Gauge>,
    lock_acquisitions: Family<OfModel, Counter>,
    lock_wait_seconds: Family<OfModel, Counter<f64, AtomicU64>>,
    worker_restarts: Family<OfModel, Counter>,
}

/// Upper bounds in seconds: from the delay of one batch of a small model to a minute.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
const SIZES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0, 128.0, 200.0, 256.0];

impl Registry {
    /// Families without members.
    pub fn new() -> Self {
        let mut registry = Self {
            names: Mutex::new(Names::with_prefix("penstock")),
            process: Names::default(),
            windows: Windows::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            batches: Family::default(),
            batch_size: Family::new_with_constructor(|| Histogram::new(SIZES)),
            batch_wait: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            batch_cost: Family::default(),
            prediction_error: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            batch_cap: Family::default(),
            queue_depth: Family::default(),
            lock_acquisitions: Family::default(),
            lock_wait_seconds: Family::default(),
            worker_restarts: Family::default(),
        };
        registry.process.register_collector(Box::new(ProcessMetrics));
        registry.name_families();
        registry.name_what_runs();
        registry
    }

    fn name_families(&self) {
        let mut names = self.names.lock();
        names.register("requests", "Requests by how they ended", self.requests.clone());
        names.register_with_unit(
            "request",
            "Time from the whole request to its answer",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        names.register("batches", "Batches by why they were cut", self.batches.clone());
        names.register("batch_size", "Rows in a batch", self.batch_size.clone());
        names.register_with_unit(
            "batch_wait",
            "Time of a batch in each part, from the arrival of its first request to its answers",
            Unit::Seconds,
            self.batch_wait.clone(),
        );
        names.register(
            "batch_cost",
            "What batches cost, and what of it was padding",
            self.batch_cost.clone(),
        );
        names.register_with_unit(
            "batch_prediction_error",
            "By how much the time of a batch was not as predicted",
            Unit::Seconds,
            self.prediction_error.clone(),
        );
        names.register("batch_cap", "Rows that a batch may have now", self.batch_cap.clone());
        names.register("queue_depth", "Rows that wait for a batch", self.queue_depth.clone());
        names.register(
            "lock_acquisitions",
            "Times that a worker took the interpreter lock",
            self.lock_acquisitions.clone(),
        );
        names.register(
            "worker_restarts",
            "Worker processes that took the place of dead ones",
            self.worker_restarts.clone(),
        );
        names.register_with_unit(
            "lock_wait",
            "Time that workers waited for the interpreter lock",
            Unit::Seconds,
            self.lock_wait_seconds.clone(),
        );
    }

    fn name_what_runs(&self) {
        let mut names = self.names.lock();
        names.register_collector(Box::new(self.windows.clone()));
        let help = "Time that the interpreter stood still for its garbage collector";
        names.register_with_unit("gc_pause", help, Unit::Seconds, pauses());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        names.register("build", "What runs here", version);
    }

    /// The members for one model.
    pub fn model(self: &Arc<Self>, name: &str) -> ModelMetrics {
        let of = OfModel { model: name.to_owned() };
        let part = |part| self.batch_wait.get_or_create(&ByPart { model: of.model.clone(), part }).clone();
        let cost = |kind| self.batch_cost.get_or_create(&ByKind { model: of.model.clone(), kind }).clone();
        ModelMetrics {
            batch_waits: PARTS.map(part),
            useful: cost(USEFUL),
            padding: cost(PADDING),
            prediction_error: self.prediction_error.get_or_create(&of).clone(),
            request_seconds: self.request_seconds.get_or_create(&of).clone(),
            window: self.windows.of(name),
            batch_size: self.batch_size.get_or_create(&of).clone(),
            registry: Arc::clone(self),
            of,
        }
    }

    /// Forgets the members of a model that is gone, whose batches were cut for any of `reasons`: a gauge would say what it said
    /// last for ever, and a server whose models come and go would have more and more members.
    pub fn forget(&self, name: &str, reasons: impl IntoIterator<Item = &'static str>) {
        let model = || name.to_owned();
        let of = OfModel { model: model() };
        for outcome in Outcome::ALL {
            self.requests.remove(&ByOutcome { model: model(), outcome });
        }
        for reason in reasons {
            self.batches.remove(&ByReason { model: model(), reason });
        }
        for part in PARTS {
            self.batch_wait.remove(&ByPart { model: model(), part });
        }
        for kind in KINDS {
            self.batch_cost.remove(&ByKind { model: model(), kind });
        }
        for family in [&self.request_seconds, &self.batch_size, &self.prediction_error] {
            family.remove(&of);
        }
        for family in [&self.batch_cap, &self.queue_depth] {
            family.remove(&of);
        }
        for family in [&self.lock_acquisitions, &self.worker_restarts] {
            family.remove(&of);
        }
        self.lock_wait_seconds.remove(&of);
        self.windows.forget(name);
    }

    /// The names that metrics are known by, for other parts to add theirs.
    pub(super) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock()
    }

    /// Has metrics of another part, which it reads when somebody asks, stand among the others.
    pub fn collect(&self, collector: Box<dyn Collector>) {
        self.names.lock().register_collector(collector);
    }

    /// The text of every metric, in the OpenMetrics format, version 1.0.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string fails for no reason that the encoder knows.
        let _ = text::encode_registry(&mut out, &self.names.lock())
            .and_then(|()| text::encode_registry(&mut out, &self.process))
            .and_then(|()| text::encode_eof(&mut out));
        out
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// The metrics of one model.
#[derive(Clone)]
pub struct ModelMetrics {
    batch_waits: [Histogram; PARTS.len()],
    useful: Counter,
    padding: Counter,
    prediction_error: Histogram,
    request_seconds: Histogram,
    window: Arc<Window>,
    batch_size: Histogram,
    registry: Arc<Registry>,
    of: OfModel,
}

impl ModelMetrics {
    /// Counts a request that never waited for its model: its time would pull the others' down.
    pub fn refused(&self, outcome: Outcome) {
        let key = ByOutcome { model: self.of.model.clone(), outcome };
        self.registry.requests.get_or_create(&key).inc();
    }

    /// Counts a request and how long it took.
    pub fn request(&self, outcome: Outcome, took: Duration) {
        self.refused(outcome);
        self.request_seconds.observe(took.as_secs_f64());
        self.window.add(took, Instant::now());
    }

    /// Counts a batch and why it was cut.
    #[allow(clippy::cast_precision_loss, reason = "a batch is small")]
    pub fn batch(&self, rows: usize, reason: &'static str) {
        let key = ByReason { model: self.of.model.clone(), reason };
        self.registry.batches.get_or_create(&key).inc();
        self.batch_size.observe(rows as f64);
    }

    /// Counts a worker process that took the place of a dead one.
    pub fn restarted(&self) {
        self.registry.worker_restarts.get_or_create(&self.of).inc();
    }

    /// Counts where the time of a batch went that is done, and what it cost.
    pub fn finished(&self, batch: &BatchCount) {
        for (histogram, part) in self.batch_waits.iter().zip(batch.parts) {
            histogram.observe(part.as_secs_f64());
        }
        self.useful.inc_by(batch.cost);
        self.padding.inc_by(batch.padded_cost.saturating_sub(batch.cost));
        if let Some(error) = batch.misjudged {
            self.prediction_error.observe(error.as_secs_f64());
        }
    }

    /// Brings what is counted elsewhere up to date, before the text is made.
    pub fn observe(&self, queued: usize, cap: usize, locks: &LockCounts) {
        self.registry.batch_cap.get_or_create(&self.of).set(i64::try_from(cap).unwrap_or(i64::MAX));
        let depth = self.registry.queue_depth.get_or_create(&self.of);
        depth.set(i64::try_from(queued).unwrap_or(i64::MAX));
        let counter = self.registry.lock_acquisitions.get_or_create(&self.of);
        counter.inner().store(locks.acquisitions(), Ordering::Relaxed);
        let counter = self.registry.lock_wait_seconds.get_or_create(&self.of);
        counter.inner().store(locks.waited().as_secs_f64().to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_carries_every_family_by_its_name() {
        let registry = Arc::new(Registry::new());
        let metrics = registry.model("digits");
        metrics.request(Outcome::Ok, Duration::from_millis(2));
        metrics.batch(64, "tick");
        let locks = LockCounts::new();
        locks.count(Duration::from_millis(500));
        metrics.finished(&BatchCount {
            parts: [1, 2, 3, 4, 5].map(Duration::from_millis),
            cost: 60,
            padded_cost: 80,
            misjudged: Some(Duration::from_millis(1)),
        });
        metrics.observe(3, 100, &locks);
        let text = registry.text();
        for line in [
            "penstock_requests_total{model=\"digits\",outcome=\"ok\"} 1",
            "penstock_request_seconds_count{model=\"digits\"} 1",
            "penstock_request_seconds_quantile{model=\"digits\",quantile=\"0.999\"} 0.00",
            "penstock_batches_total{model=\"digits\",reason=\"tick\"} 1",
            "penstock_batch_size_bucket{le=\"64.0\",model=\"digits\"} 1",
            "penstock_batch_wait_seconds_sum{model=\"digits\",part=\"slot\"} 0.002",
            "penstock_batch_wait_seconds_bucket{le=\"0.005\",model=\"digits\",part=\"scatter\"} 1",
            "penstock_batch_cost_total{model=\"digits\",kind=\"useful\"} 60",
            "penstock_batch_cost_total{model=\"digits\",kind=\"padding\"} 20",
            "penstock_batch_prediction_error_seconds_count{model=\"digits\"} 1",
            "penstock_batch_cap{model=\"digits\"} 100",
            "penstock_queue_depth{model=\"digits\"} 3",
            "penstock_lock_acquisitions_total{model=\"digits\"} 1",
            "penstock_lock_wait_seconds_total{model=\"digits\"} 0.5",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        registry.model("other").request(Outcome::Ok, Duration::ZERO);
        registry.forget("digits", ["tick"]);
        let text = registry.text();
        assert!(!text.contains("digits") && text.contains("other"), "{text}");
    }
}
