//! What is asked for most, of late: the rival that every prediction has to beat.

use super::settings::MOST_NAMED;
use crate::models::ModelId;

/// Above this the counts are scaled down, so that they never overflow.
const LARGE: f64 = 1e100;

/// Counts that fade, and the models in the order of their counts.
#[derive(Debug, Clone)]
pub(super) struct Popularity {
    /// What each model has, in the unit of its latest request.
    counts: Vec<f64>,
    order: Vec<ModelId>,
    place: Vec<usize>,
    total: f64,
    /// What a request counts. It grows with every request, which fades those before without touching them.
    unit: f64,
    growth: f64,
}

impl Popularity {
    /// Counts that fade to half over `half_life` requests.
    #[expect(clippy::cast_precision_loss, reason = "a number of requests is far below 2^52")]
    pub(super) fn new(half_life: usize) -> Self {
        let growth = (1.0 / half_life.max(1) as f64).exp2();
        Self { counts: Vec::new(), order: Vec::new(), place: Vec::new(), total: 0.0, unit: 1.0, growth }
    }

    /// One more request for that model.
    pub(super) fn note(&mut self, model: ModelId) {
        let index = model.0 as usize;
        self.grow(index);
        self.unit *= self.growth;
        self.total += self.unit;
        if let Some(count) = self.counts.get_mut(index) {
            *count += self.unit;
            self.rise(index);
        }
        if self.unit > LARGE {
            self.scale(1.0 / self.unit);
        }
    }

    /// Its share of all requests; 0 for one that was never asked for.
    pub(super) fn share(&self, model: ModelId) -> f64 {
        self.counts.get(model.0 as usize).map_or(0.0, |count| count / self.total.max(f64::MIN_POSITIVE))
    }

    /// The most popular ones, the first the most.
    pub(super) fn leaders(&self) -> &[ModelId] {
        self.order.get(..self.order.len().min(MOST_NAMED + 3)).unwrap_or_default()
    }

    /// True where the model is among the `top` most popular ones; and whether it is the first.
    pub(super) fn names(&self, model: ModelId, top: usize) -> (bool, bool) {
        let place = self.place.get(model.0 as usize).copied().unwrap_or(usize::MAX);
        (place == 0, place < top)
    }

    fn grow(&mut self, index: usize) {
        while self.counts.len() <= index {
            let Ok(next) = u32::try_from(self.counts.len()) else { return };
            self.place.push(self.order.len());
            self.order.push(ModelId(next));
            self.counts.push(0.0);
        }
    }

    /// Others keep their order, for all fade alike: the one that was counted can only rise.
    fn rise(&mut self, index: usize) {
        let count = self.counts.get(index).copied().unwrap_or_default();
        let Some(mut place) = self.place.get(index).copied() else { return };
        while let Some(above) = place.checked_sub(1).and_then(|above| self.order.get(above).copied()) {
            if self.counts.get(above.0 as usize).copied().unwrap_or_default() >= count {
                break;
            }
            self.order.swap(place - 1, place);
            if let Some(lower) = self.place.get_mut(above.0 as usize) {
                *lower = place;
            }
            place -= 1;
        }
        if let Some(own) = self.place.get_mut(index) {
            *own = place;
        }
    }

    fn scale(&mut self, by: f64) {
        self.counts.iter_mut().for_each(|count| *count *= by);
        self.total *= by;
        self.unit *= by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_counts() {
        let mut popularity = Popularity::new(1000);
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5_000 {
            // The lower the number the more often.
            popularity.note(ModelId(random.u32(0..20) * random.u32(0..20) / 20));
        }
        let shares: Vec<_> = popularity.order.iter().map(|model| popularity.share(*model)).collect();
        assert!(shares.is_sorted_by(|one, next| one >= next), "{shares:?}");
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        for (place, model) in popularity.order.iter().enumerate() {
            assert_eq!(popularity.place[model.0 as usize], place);
        }
    }

    #[test]
    fn what_was_popular_fades() {
        let mut popularity = Popularity::new(100);
        (0..1_000).for_each(|_| popularity.note(ModelId(0)));
        (0..150).for_each(|_| popularity.note(ModelId(7)));
        assert_eq!(popularity.leaders()[0], ModelId(7));
        assert_eq!(popularity.names(ModelId(0), 2), (false, true));
        assert_eq!(popularity.names(ModelId(99), 2), (false, false));
    }

    #[test]
    fn counts_are_scaled_before_they_overflow() {
        let mut popularity = Popularity::new(1);
        for turn in 0..10_000 {
            popularity.note(ModelId(turn % 2));
        }
        let both = popularity.share(ModelId(0)) + popularity.share(ModelId(1));
        assert!((both - 1.0).abs() < 1e-9 && popularity.unit <= LARGE, "{both}");
    }
}
