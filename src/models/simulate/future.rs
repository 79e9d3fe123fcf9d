//! What no cache can know: when each model is asked for next.

use std::collections::HashMap;

use crate::flow::Moment;
use crate::models::ModelId;

/// When each model is asked for.
#[derive(Debug, Default)]
pub(super) struct Future {
    asked: HashMap<ModelId, Vec<Moment>>,
}

impl Future {
    /// From requests in the order of their time.
    pub(super) fn new(asks: impl Iterator<Item = (Moment, ModelId)>) -> Self {
        let mut future = Self::default();
        for (at, model) in asks {
            future.asked.entry(model).or_default().push(at);
        }
        future
    }

    /// The sooner a model is asked for again, the more it is worth to keep.
    pub(super) fn worth(&self, model: ModelId, now: Moment) -> f64 {
        let asked = self.asked.get(&model).map(Vec::as_slice).unwrap_or_default();
        let next = asked.get(asked.partition_point(|at| *at <= now));
        next.map_or(f64::NEG_INFINITY, |next| -next.since(now).as_secs_f64())
    }
}
