//! How long sessions pause: the chance that one which is quiet goes on soon.

use std::time::Duration;

/// Spans of time, each half as long again as the one before; the last ends after a day.
const SPANS: usize = 30;
const LAST_SPAN: f64 = 29.0;
const RATIO: f64 = 1.5;
/// Of pauses that reach a span of which nothing is known, those that end in it; and what that guess weighs.
const GUESS: f64 = 0.1;
const GUESS_WEIGHT: f64 = 4.0;
/// Pauses after which the old ones count half.
const MEMORY: f64 = 20_000.0;

/// How many pauses reached each span, and how many ended in it. A session that never comes back has reached and not
/// ended, so those that are left for good count as what they are (the life table of Kaplan and Meier, 1958).
#[derive(Debug, Clone)]
pub(super) struct Gaps {
    reached: [f64; SPANS],
    ended: [f64; SPANS],
    /// Hazard summed up to the beginning of each span; made anew by [`sum_up`](Self::sum_up).
    until: [f64; SPANS + 1],
}

/// The span that a pause of that length lies in.
pub(super) fn span(pause: Duration) -> u8 {
    let seconds = pause.as_secs_f64();
    if seconds < 1.0 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 29")]
    let span = (1.0 + seconds.ln() / RATIO.ln()).min(LAST_SPAN) as u8;
    span
}

fn begins(span: usize) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 30")]
    let power = span as i32 - 1;
    if span == 0 { 0.0 } else { RATIO.powi(power) }
}

impl Gaps {
    pub(super) fn new() -> Self {
        let mut gaps = Self { reached: [0.0; SPANS], ended: [0.0; SPANS], until: [0.0; SPANS + 1] };
        gaps.sum_up();
        gaps
    }

    /// A pause that had reached `from` has now reached `to` and goes on.
    pub(super) fn lasts(&mut self, from: u8, to: u8) {
        let spans = usize::from(from)..usize::from(to).max(from.into());
        self.reached.get_mut(spans).unwrap_or_default().iter_mut().for_each(|reached| *reached += 1.0);
    }

    /// A pause that had reached `from` has ended in the span `at`.
    pub(super) fn ends(&mut self, from: u8, at: u8) {
        self.lasts(from, at);
        if let (Some(reached), Some(ended)) =
            (self.reached.get_mut(usize::from(at)), self.ended.get_mut(usize::from(at)))
        {
            *reached += 1.0;
            *ended += 1.0;
        }
        if self.reached.first().is_some_and(|all| *all > MEMORY) {
            self.reached.iter_mut().chain(&mut self.ended).for_each(|count| *count *= 0.5);
        }
    }

    /// Makes what was counted tell in [`chance`](Self::chance).
    pub(super) fn sum_up(&mut self) {
        let mut sum = 0.0;
        let spans = self.reached.iter().zip(&self.ended);
        for (until, (reached, ended)) in self.until.iter_mut().zip(spans) {
            *until = sum;
            let hazard = (ended + GUESS * GUESS_WEIGHT) / (reached + GUESS_WEIGHT);
            sum -= (1.0 - hazard.min(0.99)).ln();
        }
        if let Some(last) = self.until.last_mut() {
            *last = sum;
        }
    }

    /// The chance that a pause which lasts since `quiet` ends within the next `within`.
    pub(super) fn chance(&self, quiet: Duration, within: Duration) -> f64 {
        let (from, to) = (self.hazard(quiet), self.hazard(quiet + within));
        -(from - to).exp_m1()
    }

    /// Hazard summed over the first part of a pause.
    fn hazard(&self, pause: Duration) -> f64 {
        let index = usize::from(span(pause));
        let at = |index: usize| self.until.get(index).copied().unwrap_or_default();
        let (begins, ends) = (begins(index), begins(index + 1));
        let part = ((pause.as_secs_f64() - begins) / (ends - begins)).clamp(0.0, 1.0);
        at(index) + (at(index + 1) - at(index)) * part
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "a few thousand draws")]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A draw from the bell curve.
    fn normal(random: &mut fastrand::Rng) -> f64 {
        (-2.0 * random.f64().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
    }

    #[test]
    fn spans_are_where_their_times_are() {
        assert_eq!(span(Duration::ZERO), 0);
        assert_eq!(span(seconds(1.2)), 1);
        assert_eq!(span(Duration::from_secs(1_000_000)), 29);
        for index in 1..29_u8 {
            let middle = f64::midpoint(begins(index.into()), begins(usize::from(index) + 1));
            assert_eq!(span(seconds(middle)), index);
        }
    }

    #[test]
    fn pauses_that_were_seen_come_back_as_chances() {
        let (mut gaps, mut random) = (Gaps::new(), fastrand::Rng::with_seed(5));
        let pause = |random: &mut fastrand::Rng| (4.29 + 1.768 * normal(random)).exp();
        (0..10_000).for_each(|_| gaps.ends(0, span(seconds(pause(&mut random)))));
        gaps.sum_up();
        for (quiet, within) in [(0.0, 73.0), (10.0, 60.0), (73.0, 300.0), (704.0, 600.0)] {
            let lasting: Vec<_> =
                (0..20_000).map(|_| pause(&mut random)).filter(|pause| *pause > quiet).collect();
            let ended = lasting.iter().filter(|pause| **pause < quiet + within).count();
            let truth = ended as f64 / lasting.len() as f64;
            let chance = gaps.chance(seconds(quiet), seconds(within));
            assert!((chance - truth).abs() < 0.05, "after {quiet} s within {within} s: {chance} for {truth}");
        }
    }

    #[test]
    fn sessions_that_are_left_for_good_make_a_return_unlikely() {
        let mut gaps = Gaps::new();
        for _ in 0..100 {
            gaps.ends(0, span(seconds(10.0)));
            gaps.lasts(0, 29);
        }
        gaps.sum_up();
        let (fresh, stale) =
            (gaps.chance(Duration::ZERO, seconds(60.0)), gaps.chance(seconds(600.0), seconds(60.0)));
        assert!((0.4..0.6).contains(&fresh) && stale < 0.05, "{fresh} {stale}");
    }
}
