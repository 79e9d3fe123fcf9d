//! How long a call takes for what it costs: a line fitted while batches run, and how far above it calls end.
//!
//! Times are gathered by size, a size being a power of two of the cost, so that what was learned of small batches is not
//! forgotten while large ones run. The line is the weighted least squares through those points.

use std::time::Duration;

/// Batches that must have run before anything is said.
const ENOUGH: u32 = 2;
/// Batches after which a newer one of the same size counts for as much as all before it: its share never falls below.
const MEMORY: f64 = 16.0;
/// What a size that did not run keeps of its weight per batch.
const KEEP: f64 = 0.99;
/// Weight of the slope that was held so far, as the square of a distance in mean costs.
const INERTIA: f64 = 0.01;
/// Times beyond this multiple of what was expected are held back until another like them comes.
const OUTLIER: f64 = 2.0;
/// Batches whose distance from the line is remembered.
const RESIDUALS: usize = 32;

/// A point of the line: what batches of about one size cost, and how long they took.
#[derive(Debug, Clone, Copy)]
struct Point {
    size: u32,
    weight: f64,
    cost: f64,
    seconds: f64,
}

/// `seconds = fixed + slope * cost`, both never negative.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    fixed: f64,
    slope: f64,
}

impl Line {
    fn at(self, cost: f64) -> f64 {
        self.fixed + self.slope * cost
    }
}

/// What is known of the time that calls take.
#[derive(Debug, Clone, Default)]
pub(super) struct CostFit {
    points: Vec<Point>,
    line: Line,
    observed: u32,
    /// True where sizes differed enough to tell the slope from the fixed part.
    told_apart: bool,
    /// The last batch was far above what was expected.
    doubted: bool,
    residuals: Vec<f64>,
    /// How far above the line nine of ten calls end at most, as a share of it.
    margin: f64,
}

impl CostFit {
    /// The time that nine of ten calls of that cost stay within; `None` before the second call.
    pub(super) fn predict(&self, cost: u64) -> Option<Duration> {
        let seconds = self.line.at(number(cost)) * (1.0 + self.margin);
        (self.observed >= ENOUGH).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// What the fixed part of a call is worth in cost; `None` until calls of different sizes have told it.
    pub(super) fn overhead(&self) -> Option<f64> {
        let known = self.observed >= ENOUGH && self.told_apart;
        known.then(|| if self.line.slope > 0.0 { self.line.fixed / self.line.slope } else { f64::INFINITY })
    }

    /// Learns from a call.
    pub(super) fn observe(&mut self, cost: u64, took: Duration) {
        let (cost, seconds) = (number(cost.max(1)), took.as_secs_f64());
        let expected = self.line.at(cost);
        let seconds = if self.observed >= ENOUGH { self.believed(expected, seconds) } else { seconds };
        if self.observed > 0 {
            self.remember_distance(expected, seconds);
        }
        if self.observed == 1 {
            self.forgive_warming_up(cost, seconds);
        }
        self.add(cost, seconds);
        self.observed = self.observed.saturating_add(1);
        self.refit();
    }

    /// One call that took far longer than expected is no news; two in a row are.
    fn believed(&mut self, expected: f64, seconds: f64) -> f64 {
        let far = expected > 0.0 && seconds > expected * (1.0 + self.margin) * OUTLIER;
        let doubted = std::mem::replace(&mut self.doubted, far);
        if far && !doubted { expected * (1.0 + self.margin) } else { seconds }
    }

    fn remember_distance(&mut self, expected: f64, seconds: f64) {
        if expected <= 0.0 {
            return;
        }
        // The first distance is from a line through one point: it says more of that point than of calls.
        if self.observed < ENOUGH {
            return;
        }
        if self.residuals.len() == RESIDUALS {
            self.residuals.remove(0);
        }
        self.residuals.push(seconds / expected - 1.0);
        self.margin = ninth_decile(&self.residuals).max(0.0);
    }

    /// The first call often pays for what later ones find ready: where the second shows that it did, it is forgotten.
    fn forgive_warming_up(&mut self, cost: f64, seconds: f64) {
        let [first] = self.points.as_slice() else { return };
        // What a call of the second's kind would have taken at most, had it been as large as the first.
        let at_most = seconds * (first.cost / cost).max(1.0);
        if first.seconds > at_most * OUTLIER {
            self.points.clear();
        }
    }

    fn add(&mut self, cost: f64, seconds: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 64")]
        let size = cost.log2() as u32;
        for point in self.points.iter_mut().filter(|point| point.size != size) {
            point.weight *= KEEP;
        }
        match self.points.iter_mut().find(|point| point.size == size) {
            Some(point) => {
                point.weight = (point.weight + 1.0).min(MEMORY);
                let share = 1.0 / point.weight.max(1.0);
                point.cost += share * (cost - point.cost);
                point.seconds += share * (seconds - point.seconds);
            }
            None => self.points.push(Point { size, weight: 1.0, cost, seconds }),
        }
    }

    fn refit(&mut self) {
        let weight: f64 = self.points.iter().map(|point| point.weight).sum();
        let mean = |of: fn(&Point) -> f64| {
            self.points.iter().map(|point| point.weight * of(point)).sum::<f64>() / weight
        };
        let (cost, seconds) = (mean(|point| point.cost), mean(|point| point.seconds));
        let (mut spread, mut shared) = (0.0, 0.0);
        for point in &self.points {
            let distance = point.cost - cost;
            spread += point.weight * distance * distance;
            shared += point.weight * distance * (point.seconds - seconds);
        }
        // Sizes that hardly differ say nothing of the slope: it stays what it was, at first half of what it can be.
        let inertia = INERTIA * cost * cost;
        let steepest = seconds / cost;
        let before = if self.observed <= 1 { steepest / 2.0 } else { self.line.slope };
        let slope = ((shared + inertia * before) / (spread + inertia)).clamp(0.0, steepest);
        self.told_apart |= spread > inertia;
        self.line = Line { fixed: (seconds - slope * cost).max(0.0), slope };
    }
}

/// What nine of ten of them do not exceed.
fn ninth_decile(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * 9).div_ceil(10).saturating_sub(1)).copied().unwrap_or(0.0)
}

#[allow(clippy::cast_precision_loss, reason = "costs stay far below 2^52")]
fn number(cost: u64) -> f64 {
    cost as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(fixed: f64, slope: f64, cost: u64) -> Duration {
        Duration::from_secs_f64(fixed + slope * number(cost))
    }

    fn near(found: Option<Duration>, expected: f64, share: f64) -> bool {
        found.is_some_and(|found| (found.as_secs_f64() / expected - 1.0).abs() <= share)
    }

    #[test]
    fn it_says_nothing_before_the_second_call_and_something_sensible_then() {
        let mut fit = CostFit::default();
        assert_eq!(fit.predict(10), None);
        fit.observe(10, call(1e-3, 1e-4, 10));
        assert_eq!(fit.predict(10), None);
        fit.observe(40, call(1e-3, 1e-4, 40));
        assert!(near(fit.predict(40), 5e-3, 0.2), "{:?}", fit.predict(40));
        assert!(near(fit.predict(80), 9e-3, 0.2), "{:?}", fit.predict(80));
    }

    #[test]
    fn one_size_alone_tells_its_own_time_and_no_overhead() {
        let mut fit = CostFit::default();
        for _ in 0..100 {
            fit.observe(32, Duration::from_millis(8));
        }
        assert!(near(fit.predict(32), 8e-3, 1e-6));
        // What it cannot know lies between "each row costs" and "rows cost nothing".
        let double = fit.predict(64).unwrap();
        assert!(double >= Duration::from_millis(8) && double <= Duration::from_millis(16), "{double:?}");
        assert_eq!(fit.overhead(), None);
    }

    #[test]
    fn the_overhead_is_the_fixed_part_in_units_of_cost() {
        let mut fit = CostFit::default();
        for round in 0..60 {
            let cost = [4, 16, 64][round % 3];
            fit.observe(cost, call(2e-3, 1e-4, cost));
        }
        let overhead = fit.overhead().unwrap();
        assert!((overhead - 20.0).abs() < 1.0, "{overhead}");
        let mut flat = CostFit::default();
        for round in 0..60 {
            flat.observe([4, 16, 64][round % 3], Duration::from_millis(5));
        }
        assert!(flat.overhead().unwrap() > 1e3);
    }

    #[test]
    fn one_outlier_changes_little_and_a_change_is_followed() {
        let mut fit = CostFit::default();
        for _ in 0..20 {
            fit.observe(32, Duration::from_millis(10));
        }
        fit.observe(32, Duration::from_secs(3));
        assert!(near(fit.predict(32), 10e-3, 0.2), "{:?}", fit.predict(32));
        for _ in 0..20 {
            fit.observe(32, Duration::from_millis(10));
        }
        assert!(near(fit.predict(32), 10e-3, 0.1), "{:?}", fit.predict(32));
        for _ in 0..60 {
            fit.observe(32, Duration::from_millis(30));
        }
        assert!(near(fit.predict(32), 30e-3, 0.15), "{:?}", fit.predict(32));
    }

    #[test]
    fn a_first_call_that_warmed_up_is_forgotten() {
        let mut fit = CostFit::default();
        fit.observe(8, Duration::from_secs(2));
        fit.observe(8, Duration::from_millis(5));
        assert!(near(fit.predict(8), 5e-3, 0.01), "{:?}", fit.predict(8));
    }

    #[test]
    fn the_prediction_covers_nine_calls_of_ten() {
        let mut fit = CostFit::default();
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut covered, mut asked) = (0_u32, 0_u32);
        for _ in 0..2_000 {
            let cost = rng.u64(1..200);
            let took = call(2e-3, 5e-5, cost).mul_f64(1.0 + 0.3 * rng.f64());
            if let Some(predicted) = fit.predict(cost) {
                asked += 1;
                covered += u32::from(took <= predicted);
            }
            fit.observe(cost, took);
        }
        let share = f64::from(covered) / f64::from(asked);
        assert!((0.84..=0.97).contains(&share), "{share}");
    }

    #[test]
    fn small_batches_are_remembered_while_large_ones_run() {
        let mut fit = CostFit::default();
        for cost in [1, 2, 4, 8, 16, 32, 64, 128] {
            fit.observe(cost, call(4e-3, 1e-4, cost));
        }
        for _ in 0..5_000 {
            fit.observe(128, call(4e-3, 1e-4, 128));
        }
        assert!(near(fit.predict(1), 4.1e-3, 0.1), "{:?}", fit.predict(1));
    }

    proptest! {
        /// Whatever it is told, it stays finite, never says that a larger batch is faster, and covers what it saw last.
        #[test]
        fn any_history_leaves_a_line_that_makes_sense(
            calls in proptest::collection::vec((0_u64..1 << 40, 0_u64..100_000_000_000), 2..100),
        ) {
            let mut fit = CostFit::default();
            for (cost, nanos) in &calls {
                fit.observe(*cost, Duration::from_nanos(*nanos));
            }
            prop_assert!(fit.line.fixed.is_finite() && fit.line.fixed >= 0.0);
            prop_assert!(fit.line.slope.is_finite() && fit.line.slope >= 0.0);
            prop_assert!(fit.margin.is_finite() && fit.margin >= 0.0);
            let small = fit.predict(1).unwrap();
            prop_assert!(fit.predict(1 << 20).unwrap() >= small);
            prop_assert!(fit.overhead().is_none_or(|overhead| overhead >= 0.0));
        }

        /// Without noise the line is found, whatever the sizes, as long as they differ.
        #[test]
        fn an_exact_line_is_found(
            fixed in 1_u32..10_000,
            slope in 1_u32..1_000,
            costs in proptest::collection::vec(1_u64..400, 30..80),
        ) {
            let (fixed, slope) = (f64::from(fixed) * 1e-6, f64::from(slope) * 1e-6);
            let mut fit = CostFit::default();
            for cost in costs.iter().chain([1, 400, 1, 400, 1, 400].iter()) {
                fit.observe(*cost, call(fixed, slope, *cost));
            }
            for cost in [1, 100, 400] {
                let expected = call(fixed, slope, cost).as_secs_f64();
                let found = fit.predict(cost).unwrap().as_secs_f64();
                prop_assert!(found >= 0.7 * expected && found <= 2.0 * expected, "{found} for {expected}");
            }
        }
    }
}
