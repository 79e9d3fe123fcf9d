//! What a cache says about itself, as dictionaries by the names of the fields in `penstock._cache_records`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::models::predict::{Accuracy, PredictReport};
use crate::models::progress::Progress;
use crate::models::{CacheStats, Evictions, IndexRow, LastEviction, ModelStats, Reason, WhatIf};

pub(super) fn stats<'py>(py: Python<'py>, stats: &CacheStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("hits", stats.hits)?;
    dict.set_item("misses", stats.misses)?;
    dict.set_item("joins", stats.joins)?;
    dict.set_item("hit_rate", stats.hit_rate)?;
    dict.set_item("byte_hit_rate", stats.byte_hit_rate)?;
    dict.set_item("cost_hit_rate", stats.cost_hit_rate)?;
    dict.set_item("loads", stats.loads)?;
    dict.set_item("failures", stats.failures)?;
    dict.set_item("timeouts", stats.timeouts)?;
    dict.set_item("retries", stats.retries)?;
    dict.set_item("cancelled", stats.cancelled)?;
    let seconds = PyDict::new(py);
    seconds.set_item("sum", stats.load_seconds.sum)?;
    seconds.set_item("p50", stats.load_seconds.p50)?;
    seconds.set_item("p95", stats.load_seconds.p95)?;
    dict.set_item("load_seconds", seconds)?;
    dict.set_item("queue_seconds", stats.queue_seconds)?;
    dict.set_item("queued", stats.queued)?;
    dict.set_item("loading", stats.loading)?;
    dict.set_item("stuck", stats.stuck)?;
    dict.set_item("evictions", evictions(py, &stats.evictions)?)?;
    dict.set_item("bytes", bytes(py, stats)?)?;
    let preloads = PyDict::new(py);
    preloads.set_item("issued", stats.preloads.issued)?;
    preloads.set_item("used", stats.preloads.used)?;
    preloads.set_item("wasted", stats.preloads.wasted)?;
    preloads.set_item("joined", stats.preloads.joined)?;
    dict.set_item("preloads", preloads)?;
    let predictions = stats.predictions.as_ref().map(|report| predictions(py, report)).transpose()?;
    dict.set_item("predictions", predictions)?;
    let models = PyDict::new(py);
    for one in &stats.models {
        models.set_item(format!("{}@{}", one.name, one.version), model(py, one)?)?;
    }
    dict.set_item("models", models)?;
    Ok(dict)
}

fn predictions<'py>(py: Python<'py>, report: &PredictReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("on", report.on)?;
    dict.set_item("sessions_on", report.sessions_on)?;
    dict.set_item("rhythms_on", report.rhythms_on)?;
    dict.set_item("accuracy", accuracy(py, &report.accuracy)?)?;
    dict.set_item("sessions", accuracy(py, &report.sessions)?)?;
    dict.set_item("rhythms", accuracy(py, &report.rhythms)?)?;
    dict.set_item("ever", accuracy(py, &report.ever)?)?;
    dict.set_item("rhythms_known", report.rhythms_known)?;
    dict.set_item("sessions_known", report.sessions_known)?;
    dict.set_item("issued", report.issued)?;
    dict.set_item("used", report.used)?;
    dict.set_item("wasted", report.wasted)?;
    dict.set_item("waiting", report.waiting)?;
    dict.set_item("waiting_bytes", report.waiting_bytes)?;
    dict.set_item("used_share", report.used_share())?;
    dict.set_item("wasted_byte_seconds", report.wasted_byte_seconds)?;
    dict.set_item("wasted_load_seconds", report.wasted_load_seconds)?;
    dict.set_item("saved_load_seconds", report.saved_load_seconds)?;
    Ok(dict)
}

fn accuracy<'py>(py: Python<'py>, accuracy: &Accuracy) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("first", accuracy.first)?;
    dict.set_item("named", accuracy.named)?;
    dict.set_item("popular_first", accuracy.popular_first)?;
    dict.set_item("popular_named", accuracy.popular_named)?;
    dict.set_item("requests", accuracy.requests)?;
    Ok(dict)
}

fn bytes<'py>(py: Python<'py>, stats: &CacheStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("used", stats.bytes.used)?;
    dict.set_item("ready", stats.bytes.ready)?;
    dict.set_item("reserved", stats.bytes.reserved)?;
    dict.set_item("draining", stats.bytes.draining)?;
    dict.set_item("viewed", stats.bytes.viewed)?;
    dict.set_item("memory", stats.bytes.memory)?;
    dict.set_item("deficit", stats.bytes.deficit)?;
    Ok(dict)
}

fn model<'py>(py: Python<'py>, stats: &ModelStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("hits", stats.hits)?;
    dict.set_item("misses", stats.misses)?;
    dict.set_item("joins", stats.joins)?;
    dict.set_item("loads", stats.loads)?;
    dict.set_item("failures", stats.failures)?;
    dict.set_item("timeouts", stats.timeouts)?;
    dict.set_item("cancelled", stats.cancelled)?;
    dict.set_item("load_seconds", stats.load_seconds)?;
    dict.set_item("evictions", evictions(py, &stats.evictions)?)?;
    let last = stats.last_eviction.as_ref().map(|last| eviction(py, last)).transpose()?;
    dict.set_item("last_eviction", last)?;
    Ok(dict)
}

fn eviction<'py>(py: Python<'py>, last: &LastEviction) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("reason", last.reason.name())?;
    dict.set_item("age", last.age.as_secs_f64())?;
    dict.set_item("ago", last.ago.as_secs_f64())?;
    Ok(dict)
}

/// Reasons that came up, and how often.
fn evictions<'py>(py: Python<'py>, evictions: &Evictions) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for reason in Reason::ALL {
        let count = evictions.of(reason);
        if count > 0 {
            dict.set_item(reason.name(), count)?;
        }
    }
    Ok(dict)
}

pub(super) fn index_row<'py>(py: Python<'py>, row: &IndexRow) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", &*row.name)?;
    dict.set_item("version", &*row.version)?;
    dict.set_item("state", row.state.name())?;
    dict.set_item("reason", row.reason.as_deref())?;
    dict.set_item("bytes", row.bytes)?;
    dict.set_item("leases", row.leases)?;
    dict.set_item("pinned", row.pinned)?;
    dict.set_item("default", row.default)?;
    let aliases: Vec<&str> = row.aliases.iter().map(|alias| &**alias).collect();
    dict.set_item("aliases", aliases)?;
    let requires: Vec<&str> = row.requires.iter().map(|reference| &**reference).collect();
    dict.set_item("requires", requires)?;
    Ok(dict)
}

pub(super) fn what_if<'py>(py: Python<'py>, what_if: &WhatIf) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("memory", what_if.memory)?;
    dict.set_item("accesses", what_if.accesses)?;
    dict.set_item("hits", what_if.hits)?;
    dict.set_item("hit_rate", what_if.hit_rate)?;
    dict.set_item("load_seconds", what_if.load_seconds)?;
    Ok(dict)
}

/// How far a model is; the model by its number.
pub(super) fn progress<'py>(py: Python<'py>, progress: &Progress) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("model", progress.model.0)?;
    dict.set_item("state", progress.state.name())?;
    dict.set_item("phase", &*progress.phase)?;
    dict.set_item("fraction", progress.fraction)?;
    dict.set_item("position", progress.position)?;
    dict.set_item("elapsed", progress.elapsed.as_secs_f64())?;
    dict.set_item("eta", progress.eta.map(|eta| eta.as_secs_f64()))?;
    Ok(dict)
}
