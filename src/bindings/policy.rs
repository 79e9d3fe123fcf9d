//! A batching policy as Python says it.

use std::time::Duration;

use pyo3::prelude::*;

use crate::batch::{Adaptive, BatchPolicy, Budget, Dispatch};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::tensor::Padding;

use super::convert::pricing::Pricing;
use super::errors::to_python;

/// The record that `penstock.BatchPolicy` makes of itself, read by its field names; times in seconds.
#[derive(FromPyObject)]
pub(crate) struct Policy {
    min_size: usize,
    pub(crate) max_size: usize,
    /// Where the cap adapts: what it never falls below.
    adaptive_low: Option<usize>,
    adaptive_target: Option<f64>,
    preferred: Vec<usize>,
    max_wait: f64,
    dispatch: String,
    pub(crate) max_queue: usize,
    /// Requests cost what they say.
    costed: bool,
    max_batch_cost: Option<u64>,
    max_queue_cost: Option<u64>,
    pad_multiple: Option<usize>,
    pad_value: f64,
    aging: f64,
    weights: Vec<(String, f64)>,
    /// Split a batch that raises, so that only the guilty fail.
    pub(crate) isolate: bool,
    /// Compute identical inputs in flight once.
    pub(crate) single_flight: bool,
    cost: Option<Py<PyAny>>,
    key: Option<Py<PyAny>>,
}

impl Policy {
    /// Its functions that are asked about each item.
    pub(crate) fn pricing(&mut self) -> Pricing {
        Pricing::new(self.key.take(), self.costed, self.cost.take())
    }

    /// The core's own form of it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a time that is none.
    pub(crate) fn into_core(self) -> CoreResult<BatchPolicy> {
        let target = self.adaptive_target.map(|target| seconds("target", target)).transpose()?;
        let padding = self.pad_multiple.map(|multiple| Padding {
            multiple,
            value_bits: self.pad_value.to_bits(),
            columns: u64::MAX,
        });
        let budget = Budget { max_batch: self.max_batch_cost, max_queue: self.max_queue_cost, padding };
        Ok(BatchPolicy {
            min_size: self.min_size,
            max_size: self.max_size,
            adaptive: self.adaptive_low.map(|low| Adaptive { low, target }),
            preferred: self.preferred,
            max_wait: seconds("max_wait", self.max_wait)?,
            dispatch: if self.dispatch == "window" { Dispatch::Window } else { Dispatch::Tick },
            max_queue: self.max_queue,
            budget: self.costed.then_some(budget),
            aging: seconds("aging", self.aging)?,
            weights: self.weights,
            alone: false,
        })
    }
}

fn seconds(name: &str, value: f64) -> CoreResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| Error::new(ErrorKind::Config, format!("{name}={value} is no duration in seconds")))
}

/// Refuses a policy that contradicts itself, with `ConfigError`.
#[pyfunction]
pub(crate) fn check_policy(py: Python<'_>, policy: Policy) -> PyResult<()> {
    policy.into_core().and_then(|policy| policy.check()).map_err(|error| to_python(py, &error))
}
