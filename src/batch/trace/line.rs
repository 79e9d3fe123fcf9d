//! The lines of a trace.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::batch::{Adaptive, BatchPolicy, Budget, Dispatch};
use crate::tensor::Padding;

/// The version of the format that is written, and the only one that is read.
pub(super) const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Line {
    /// The first: what wrote the file.
    Head { penstock_trace: u32, workers: usize, policy: PolicyLine },
    /// Requests came.
    Arrival {
        at: f64,
        rows: u32,
        cost: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<f64>,
    },
    /// The function ran a batch whole.
    Batch { taken: f64, batch: usize, cost: u64, took: f64 },
    /// So many lines are missing here.
    Dropped { dropped: u64 },
}

/// A policy, as far as times and sizes go, by the names that Python gives its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyLine {
    max_batch_size: usize,
    min_batch_size: usize,
    max_wait: f64,
    dispatch: String,
    max_queue: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    smallest: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    preferred_batch_sizes: Vec<usize>,
    /// Requests cost what they say.
    #[serde(default)]
    costed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_batch_cost: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_queue_cost: Option<u64>,
    /// Rows are filled up, to a multiple of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pad_multiple: Option<usize>,
    aging: f64,
}

impl From<&BatchPolicy> for PolicyLine {
    fn from(policy: &BatchPolicy) -> Self {
        let budget = policy.budget.unwrap_or_default();
        let target = policy.adaptive.and_then(|adaptive| adaptive.target);
        Self {
            max_batch_size: policy.max_size,
            min_batch_size: policy.min_size,
            max_wait: policy.max_wait.as_secs_f64(),
            dispatch: if policy.dispatch == Dispatch::Tick { "tick" } else { "window" }.to_owned(),
            max_queue: policy.max_queue,
            smallest: policy.adaptive.map(|adaptive| adaptive.low),
            target: target.map(|target| target.as_secs_f64()),
            preferred_batch_sizes: policy.preferred.clone(),
            costed: policy.budget.is_some(),
            max_batch_cost: budget.max_batch,
            max_queue_cost: budget.max_queue,
            pad_multiple: budget.padding.map(|padding| padding.multiple),
            aging: policy.aging.as_secs_f64(),
        }
    }
}

impl PolicyLine {
    /// The policy; `None` where it holds what is no time, or contradicts itself.
    pub(super) fn policy(&self) -> Option<BatchPolicy> {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
        let target = match self.target {
            Some(target) => Some(seconds(target)?),
            None => None,
        };
        let padding =
            self.pad_multiple.map(|multiple| Padding { multiple, value_bits: 0, columns: u64::MAX });
        let budget = Budget { max_batch: self.max_batch_cost, max_queue: self.max_queue_cost, padding };
        let policy = BatchPolicy {
            min_size: self.min_batch_size,
            max_size: self.max_batch_size,
            adaptive: self.smallest.map(|low| Adaptive { low, target }),
            preferred: self.preferred_batch_sizes.clone(),
            max_wait: seconds(self.max_wait)?,
            dispatch: match self.dispatch.as_str() {
                "tick" => Dispatch::Tick,
                "window" => Dispatch::Window,
                _ => return None,
            },
            max_queue: self.max_queue,
            budget: self.costed.then_some(budget),
            aging: seconds(self.aging)?,
            weights: Vec::new(),
            alone: false,
        };
        policy.check().is_ok().then_some(policy)
    }
}
