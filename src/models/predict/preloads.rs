//! Loads that prediction caused: the memory that they hold until they are used, and what became of them.

use std::time::Duration;

use super::settings::{PredictReport, Prospect};
use crate::flow::Moment;
use crate::models::ModelId;

/// A load that was caused, and whose model nobody has asked for yet.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    model: ModelId,
    bytes: u64,
    load_seconds: f64,
    since: Moment,
    until: Moment,
}

/// All that wait, and the counts of those that do no longer.
#[derive(Debug, Default)]
pub(super) struct Preloads {
    waiting: Vec<Waiting>,
    issued: u64,
    used: u64,
    wasted: u64,
    wasted_byte_seconds: f64,
    wasted_load_seconds: f64,
    saved_load_seconds: f64,
}

impl Preloads {
    pub(super) fn issue(&mut self, model: ModelId, prospect: Prospect, now: Moment, until: Moment) {
        let Prospect { bytes, load_seconds } = prospect;
        self.issued += 1;
        self.waiting.push(Waiting { model, bytes, load_seconds, since: now, until });
    }

    /// Its load took that long, and it has that size.
    pub(super) fn loaded(&mut self, model: ModelId, bytes: u64, took: Duration) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.model == model) {
            (waiting.bytes, waiting.load_seconds) = (bytes, took.as_secs_f64());
        }
    }

    /// Somebody asked for it.
    pub(super) fn used(&mut self, model: ModelId) {
        if let Some(waiting) = self.take(model) {
            self.used += 1;
            self.saved_load_seconds += waiting.load_seconds;
        }
    }

    /// It left, or its load failed or was not begun.
    pub(super) fn gone(&mut self, model: ModelId, now: Moment) {
        if let Some(waiting) = self.take(model) {
            self.wasted += 1;
            self.wasted_load_seconds += waiting.load_seconds;
            #[expect(clippy::cast_precision_loss, reason = "bytes stay below 2^52")]
            let bytes = waiting.bytes as f64;
            self.wasted_byte_seconds += bytes * now.since(waiting.since).as_secs_f64();
        }
    }

    fn take(&mut self, model: ModelId) -> Option<Waiting> {
        let place = self.waiting.iter().position(|waiting| waiting.model == model)?;
        Some(self.waiting.swap_remove(place))
    }

    /// Bytes of those that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.waiting.iter().fold(0, |sum, waiting| sum.saturating_add(waiting.bytes))
    }

    pub(super) fn waits(&self, model: ModelId) -> bool {
        self.waiting.iter().any(|waiting| waiting.model == model)
    }

    /// True while what it was loaded for is still expected.
    pub(super) fn expected(&self, model: ModelId, now: Moment) -> bool {
        self.waiting.iter().any(|waiting| waiting.model == model && now <= waiting.until)
    }

    pub(super) fn report(&self, report: &mut PredictReport) {
        (report.issued, report.used, report.wasted) = (self.issued, self.used, self.wasted);
        report.waiting = self.issued - self.used - self.wasted;
        report.waiting_bytes = self.bytes();
        report.wasted_byte_seconds = self.wasted_byte_seconds;
        report.wasted_load_seconds = self.wasted_load_seconds;
        report.saved_load_seconds = self.saved_load_seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_saved_and_what_leaves_is_wasted() {
        let (mut preloads, begin) = (Preloads::default(), Moment::default());
        let second = |seconds| begin + Duration::from_secs(seconds);
        let prospect = Prospect { bytes: 100, load_seconds: 5.0 };
        preloads.issue(ModelId(1), prospect, begin, second(60));
        preloads.issue(ModelId(2), prospect, begin, second(60));
        preloads.issue(ModelId(3), prospect, begin, second(60));
        preloads.loaded(ModelId(2), 300, Duration::from_secs(7));
        assert_eq!(preloads.bytes(), 500);
        assert!(preloads.expected(ModelId(1), second(60)) && !preloads.expected(ModelId(1), second(61)));
        preloads.used(ModelId(1));
        preloads.used(ModelId(1));
        preloads.gone(ModelId(2), second(10));
        let mut report = PredictReport::default();
        preloads.report(&mut report);
        assert_eq!((report.issued, report.used, report.wasted, report.waiting, report.waiting_bytes), (3, 1, 1, 1, 100));
        assert_eq!((report.wasted_byte_seconds, report.wasted_load_seconds, report.saved_load_seconds), (3000.0, 7.0, 5.0));
        assert_eq!(report.used_share(), 0.5);
    }
}
