//! How long to leave an endpoint alone after a connect failed.

use std::time::Duration;

use crate::flow::Moment;

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(5);

/// Connects that failed in a row, and the pause after the last: 10 ms, doubled by each further failure up to 5 s, of
/// which a random part up to one half is left out.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Moment,
}

impl Backoff {
    pub(super) fn fail(&mut self, now: Moment, random: &mut fastrand::Rng) {
        let pause = SHORTEST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = now + pause.mul_f64(1.0 - random.f64() / 2.0);
    }

    pub(super) fn succeed(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// The end of the pause; in the past where there is none.
    pub(super) fn until(&self) -> Moment {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_from_ten_milliseconds_to_five_seconds() {
        let (mut backoff, mut random) = (Backoff::default(), fastrand::Rng::with_seed(1));
        let now = Moment::from_nanos(7);
        let pauses: Vec<_> = (0..40)
            .map(|_| {
                backoff.fail(now, &mut random);
                backoff.until().since(now).as_secs_f64()
            })
            .collect();
        for (failure, pause) in pauses.iter().enumerate() {
            let full = (0.01 * 2_f64.powi(i32::try_from(failure).unwrap())).min(5.0);
            assert!((full / 2.0..=full).contains(pause), "{pause} after failure {failure}");
        }
        assert!(backoff.is_failing());
        backoff.succeed();
        assert!(!backoff.is_failing() && backoff.until() < now);
    }
}
