//! Batches that are done, and sums over them, for Python.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::batch::{BatchAccount, BatchStats, Parts, Totals};
use crate::flow::{Clock, TimeSource};

/// What there is to say of each batch; the fields of `penstock.BatchRecord`, with times in seconds.
pub(crate) fn shown<'py>(
    py: Python<'py>,
    batches: &[Arc<BatchAccount>],
    clock: &TimeSource,
) -> PyResult<Bound<'py, PyList>> {
    let now = clock.now();
    let records = batches.iter().map(|batch| {
        let record = PyDict::new(py);
        record.set_item("number", batch.cut.number)?;
        record.set_item("age", now.since(batch.cut.taken).as_secs_f64())?;
        record.set_item("reason", batch.reason)?;
        record.set_item("size", batch.rows)?;
        record.set_item("cap", batch.cut.cap)?;
        record.set_item("cost", batch.cut.cost)?;
        record.set_item("padded_cost", batch.cut.padded_cost)?;
        for (name, part) in Parts::NAMES.into_iter().zip(batch.parts().each()) {
            record.set_item(name, part.as_secs_f64())?;
        }
        record.set_item("predicted", batch.cut.predicted.map(|time| time.as_secs_f64()))?;
        record.set_item("reruns", batch.reruns)?;
        record.set_item("failed", batch.failed)?;
        record.set_item("request_ids", batch.ids.iter().map(|id| &**id).collect::<Vec<_>>())?;
        Ok(record)
    });
    PyList::new(py, records.collect::<PyResult<Vec<_>>>()?)
}

/// Adds what is known of all batches to the counters.
pub(crate) fn count(counters: &Bound<'_, PyDict>, stats: &BatchStats, totals: &Totals) -> PyResult<()> {
    counters.set_item("hopeless", stats.hopeless)?;
    counters.set_item("expired", stats.expired)?;
    counters.set_item("joined", stats.joined)?;
    counters.set_item("out_of_memory", stats.out_of_memory)?;
    counters.set_item("cap", stats.cap)?;
    counters.set_item("padding", stats.padding())?;
    counters.set_item("prediction_error", totals.prediction_error())?;
    let waits = PyDict::new(counters.py());
    for (name, mean) in Parts::NAMES.into_iter().zip(totals.mean_spent()) {
        waits.set_item(name, mean)?;
    }
    counters.set_item("waits", waits)
}

/// Closes the account of a batch whose answers are out.
pub(crate) fn close(account: &mut BatchAccount, model: Duration, reruns: u32) {
    account.close(model);
    account.reruns = reruns;
}
