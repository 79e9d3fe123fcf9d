//! What prediction is allowed, and what it says of itself.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;
use crate::models::ModelId;

/// What prediction may take, and how much it remembers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PredictSettings {
    /// Share of the memory, above 0 and at most 1, that may hold models which were loaded because they were expected and
    /// which nobody has asked for yet. 0.25 unless told otherwise.
    pub share: f64,
    /// How many models are named for each request when the accuracy is counted. 2 unless told otherwise.
    pub top: usize,
    /// Requests that the accuracy is counted over, and that the counts of what is popular fade over; at least 100. Nothing is
    /// predicted before 100 of them were seen. 1000 unless told otherwise.
    pub history: usize,
    /// Sessions that are remembered; the one that was quiet for longest is forgotten first. 10,000 unless told otherwise.
    pub sessions: usize,
}

impl Default for PredictSettings {
    fn default() -> Self {
        Self { share: 0.25, top: 2, history: 1000, sessions: 10_000 }
    }
}

/// Most models that can be named for a request.
pub(super) const MOST_NAMED: usize = 4;
/// Fewest requests that say anything about accuracy.
pub(super) const FEWEST: usize = 100;

impl PredictSettings {
    /// # Errors
    ///
    /// A `Config` error that names the setting and its limit.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Config, text));
        if !(self.share > 0.0 && self.share <= 1.0) {
            return wrong(format!(
                "predict's share of the memory is {}: it must be above 0 and at most 1",
                self.share
            ));
        }
        if self.top == 0 || self.top > MOST_NAMED {
            return wrong(format!("predict's top is {}: it must be between 1 and {MOST_NAMED}", self.top));
        }
        if self.history < FEWEST {
            return wrong(format!(
                "predict's history is {} requests: it must be at least {FEWEST}",
                self.history
            ));
        }
        if self.sessions == 0 {
            return wrong("predict remembers 0 sessions: it must remember at least 1".to_owned());
        }
        Ok(())
    }
}

/// What made a model expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Because {
    /// A session whose model it is will probably go on.
    Session,
    /// It is asked for at regular times, and the next one is near.
    Rhythm,
}

/// What a load would take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prospect {
    /// Bytes that it would add: the model, and what it needs that is not there.
    pub bytes: u64,
    /// Seconds that it would last.
    pub load_seconds: f64,
}

/// A model that should be loaded now, though nobody has asked for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish {
    /// The model.
    pub model: ModelId,
    /// When it will no longer be expected.
    pub until: Moment,
    /// How likely it is that somebody asks for it before it would be evicted, from 0 to 1.
    pub likely: f64,
    /// What it saves in the mean: seconds of loading that nobody has to wait for.
    pub saves: f64,
    /// What its load takes.
    pub prospect: Prospect,
    /// Why.
    pub because: Because,
}

impl Wish {
    pub(super) fn new(
        model: ModelId,
        until: Moment,
        likely: f64,
        prospect: Prospect,
        because: Because,
    ) -> Self {
        Self { model, until, likely, saves: likely * prospect.load_seconds, prospect, because }
    }
}

/// How often what was expected is what came, over the latest requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Accuracy {
    /// Share of requests whose model was the one named first.
    pub first: f64,
    /// Share of requests whose model was among those named.
    pub named: f64,
    /// As `first`, where the most popular model is named every time.
    pub popular_first: f64,
    /// As `named`, where the most popular models are named every time.
    pub popular_named: f64,
    /// Requests since the beginning.
    pub requests: u64,
}

/// What prediction says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PredictReport {
    /// True while models are loaded because of it: it does better than naming what is popular.
    pub on: bool,
    /// True while sessions are followed.
    pub sessions_on: bool,
    /// True while regular times are kept.
    pub rhythms_on: bool,
    /// How often it was right, over the latest `history` requests.
    pub accuracy: Accuracy,
    /// The same over requests of sessions.
    pub sessions: Accuracy,
    /// The same over times at which a request was due; `requests` counts those times.
    pub rhythms: Accuracy,
    /// How often it was right since the beginning.
    pub ever: Accuracy,
    /// Models that are asked for at regular times.
    pub rhythms_known: usize,
    /// Sessions that are remembered.
    pub sessions_known: usize,
    /// Loads that have begun because of it.
    pub issued: u64,
    /// Of these, those whose model was asked for before it left.
    pub used: u64,
    /// Of these, those whose model left, or failed, before anybody asked for it.
    pub wasted: u64,
    /// Of these, those that are still to be used.
    pub waiting: u64,
    /// Bytes of those that are still to be used.
    pub waiting_bytes: u64,
    /// Memory that held what was wasted, in byte-seconds.
    pub wasted_byte_seconds: f64,
    /// Time that was spent on loading what was wasted, in seconds.
    pub wasted_load_seconds: f64,
    /// Time that was spent on loading what was used: nobody waited for it, or not for all of it. In seconds.
    pub saved_load_seconds: f64,
    /// How long a model lies idle, of late, until it is evicted.
    pub idle: Duration,
}

impl PredictReport {
    /// Share of the loads that were used, of those of which it is known; 1 where there is none.
    pub fn used_share(&self) -> f64 {
        let known = self.used + self.wasted;
        if known == 0 { 1.0 } else { share(self.used, known) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
