//! Loads that prediction caused: the memory that they hold until they are used, and what became of them.

use super::settings::{PredictReport, Wish};
use crate::flow::Moment;
use crate::models::ModelId;

/// A wish that was granted, and whose model nobody has asked for yet.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    wish: Wish,
    /// Since when it holds its memory; `None` while its load has not begun.
    begun: Option<Moment>,
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
    pub(super) fn grant(&mut self, wish: &Wish) {
        self.waiting.push(Waiting { wish: *wish, begun: None });
    }

    /// Its load has begun.
    pub(super) fn begun(&mut self, model: ModelId, now: Moment) {
        let waiting =
            self.waiting.iter_mut().find(|waiting| waiting.wish.model == model && waiting.begun.is_none());
        if let Some(waiting) = waiting {
            waiting.begun = Some(now);
            self.issued += 1;
        }
    }

    /// Somebody asked for it. Where its load had not begun, that has become his.
    pub(super) fn used(&mut self, model: ModelId) {
        if let Some(Waiting { wish, begun: Some(_) }) = self.take(model) {
            self.used += 1;
            self.saved_load_seconds += wish.prospect.load_seconds;
        }
    }

    /// It left, or its load failed. Where its load had not begun, nothing was wasted.
    pub(super) fn gone(&mut self, model: ModelId, now: Moment) {
        if let Some(Waiting { wish, begun: Some(begun) }) = self.take(model) {
            self.wasted += 1;
            self.wasted_load_seconds += wish.prospect.load_seconds;
            #[expect(clippy::cast_precision_loss, reason = "bytes stay below 2^52")]
            let bytes = wish.prospect.bytes as f64;
            self.wasted_byte_seconds += bytes * now.since(begun).as_secs_f64();
        }
    }

    fn take(&mut self, model: ModelId) -> Option<Waiting> {
        let place = self.waiting.iter().position(|waiting| waiting.wish.model == model)?;
        Some(self.waiting.swap_remove(place))
    }

    /// Bytes of those that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.waiting.iter().fold(0, |sum, waiting| sum.saturating_add(waiting.wish.prospect.bytes))
    }

    pub(super) fn saves(&self, model: ModelId) -> f64 {
        self.waiting
            .iter()
            .find(|waiting| waiting.wish.model == model)
            .map_or(0.0, |waiting| waiting.wish.saves)
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = ModelId> {
        self.waiting.iter().map(|waiting| waiting.wish.model)
    }

    /// True while what it was loaded for is still expected.
    pub(super) fn expected(&self, model: ModelId, now: Moment) -> bool {
        self.waiting.iter().any(|waiting| waiting.wish.model == model && now <= waiting.wish.until)
    }

    /// True where it waits though it is expected no longer.
    pub(super) fn came_to_nothing(&self, model: ModelId, now: Moment) -> bool {
        self.waiting.iter().any(|waiting| waiting.wish.model == model && now > waiting.wish.until)
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
    use std::time::Duration;

    use super::super::settings::{Because, Prospect};
    use super::*;

    #[test]
    fn what_is_used_is_saved_and_what_leaves_is_wasted() {
        let (mut preloads, begin) = (Preloads::default(), Moment::default());
        let second = |seconds| begin + Duration::from_secs(seconds);
        for model in 1..=5 {
            let prospect = Prospect { bytes: 100, load_seconds: 5.0 };
            preloads.grant(&Wish::new(ModelId(model), second(60), 0.9, prospect, Because::Rhythm));
        }
        (1..=3).for_each(|model| preloads.begun(ModelId(model), begin));
        assert_eq!(preloads.bytes(), 500);
        assert!(preloads.expected(ModelId(1), second(60)) && !preloads.expected(ModelId(1), second(61)));
        preloads.used(ModelId(1));
        preloads.used(ModelId(1));
        preloads.gone(ModelId(2), second(10));
        // These have not begun: nothing is counted.
        preloads.used(ModelId(4));
        preloads.gone(ModelId(5), second(10));
        let mut report = PredictReport::default();
        preloads.report(&mut report);
        assert_eq!(
            (report.issued, report.used, report.wasted, report.waiting, report.waiting_bytes),
            (3, 1, 1, 1, 100)
        );
        let seconds = (report.wasted_byte_seconds, report.wasted_load_seconds, report.saved_load_seconds);
        assert_eq!(seconds, (1000.0, 5.0, 5.0));
        assert!((report.used_share() - 0.5).abs() < f64::EPSILON);
    }
}
