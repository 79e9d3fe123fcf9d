//! The load generator, for Python: `penstock.testing.load` documents it.

use std::time::Duration;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tokio::runtime::Builder;

use super::bridge::lock;
use super::errors::to_python;
use crate::bench::{Mode, Plan, Report, Spacing, Target, run};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::metrics::LockCounts;

/// How often the waiting thread lets Python look for Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// Quantiles that a report carries.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

/// Sends requests and reports; `rate` of 0 is the closed loop. Runs on a thread and a runtime of its own.
#[pyfunction]
#[pyo3(signature = (authority, path, bodies, *, clients, requests, rate, duration, deadline, keep))]
#[allow(clippy::too_many_arguments, reason = "keywords, called from one place")]
pub(crate) fn run_load<'py>(
    py: Python<'py>,
    authority: &str,
    path: &str,
    bodies: Vec<Vec<u8>>,
    clients: usize,
    requests: usize,
    rate: f64,
    duration: f64,
    deadline: f64,
    keep: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let mode = if rate > 0.0 {
        let duration = Duration::try_from_secs_f64(duration).unwrap_or_default();
        Mode::Open { rate_per_second: rate, duration, spacing: Spacing::Poisson { seed: 7 } }
    } else {
        Mode::Closed { requests_per_client: requests }
    };
    let plan = Target::new(authority, path).map(|target| {
        let bodies = bodies.into_iter().map(Bytes::from).collect();
        let mut plan = Plan::new(target, bodies, clients, mode);
        plan.deadline = Duration::try_from_secs_f64(deadline).unwrap_or(plan.deadline);
        plan.keep_bodies = keep;
        plan
    });
    let report = plan.map_err(|error| to_python(py, &error)).and_then(|plan| wait(py, plan))?;
    to_dict(py, &report, keep)
}

fn wait(py: Python<'_>, plan: Plan) -> PyResult<Report> {
    let (sender, mut receiver) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("penstock-load".to_owned());
    let started = thread.spawn(move || {
        // The receiver is gone where Ctrl-C ended the waiting.
        let _ = sender.send(drive(&plan));
    });
    started.map_err(PyErr::from)?;
    loop {
        // Exclusive, because a receiver is for one thread at a time.
        let receiver = &mut receiver;
        let came = lock::without(py, &LockCounts::new(), move || receiver.recv_timeout(SIGNAL_CHECK));
        match came {
            Ok(report) => return report.map_err(|error| to_python(py, &error)),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                let error = Error::new(ErrorKind::Internal, "the load generator panicked");
                return Err(to_python(py, &error));
            }
        }
    }
}

fn drive(plan: &Plan) -> CoreResult<Report> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Internal, "no runtime could be made", error))?;
    runtime.block_on(run(plan))
}

fn to_dict<'py>(py: Python<'py>, report: &Report, keep: bool) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("planned", report.planned)?;
    dict.set_item("answered", report.answered())?;
    dict.set_item("ok", report.ok)?;
    dict.set_item("failed", report.failed())?;
    dict.set_item("unfinished", report.unfinished)?;
    dict.set_item("reopened", report.reopened)?;
    dict.set_item("seconds", report.elapsed.as_secs_f64())?;
    dict.set_item("requests_per_second", report.throughput())?;
    dict.set_item("bytes_read", report.bytes_read)?;
    for (name, quantile) in QUANTILES {
        dict.set_item(name, report.quantile(quantile).as_secs_f64())?;
    }
    dict.set_item("max", report.latency.max().as_secs_f64())?;
    dict.set_item("mean", report.latency.mean().as_secs_f64())?;
    let statuses = PyDict::new(py);
    for (status, count) in &report.statuses {
        statuses.set_item(status, count)?;
    }
    dict.set_item("statuses", statuses)?;
    let answers = PyList::empty(py);
    if keep {
        for answer in report.answers() {
            let body = PyBytes::new(py, &answer.body);
            answers.append((answer.body_index, answer.status.as_u16(), body))?;
        }
    }
    dict.set_item("answers", answers)?;
    Ok(dict)
}
