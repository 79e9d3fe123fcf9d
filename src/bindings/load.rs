//! The load generator, for Python: `penstock.testing.load` and `penstock bench` document it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tokio::runtime::Builder;

use super::bridge::lock;
use super::errors::to_python;
use crate::bench::{Latencies, Mode, Plan, Protocol, Report, Spacing, Target, Watch, run_watched};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::metrics::LockCounts;
use crate::wire::grpc::{PREFIX, prefix_of};

/// Quantiles that a report carries.
const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
];

/// A run of the load generator, on a thread and a runtime of its own. Dropping it ends the run.
#[pyclass(module = "penstock._native", frozen)]
pub(crate) struct NativeLoad {
    watch: Watch,
    grpc: bool,
    /// For one thread at a time, as a receiver is.
    report: Mutex<Receiver<CoreResult<Report>>>,
}

#[pymethods]
impl NativeLoad {
    /// Starts a run that sends `bodies` in turn.
    #[new]
    fn new(
        py: Python<'_>,
        authority: &str,
        path: &str,
        bodies: Vec<Vec<u8>>,
        settings: Settings,
    ) -> PyResult<Self> {
        let target = Target::new(authority, path);
        let grpc = settings.protocol == "gRPC";
        let bodies =
            bodies.into_iter().map(|body| if grpc { prefixed(&body) } else { body.into() }).collect();
        let started =
            target.and_then(|target| settings.plan(target, bodies)).and_then(|plan| Self::start(plan, grpc));
        started.map_err(|error| to_python(py, &error))
    }

    /// The report when the run has ended; `None` where that takes longer than so many seconds.
    fn wait<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Option<Bound<'py, PyDict>>> {
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let came = lock::without(py, &LockCounts::new(), || self.report.lock().recv_timeout(limit));
        match came {
            Ok(Ok(report)) => to_dict(py, &report, self.grpc).map(Some),
            Ok(Err(error)) => Err(to_python(py, &error)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let message = "the load generator panicked, or its report was taken before";
                Err(to_python(py, &Error::new(ErrorKind::Internal, message)))
            }
        }
    }

    /// What was found so far.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let watch = &self.watch;
        let seen = lock::without(py, &LockCounts::new(), || watch.snapshot());
        let dict = PyDict::new(py);
        dict.set_item("seconds", seen.elapsed.map(|elapsed| elapsed.as_secs_f64()))?;
        dict.set_item("answered", seen.answered)?;
        dict.set_item("errors", seen.answered - seen.ok + seen.failed + seen.wrong)?;
        dict.set_item("p50", seen.p50.as_secs_f64())?;
        dict.set_item("p99", seen.p99.as_secs_f64())?;
        Ok(dict)
    }

    /// Ends the run early; its report says what was found by then.
    fn stop(&self) {
        self.watch.stop();
    }
}

impl NativeLoad {
    fn start(plan: Plan, grpc: bool) -> CoreResult<Self> {
        let watch = Watch::new()?;
        let watched = watch.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("penstock-load".to_owned());
        let started = thread.spawn(move || {
            // Nobody waits any more where the run was dropped.
            let _ = sender.send(drive(&plan, &watched));
        });
        match started {
            Ok(_) => Ok(Self { watch, grpc, report: Mutex::new(receiver) }),
            Err(source) => {
                let message = "the thread of the load generator could not be started";
                Err(Error::with_source(ErrorKind::Internal, message, source))
            }
        }
    }
}

impl Drop for NativeLoad {
    fn drop(&mut self) {
        self.watch.stop();
    }
}

/// The items of the dictionary that Python hands over; times in seconds.
///
/// One of `rate`, `requests` and `requests_each` says how much is sent, or else the duration; what is 0 is not meant.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Settings {
    method: String,
    headers: Vec<(String, String)>,
    clients: usize,
    requests_each: usize,
    requests: usize,
    rate: f64,
    poisson_seed: Option<u64>,
    duration: f64,
    warmup: f64,
    timeout: f64,
    deadline: f64,
    /// `HTTP/1.1`, `HTTP/2` or `gRPC`.
    protocol: String,
    /// Clients to a connection, but over HTTP/1.1.
    streams: usize,
    /// Over HTTP/1.1 alone.
    connection_close: bool,
    keep: bool,
    check: bool,
    max_reopens: u32,
}

impl Settings {
    fn plan(self, mut target: Target, bodies: Vec<Bytes>) -> CoreResult<Plan> {
        for (name, value) in &self.headers {
            target = target.header(name, value)?;
        }
        let mut plan = Plan::new(target, bodies, self.clients, self.mode()?);
        plan.method = self.method.parse().map_err(|source| {
            let message = format!("{:?} is no method of HTTP", self.method);
            Error::with_source(ErrorKind::Config, message, source)
        })?;
        plan.protocol = match self.protocol.as_str() {
            "gRPC" => Protocol::Grpc { streams: self.streams },
            "HTTP/2" => Protocol::Http2 { streams: self.streams },
            _ if self.connection_close => Protocol::Http1Close,
            _ => Protocol::Http1,
        };
        plan.warmup = seconds("warmup", self.warmup)?;
        plan.timeout = seconds("timeout", self.timeout)?;
        plan.deadline = seconds("deadline", self.deadline)?;
        (plan.keep_bodies, plan.check, plan.max_reopens) = (self.keep, self.check, self.max_reopens);
        Ok(plan)
    }

    fn mode(&self) -> CoreResult<Mode> {
        let duration = seconds("duration", self.duration)?;
        Ok(if self.rate > 0.0 {
            let spacing = self.poisson_seed.map_or(Spacing::Constant, |seed| Spacing::Poisson { seed });
            Mode::Open { rate_per_second: self.rate, duration, spacing }
        } else if self.requests > 0 {
            Mode::Shared { requests: self.requests }
        } else if self.requests_each > 0 || duration.is_zero() {
            Mode::Closed { requests_per_client: self.requests_each }
        } else {
            Mode::Timed { duration }
        })
    }
}

fn seconds(name: &str, value: f64) -> CoreResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        Error::new(ErrorKind::Config, format!("{name} must be a number of seconds from 0, not {value}"))
    })
}

fn drive(plan: &Plan, watch: &Watch) -> CoreResult<Report> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Internal, "no runtime could be made", error))?;
    runtime.block_on(run_watched(plan, watch))
}

/// A message as it goes over the wire.
fn prefixed(message: &[u8]) -> Bytes {
    [&prefix_of(message.len()), message].concat().into()
}

fn to_dict<'py>(py: Python<'py>, report: &Report, grpc: bool) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("planned", report.planned)?;
    dict.set_item("sent", report.sent)?;
    dict.set_item("answered", report.answered())?;
    dict.set_item("ok", report.ok)?;
    dict.set_item("refused", report.refused)?;
    dict.set_item("failed", report.failed())?;
    dict.set_item("wrong", report.wrong)?;
    dict.set_item("first_wrong", report.first_wrong.as_deref())?;
    dict.set_item("unfinished", report.unfinished)?;
    dict.set_item("reopened", report.reopened)?;
    dict.set_item("gave_up", report.gave_up)?;
    dict.set_item("backlog", report.backlog)?;
    dict.set_item("stopped", report.stopped)?;
    dict.set_item("timed_out", report.timed_out)?;
    dict.set_item("warmup_answered", report.warmup_answered)?;
    dict.set_item("warmup_failed", report.warmup_failed)?;
    dict.set_item("seconds", report.elapsed.as_secs_f64())?;
    dict.set_item("requests_per_second", report.throughput())?;
    dict.set_item("bytes_read", report.bytes_read)?;
    dict.set_item("latency", spread(py, &report.latency)?)?;
    dict.set_item("first_byte", spread(py, &report.first_byte)?)?;
    dict.set_item("lag", spread(py, &report.lag)?)?;
    dict.set_item("histogram", buckets(py, &report.latency)?)?;
    let statuses = PyDict::new(py);
    for (status, count) in &report.statuses {
        statuses.set_item(status, count)?;
    }
    dict.set_item("statuses", statuses)?;
    let codes = PyDict::new(py);
    for (code, count) in &report.codes {
        codes.set_item(code.name(), count)?;
    }
    dict.set_item("codes", codes)?;
    let errors = PyDict::new(py);
    for (kind, count) in &report.transport_errors {
        errors.set_item(kind.meaning().class, count)?;
    }
    dict.set_item("errors", errors)?;
    let answers = PyList::empty(py);
    for answer in report.answers() {
        let before = if grpc && answer.status == StatusCode::OK { PREFIX } else { 0 };
        let body = PyBytes::new(py, answer.body.get(before..).unwrap_or_default());
        answers.append((answer.body_index, answer.status.as_u16(), body))?;
    }
    dict.set_item("answers", answers)?;
    Ok(dict)
}

/// Quantiles, extremes, mean and count, in seconds.
fn spread<'py>(py: Python<'py>, times: &Latencies) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("count", times.count())?;
    dict.set_item("min", times.min().as_secs_f64())?;
    for (name, quantile) in QUANTILES {
        dict.set_item(name, times.quantile(quantile).as_secs_f64())?;
    }
    dict.set_item("max", times.max().as_secs_f64())?;
    dict.set_item("mean", times.mean().as_secs_f64())?;
    Ok(dict)
}

/// (longest latency of the bucket in seconds, answers in it), for every bucket that holds any.
fn buckets<'py>(py: Python<'py>, times: &Latencies) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    let histogram = times.histogram();
    for bucket in histogram.iter_recorded() {
        let top = Duration::from_micros(histogram.highest_equivalent(bucket.value_iterated_to()));
        list.append((top.as_secs_f64(), bucket.count_at_value()))?;
    }
    Ok(list)
}
