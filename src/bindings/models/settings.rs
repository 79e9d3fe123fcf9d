//! What Python says of a cache and of a model, checked there, as the core takes it.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::models::predict::PredictSettings;
use crate::models::{CacheSettings, LoadSpec, PolicyKind};

/// The items of the dictionary that says how a cache works.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct Settings {
    memory: Option<u64>,
    max_loads: usize,
    /// `lru`, `gdsf` or `ranked`.
    policy: String,
    /// The share of the memory that predictions may take; none where nothing is predicted.
    predict: Option<f64>,
    failure_memory: f64,
    space_timeout: f64,
    seed: u64,
}

impl Settings {
    pub(super) fn into_core(self) -> CoreResult<CacheSettings> {
        let policy = match self.policy.as_str() {
            "gdsf" => PolicyKind::Gdsf,
            "ranked" => PolicyKind::Ranked,
            _ => PolicyKind::Lru,
        };
        Ok(CacheSettings {
            memory: self.memory,
            max_loads: self.max_loads,
            policy,
            predict: self.predict.map(|share| PredictSettings { share, ..PredictSettings::default() }),
            failure_memory: seconds("failure_memory", self.failure_memory)?,
            space_timeout: seconds("space_timeout", self.space_timeout)?,
            seed: self.seed,
            ..CacheSettings::default()
        })
    }
}

/// The items of the dictionary that says how a model is loaded.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) version: String,
    requires: Vec<String>,
    size: Option<u64>,
    timeout: f64,
    retries: u32,
    backoff: f64,
    pinned: bool,
    fallback: Option<String>,
}

impl Spec {
    pub(super) fn into_core(self) -> CoreResult<LoadSpec> {
        Ok(LoadSpec {
            name: Arc::from(self.name),
            version: Arc::from(self.version),
            requires: self.requires.into_iter().map(Arc::from).collect(),
            size: self.size,
            timeout: seconds("timeout", self.timeout)?,
            retries: self.retries,
            backoff: seconds("backoff", self.backoff)?,
            pinned: self.pinned,
            fallback: self.fallback.map(Arc::from),
        })
    }
}

/// A length of time.
pub(super) fn seconds(name: &str, value: f64) -> CoreResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        Error::new(ErrorKind::Config, format!("{name} must be a number of seconds from 0, not {value}"))
    })
}
