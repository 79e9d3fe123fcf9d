//! What a model and a cache are told when they are made.

use std::sync::Arc;
use std::time::Duration;

use super::policy::PolicyKind;
use super::predict::PredictSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Moment, Priority};

/// A model that can be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadSpec {
    /// What it is called, without its version.
    pub name: Arc<str>,
    /// Which of that name it is. Numbers compare as numbers; the highest is the default.
    pub version: Arc<str>,
    /// References to what must be loaded before it: `name`, `name@version`, `name@alias` or `alias`.
    pub requires: Vec<Arc<str>>,
    /// Bytes that it will take, where that is known. What is measured replaces it.
    pub size: Option<u64>,
    /// How long one load may last, from its start; the time in the queue does not count. 30 s unless told otherwise.
    pub timeout: Duration,
    /// How often a load that failed is tried again within one request. 1 unless told otherwise.
    pub retries: u32,
    /// The longest pause before the first retry, doubled for each further one; the pause is drawn from below it. 0.5 s
    /// unless told otherwise.
    pub backoff: Duration,
    /// True where it is never evicted once it is loaded.
    pub pinned: bool,
    /// Reference to the model that is given where this one cannot be loaded.
    pub fallback: Option<Arc<str>>,
}

impl LoadSpec {
    /// A model of that name and version, with everything else as it is unless told otherwise.
    pub fn new(name: impl Into<Arc<str>>, version: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            requires: Vec::new(),
            size: None,
            timeout: Duration::from_secs(30),
            retries: 1,
            backoff: Duration::from_millis(500),
            pinned: false,
            fallback: None,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.timeout.is_zero() {
            let text = format!("timeout of model '{}' is zero: no load could end in time", self.name);
            return Err(Error::new(ErrorKind::Config, text));
        }
        Ok(())
    }
}

/// How a cache works.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSettings {
    /// Bytes that all models together may take; `None` for no limit.
    pub memory: Option<u64>,
    /// Loads at a time. 3 unless told otherwise.
    pub max_loads: usize,
    /// What leaves where there is no room.
    pub policy: PolicyKind,
    /// What is loaded because it is expected to be asked for; `None` for nothing.
    pub predict: Option<PredictSettings>,
    /// How long a failure is remembered, doubled for each further one up to five minutes. 5 s unless told otherwise.
    pub failure_memory: Duration,
    /// How long a load may wait for memory. 180 s unless told otherwise.
    pub space_timeout: Duration,
    /// How long a load waits in the queue until it stands one class higher. 10 s unless told otherwise.
    pub aging: Duration,
    /// What jitter is drawn from.
    pub seed: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            memory: None,
            max_loads: 3,
            policy: PolicyKind::Lru,
            predict: None,
            failure_memory: Duration::from_secs(5),
            space_timeout: Duration::from_mins(3),
            aging: Duration::from_secs(10),
            seed: 0,
        }
    }
}

impl CacheSettings {
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::new(ErrorKind::Config, text));
        if self.max_loads == 0 {
            return wrong("max_loads is 0: nothing could be loaded");
        }
        if self.memory == Some(0) {
            return wrong("memory is 0 bytes: nothing could be loaded");
        }
        if self.aging.is_zero() {
            return wrong("aging is zero: every load would stand in the highest class at once");
        }
        Ok(())
    }
}

/// Who asks for a model.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Whose load goes first.
    pub priority: Priority,
    /// When the answer comes too late: who still waits then is told `DeadlineExceeded`.
    pub until: Option<Moment>,
    /// Whose request it is, for prediction.
    pub session: Option<&'a str>,
}
