//! How far loads are.

use std::sync::Arc;
use std::time::Duration;

use super::{LoadState, ModelId};
use crate::flow::Moment;

/// Less than this of a load says too little about the rest of it.
const TELLING: f32 = 0.05;

/// Steps of a fraction that somebody who watches is told of: per cent.
const STEPS: f32 = 100.0;

/// How far a model is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Which model.
    pub model: ModelId,
    /// What is done with it.
    pub state: LoadState,
    /// What its loader says that it does; empty where it says nothing.
    pub phase: Arc<str>,
    /// How much of it is done, from 0 to 1, where its loader says so.
    pub fraction: Option<f32>,
    /// How many loads stand before it in the queue.
    pub position: Option<usize>,
    /// Time since its load began; zero before.
    pub elapsed: Duration,
    /// Time until it is ready, where that can be guessed.
    pub eta: Option<Duration>,
}

/// What the loader of one residency has said of late.
#[derive(Debug, Clone)]
pub struct Said {
    phase: Arc<str>,
    fraction: Option<f32>,
}

impl Said {
    /// Nothing yet.
    pub fn nothing() -> Self {
        Self { phase: Arc::from(""), fraction: None }
    }

    /// The loader says how far it is. A fraction beyond 0 and 1 is cut off, one that is no number is none, and within a phase
    /// it never goes back. True where whoever watches should know: another phase, or another per cent.
    pub fn report(&mut self, phase: &str, fraction: Option<f32>) -> bool {
        let fraction =
            fraction.filter(|fraction| !fraction.is_nan()).map(|fraction| fraction.clamp(0.0, 1.0));
        if *self.phase != *phase {
            (self.phase, self.fraction) = (phase.into(), fraction);
            return true;
        }
        let before = self.fraction;
        let forward = |fraction: f32| before.map_or(fraction, |before| before.max(fraction));
        self.fraction = fraction.map(forward).or(before);
        steps(before) != steps(self.fraction)
    }

    /// What it said that it does.
    pub fn phase(&self) -> &Arc<str> {
        &self.phase
    }

    /// How much it said is done.
    pub fn fraction(&self) -> Option<f32> {
        self.fraction
    }

    /// Time until a load that began at `started` is done: by how far it says that it is, else by how long such loads took
    /// (`usual`), whatever is known. Never less than nothing; `None` where nothing is known.
    pub fn eta(&self, started: Moment, usual: Option<Duration>, now: Moment) -> Option<Duration> {
        let elapsed = now.since(started);
        match self.fraction {
            Some(done) if done >= TELLING => Some(elapsed.mul_f32((1.0 - done) / done)),
            _ => usual.map(|usual| usual.saturating_sub(elapsed)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a fraction lies between 0 and 1"
)]
fn steps(fraction: Option<f32>) -> Option<u8> {
    fraction.map(|fraction| (fraction * STEPS) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn whoever_watches_is_told_of_phases_and_per_cents() {
        let mut said = Said::nothing();
        assert!(said.report("weights", None));
        assert!(!said.report("weights", None));
        assert!(said.report("weights", Some(0.101)));
        assert!(!said.report("weights", Some(0.104)), "the same per cent");
        assert!(said.report("weights", Some(0.2)));
        assert!(!said.report("weights", Some(0.1)), "it does not go back");
        assert!(!said.report("weights", None) && said.fraction() == Some(0.2));
        assert!(said.report("build", None));
        assert_eq!((&**said.phase(), said.fraction()), ("build", None));
    }

    #[test]
    fn fractions_that_cannot_be_are_made_to_fit() {
        let mut said = Said::nothing();
        said.report("", Some(f32::NAN));
        assert_eq!(said.fraction(), None);
        said.report("", Some(-1.0));
        assert_eq!(said.fraction(), Some(0.0));
        said.report("", Some(f32::INFINITY));
        assert_eq!(said.fraction(), Some(1.0));
    }

    #[test]
    fn the_rest_is_guessed_by_what_was_said_or_what_is_usual() {
        let mut said = Said::nothing();
        let usual = Some(Duration::from_secs(30));
        assert_eq!(said.eta(at(0), None, at(10)), None);
        assert_eq!(said.eta(at(0), usual, at(10)), Some(Duration::from_secs(20)));
        assert_eq!(said.eta(at(0), usual, at(40)), Some(Duration::ZERO));
        said.report("", Some(0.01));
        assert_eq!(said.eta(at(0), usual, at(10)), Some(Duration::from_secs(20)));
        said.report("", Some(0.25));
        assert_eq!(said.eta(at(0), usual, at(10)), Some(Duration::from_secs(30)));
        said.report("", Some(1.0));
        assert_eq!(said.eta(at(0), usual, at(10)), Some(Duration::ZERO));
    }
}
