//! The distributions that the trace is drawn from, on one seeded generator.

use std::f64::consts::TAU;

/// What is left to chance: the same for the same seed.
#[derive(Debug)]
pub(super) struct Chance {
    random: fastrand::Rng,
}

impl Chance {
    /// One of the independent streams of a seed, so that one part of the trace does not move another.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(stream)) }
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.random.usize(..end.max(1))
    }

    pub(super) fn happens(&mut self, probability: f64) -> bool {
        self.random.f64() < probability
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.random.f64()
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.random.shuffle(items);
    }

    /// Box and Muller's.
    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * self.above_zero().ln()).sqrt() * (TAU * self.random.f64()).cos()
    }

    pub(super) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Gamma with a mean of one and this coefficient of variation: Marsaglia and Tsang's, raised for shapes below one.
    pub(super) fn gamma(&mut self, variation: f64) -> f64 {
        let shape = 1.0 / (variation * variation);
        let (raised, factor) =
            if shape < 1.0 { (shape + 1.0, self.above_zero().powf(1.0 / shape)) } else { (shape, 1.0) };
        let d = raised - 1.0 / 3.0;
        loop {
            let x = self.normal();
            let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
            if v > 0.0 && self.above_zero().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v * factor / shape;
            }
        }
    }

    /// Trials up to and with the first that succeeds, so at least one: on average `mean`.
    pub(super) fn geometric(&mut self, mean: f64) -> usize {
        let mut trials = 1;
        while !self.happens(1.0 / mean) {
            trials += 1;
        }
        trials
    }

    fn above_zero(&mut self) -> f64 {
        1.0 - self.random.f64()
    }
}

/// Ranks from zero, of which each is drawn in proportion to `1 / (rank + 1)^exponent`.
#[derive(Debug)]
pub(super) struct Zipf {
    up_to: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let up_to = (1..=ranks).map(|rank| {
            sum += rank_number(rank).powf(-exponent);
            sum
        });
        Self { up_to: up_to.collect() }
    }

    pub(super) fn draw(&self, chance: &mut Chance) -> usize {
        let total = self.up_to.last().copied().unwrap_or_default();
        let point = chance.between(0.0, total);
        self.up_to.partition_point(|up_to| *up_to <= point).min(self.up_to.len().saturating_sub(1))
    }

    /// How often a rank is drawn.
    #[cfg(test)]
    pub(super) fn share(&self, rank: usize) -> f64 {
        let at = |rank: usize| self.up_to.get(rank).copied().unwrap_or_default();
        let before = if rank == 0 { 0.0 } else { at(rank - 1) };
        (at(rank) - before) / self.up_to.last().copied().unwrap_or(1.0)
    }
}

#[allow(clippy::cast_precision_loss, reason = "there are far fewer than 2^53 models")]
fn rank_number(rank: usize) -> f64 {
    rank as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 200_000;

    fn mean_and_variation(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let drawn: Vec<_> = (0..DRAWS).map(|_| draw()).collect();
        let count = rank_number(DRAWS);
        let mean = drawn.iter().sum::<f64>() / count;
        let variance = drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn gamma_has_the_mean_and_the_variation_that_were_asked_for() {
        let mut chance = Chance::new(1, 0);
        for asked in [3.0, 1.0, 0.5] {
            let (mean, variation) = mean_and_variation(|| chance.gamma(asked));
            assert!((mean - 1.0).abs() < 0.03, "{mean}");
            assert!((variation / asked - 1.0).abs() < 0.05, "{variation} for {asked}");
        }
    }

    #[test]
    fn log_normal_has_its_median_and_its_ninetieth_percentile() {
        let mut chance = Chance::new(2, 0);
        let mut drawn: Vec<_> = (0..DRAWS).map(|_| chance.log_normal(73.0, 1.768)).collect();
        drawn.sort_by(f64::total_cmp);
        assert!((drawn[DRAWS / 2] / 73.0 - 1.0).abs() < 0.02);
        assert!((drawn[DRAWS * 9 / 10] / 704.0 - 1.0).abs() < 0.04);
    }

    #[test]
    fn ranks_are_drawn_as_zipf_says() {
        let (zipf, mut chance) = (Zipf::new(100, 1.2), Chance::new(3, 0));
        let first = (0..DRAWS).filter(|_| zipf.draw(&mut chance) == 0).count();
        assert!((rank_number(first) / rank_number(DRAWS) - zipf.share(0)).abs() < 0.005);
        assert!((zipf.share(0) / zipf.share(3) - 4.0_f64.powf(1.2)).abs() < 1e-9);
        assert!(((0..100).map(|rank| zipf.share(rank)).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn sessions_have_the_mean_length_that_was_asked_for() {
        let mut chance = Chance::new(4, 0);
        let total: usize = (0..DRAWS).map(|_| chance.geometric(12.0)).sum();
        assert!((rank_number(total) / rank_number(DRAWS) / 12.0 - 1.0).abs() < 0.02);
    }
}
