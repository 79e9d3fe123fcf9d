//! How often what was named is what came, beside how often the most popular would have been.

use super::settings::{Accuracy, FEWEST};

/// How much oftener than popularity it must be right before it is acted on, and while it is.
const AHEAD: f64 = 0.05;
const STILL_AHEAD: f64 = 0.025;

/// Whether what came was the first that was named, and whether it was among those named.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Guess {
    pub(super) first: bool,
    pub(super) named: bool,
}

/// Means over the latest requests, and a switch that stands on while prediction is ahead of popularity.
#[derive(Debug, Clone)]
pub(super) struct Scorecard {
    /// First, named; the same of popularity.
    means: [f64; 4],
    ever: [u64; 4],
    requests: u64,
    history: f64,
    /// The least share that must be right, whatever popularity reaches.
    least: f64,
    on: bool,
}

impl Scorecard {
    #[expect(clippy::cast_precision_loss, reason = "a number of requests is far below 2^52")]
    pub(super) fn new(history: usize, least: f64) -> Self {
        Self { means: [0.0; 4], ever: [0; 4], requests: 0, history: history as f64, least, on: false }
    }

    /// What was guessed for a request, and what popularity would have guessed.
    pub(super) fn score(&mut self, own: Guess, popular: Guess) {
        self.requests += 1;
        #[expect(clippy::cast_precision_loss, reason = "a number of requests is far below 2^52")]
        // The step of a mean that looks back as far as one over so many requests does.
        let step = 1.0 / (self.requests as f64).min(f64::midpoint(self.history, 1.0));
        let values = [own.first, own.named, popular.first, popular.named];
        for ((mean, ever), value) in self.means.iter_mut().zip(&mut self.ever).zip(values) {
            *mean += step * (f64::from(value) - *mean);
            *ever += u64::from(value);
        }
        self.turn();
    }

    fn turn(&mut self) {
        let [_, own, _, popular] = self.means;
        let ahead = own - popular;
        self.on = self.requests >= FEWEST as u64
            && own >= self.least
            && ahead >= if self.on { STILL_AHEAD } else { AHEAD };
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Over the latest requests.
    pub(super) fn of_late(&self) -> Accuracy {
        let [first, named, popular_first, popular_named] = self.means;
        Accuracy { first, named, popular_first, popular_named, requests: self.requests }
    }

    /// Over all requests.
    pub(super) fn ever(&self) -> Accuracy {
        #[expect(clippy::cast_precision_loss, reason = "a number of requests is far below 2^52")]
        let [first, named, popular_first, popular_named] =
            self.ever.map(|count| count as f64 / (self.requests.max(1) as f64));
        Accuracy { first, named, popular_first, popular_named, requests: self.requests }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(right: bool) -> Guess {
        Guess { first: right, named: right }
    }

    #[test]
    fn it_turns_on_when_it_is_ahead_and_off_when_it_is_not() {
        let mut card = Scorecard::new(200, 0.0);
        (0..99).for_each(|_| card.score(guess(true), guess(false)));
        assert!(!card.is_on(), "99 requests are too few");
        card.score(guess(true), guess(false));
        assert!(card.is_on());
        (0..300).for_each(|_| card.score(guess(true), guess(true)));
        assert!(card.is_on(), "it is still a little ahead");
        (0..1_000).for_each(|turn| card.score(guess(turn % 2 == 0), guess(true)));
        assert!(!card.is_on());
        (0..1_000).for_each(|turn| card.score(guess(true), guess(turn % 2 == 0)));
        assert!(card.is_on(), "it went on scoring");
        assert_eq!(card.ever().requests, 2_400);
    }

    #[test]
    fn luck_does_not_turn_it_on() {
        let (mut card, mut random) = (Scorecard::new(1_000, 0.0), fastrand::Rng::with_seed(1));
        for turn in 0..100_000 {
            card.score(guess(random.f64() < 0.02), guess(random.f64() < 0.02));
            assert!(!card.is_on(), "after {turn} requests");
        }
    }

    #[test]
    fn what_is_seldom_right_stays_off_though_popularity_is_worse() {
        let mut card = Scorecard::new(200, 0.6);
        (0..1_000).for_each(|turn| card.score(guess(turn % 2 == 0), guess(false)));
        assert!(!card.is_on());
    }
}
