//! What a client counts, and why its requests wait, as dictionaries.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::client::{Client, EndpointStats, StreamCount};
use crate::pool::Retired;

/// The numbers, endpoint by endpoint; times in seconds.
pub(super) fn counters<'py>(py: Python<'py>, client: &Client) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for EndpointStats { endpoint, outstanding, ejected, pool, .. } in client.stats() {
        let dict = PyDict::new(py);
        dict.set_item("endpoint", &*endpoint)?;
        dict.set_item("outstanding", outstanding)?;
        dict.set_item("ejected", ejected)?;
        dict.set_item("size", pool.size)?;
        dict.set_item("idle", pool.idle)?;
        dict.set_item("in_use", pool.in_use)?;
        dict.set_item("leases", pool.leases)?;
        dict.set_item("waiting", pool.waiting)?;
        dict.set_item("connecting", pool.connecting)?;
        dict.set_item("created", pool.created)?;
        dict.set_item("failed", pool.failed)?;
        dict.set_item("acquired", pool.acquired)?;
        dict.set_item("reused", pool.reused)?;
        dict.set_item("reuse_rate", pool.reuse_rate())?;
        dict.set_item("waited", pool.waited)?;
        dict.set_item("timed_out", pool.timed_out)?;
        dict.set_item("cancelled", pool.cancelled)?;
        dict.set_item("refused", pool.refused)?;
        dict.set_item("checks_passed", pool.checks_passed)?;
        dict.set_item("checks_failed", pool.checks_failed)?;
        dict.set_item("held_too_long", pool.held_too_long)?;
        dict.set_item("wait_mean", pool.wait_mean.as_secs_f64())?;
        dict.set_item("wait_p50", pool.wait_p50.as_secs_f64())?;
        dict.set_item("wait_p99", pool.wait_p99.as_secs_f64())?;
        dict.set_item("wait_max", pool.wait_max.as_secs_f64())?;
        let retired = PyDict::new(py);
        for reason in Retired::ALL {
            retired.set_item(reason.name(), pool.retired_for(reason))?;
        }
        dict.set_item("retired", retired)?;
        list.append(dict)?;
    }
    Ok(list)
}

/// What all streams have come to.
pub(super) fn streams(py: Python<'_>, count: StreamCount) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("streams", count.opened)?;
    dict.set_item("streams_open", count.open)?;
    dict.set_item("streams_cancelled", count.cancelled)?;
    dict.set_item("streams_failed", count.failed)?;
    dict.set_item("streams_drained", count.drained)?;
    Ok(dict)
}

/// Who waits, for what and for how long, and who holds what they wait for; times in seconds.
pub(super) fn explain<'py>(py: Python<'py>, client: &Client) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for EndpointStats { endpoint, ejected, pool, explanation, .. } in client.stats() {
        let dict = PyDict::new(py);
        dict.set_item("endpoint", &*endpoint)?;
        dict.set_item("ejected", ejected)?;
        dict.set_item("size", pool.size)?;
        dict.set_item("in_use", pool.in_use)?;
        dict.set_item("connecting", pool.connecting)?;
        dict.set_item("waiting", explanation.waiting)?;
        dict.set_item("obstacle", explanation.obstacle.map(|obstacle| obstacle.to_string()))?;
        dict.set_item("oldest", explanation.oldest.map(|age| age.as_secs_f64()))?;
        dict.set_item("last_error", explanation.last_error.map(|error| error.to_string()))?;
        dict.set_item("retry_in", explanation.retry_in.map(|wait| wait.as_secs_f64()))?;
        let held = PyList::empty(py);
        for lease in explanation.held {
            held.append((lease.place.to_string(), lease.age.as_secs_f64()))?;
        }
        dict.set_item("held", held)?;
        list.append(dict)?;
    }
    Ok(list)
}
