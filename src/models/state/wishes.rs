//! What is loaded because it is expected to be asked for.

use super::State;
use crate::error::Result;
use crate::flow::Moment;
use crate::models::{CacheSettings, ModelId};

/// What prediction keeps between calls.
pub(super) struct Wishes {}

impl Wishes {
    pub(super) fn new(settings: &CacheSettings) -> Result<Self> {
        settings.predict.as_ref().map_or(Ok(()), crate::models::predict::PredictSettings::check)?;
        Ok(Self {})
    }

    /// A model is asked for, found or not. On the hit's path.
    pub(super) fn note(&mut self, _id: ModelId, _session: Option<&str>, _now: Moment) {}

    /// When prediction wants to be asked again.
    pub(super) fn due(&self) -> Option<Moment> {
        None
    }
}

impl State {
    /// Loads what is expected.
    pub(super) fn wish(&mut self, _now: Moment) {}

    /// True where `victim` is worth less than what `wanted`, which nobody has asked for yet, would bring.
    pub(super) fn worth_less(&self, _victim: ModelId, _wanted: ModelId, _now: Moment) -> bool {
        false
    }
}
