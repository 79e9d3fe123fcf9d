//! How likely each model is asked for while it would lie in memory.

use std::time::Duration;

use super::gaps::Gaps;
use super::mixture::Mixture;
use super::sessions::Sessions;
use crate::flow::Moment;
use crate::models::ModelId;

/// What the latest interval between two draws weighs.
const LATEST: f64 = 0.05;

/// The chance of each model within the time that it would lie idle in memory, as it was when it was looked at last.
#[derive(Debug, Clone, Default)]
pub(super) struct Outlook {
    /// Minus the logarithm of the chance that no session which has used it comes back to it.
    by_session: Vec<f64>,
    /// Draws of any model that are to be expected in that time.
    draws: f64,
    /// Seconds between two draws, in the mean.
    interval: Option<f64>,
    drawn: Option<Moment>,
}

impl Outlook {
    /// A session has begun, or has gone on to another model.
    pub(super) fn draw(&mut self, now: Moment) {
        if let Some(before) = self.drawn.replace(now) {
            let gap = now.since(before).as_secs_f64();
            self.interval = Some(self.interval.map_or(gap, |mean| mean + LATEST * (gap - mean)));
        }
    }

    /// Looks at the latest sessions: which of them come back within `idle`, and to what.
    pub(super) fn look(
        &mut self,
        now: Moment,
        idle: Duration,
        most: usize,
        sessions: &mut Sessions,
        from: (&Mixture, &mut Gaps),
    ) {
        let (mixture, gaps) = from;
        self.by_session.iter_mut().for_each(|sum| *sum = 0.0);
        gaps.sum_up();
        for session in sessions.latest(most) {
            session.pause(now, gaps);
            let back = gaps.chance(now.since(session.last), idle);
            for (model, own) in session.recent.iter().zip(mixture.own(&session.recent)) {
                self.add(*model, back * own);
            }
        }
        let quiet = self.drawn.map_or(0.0, |drawn| now.since(drawn).as_secs_f64());
        self.draws = self.interval.map_or(0.0, |interval| idle.as_secs_f64() / interval.max(quiet).max(1e-3));
    }

    fn add(&mut self, model: ModelId, chance: f64) {
        let index = model.0 as usize;
        if self.by_session.len() <= index {
            self.by_session.resize(index + 1, 0.0);
        }
        if let Some(sum) = self.by_session.get_mut(index) {
            *sum -= (-chance.clamp(0.0, 0.999)).ln_1p();
        }
    }

    /// The chance that somebody asks for it in the time that was looked at.
    pub(super) fn likely(&self, model: ModelId, mixture: &Mixture) -> f64 {
        let by_session = self.by_session.get(model.0 as usize).copied().unwrap_or_default();
        -(-(by_session + self.draws * mixture.drawn(model))).exp_m1()
    }

    /// The models that sessions have used.
    pub(super) fn of_sessions(&self) -> impl Iterator<Item = ModelId> {
        let used = self.by_session.iter().enumerate().filter(|(_, sum)| **sum > 0.0);
        used.filter_map(|(index, _)| u32::try_from(index).ok().map(ModelId))
    }
}
