//! What a session asks for next: several guesses, weighed by how well each has done.

use smallvec::SmallVec;

use super::popularity::Popularity;
use crate::models::ModelId;

/// Models that a session remembers.
pub(super) const RECENT: usize = 3;
/// The guesses: the session's last model, the one before, the one before that; where others went from its last model; where
/// all go, over a long time and of late.
const GUESSES: usize = RECENT + 3;
const FROM_HERE: usize = RECENT;
const ANYWHERE: usize = RECENT + 1;
const OF_LATE: usize = RECENT + 2;
/// What the weights are before anything was seen.
const FIRST_WEIGHTS: [f64; GUESSES] = [0.4, 0.15, 0.05, 0.1, 0.15, 0.15];
/// Requests that the first weights count for, and that the weights look back over.
const FIRST_COUNT: f64 = 20.0;
const LOOK_BACK: f64 = 1000.0;
/// Models that are remembered for where sessions go from one; what is rarer falls out.
const WAYS: usize = 8;
/// Moves from one model after which the old ones count half.
const MOVES: f32 = 256.0;

/// The distinct models that a session asked for last, the latest first.
pub(super) type Recent = SmallVec<[ModelId; RECENT]>;
/// Models with the chance of each, the likeliest first.
pub(super) type Ranked = SmallVec<[(ModelId, f64); 8]>;

/// Where sessions went from a model.
#[derive(Debug, Clone, Default)]
struct Ways {
    to: SmallVec<[(ModelId, f32); 2]>,
    total: f32,
}

impl Ways {
    fn note(&mut self, model: ModelId) {
        self.total += 1.0;
        if let Some((_, count)) = self.to.iter_mut().find(|(to, _)| *to == model) {
            *count += 1.0;
        } else if self.to.len() < WAYS {
            self.to.push((model, 1.0));
        } else if let Some(rarest) = self.to.iter_mut().min_by(|one, other| one.1.total_cmp(&other.1)) {
            // It comes in at the count of the one that it pushes out (Metwally and others, 2005).
            *rarest = (model, rarest.1 + 1.0);
        }
        if self.total > MOVES {
            self.total *= 0.5;
            self.to.iter_mut().for_each(|(_, count)| *count *= 0.5);
        }
    }

    fn chance(&self, model: ModelId) -> f64 {
        let count = self.to.iter().find(|(to, _)| *to == model).map_or(0.0, |(_, count)| *count);
        // One that was seen once or twice is no proof.
        f64::from(count) / f64::from(self.total + 2.0)
    }
}

/// The guesses and their weights. The weights are those that would have made what came likeliest (expectation
/// maximization, one request at a time).
#[derive(Debug, Clone)]
pub(super) struct Mixture {
    weights: [f64; GUESSES],
    seen: f64,
    ways: Vec<Ways>,
    /// Where sessions go when they do not stay, and where they begin.
    moves: Popularity,
    moves_of_late: Popularity,
}

impl Mixture {
    pub(super) fn new(history: usize) -> Self {
        Self {
            weights: FIRST_WEIGHTS,
            seen: FIRST_COUNT,
            ways: Vec::new(),
            moves: Popularity::new(history),
            moves_of_late: Popularity::new(history / 12),
        }
    }

    /// The `top` likeliest models for the next request of a session.
    pub(super) fn rank(&self, recent: &Recent, top: usize) -> Ranked {
        let mut ranked = Ranked::new();
        let ways = recent.first().and_then(|last| self.ways.get(last.0 as usize));
        let ways = ways.into_iter().flat_map(|ways| ways.to.iter().map(|(to, _)| *to));
        for model in recent
            .iter()
            .copied()
            .chain(ways)
            .chain(self.moves.leaders().iter().copied())
            .chain(self.moves_of_late.leaders().iter().copied())
        {
            if !ranked.iter().any(|(known, _)| *known == model) {
                ranked.push((model, self.chance(recent, model)));
            }
        }
        ranked.sort_unstable_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        ranked.truncate(top);
        ranked
    }

    /// The chance that the next request of a session is for that model.
    pub(super) fn chance(&self, recent: &Recent, model: ModelId) -> f64 {
        let guesses = self.guesses(recent, model);
        let all: f64 = self.weights.iter().take(recent.len()).chain(self.weights.iter().skip(RECENT)).sum();
        self.weights.iter().zip(guesses).map(|(weight, guess)| weight * guess).sum::<f64>() / all
    }

    /// The chance that a session goes on with each of its own models because they are its own.
    pub(super) fn own(&self, recent: &Recent) -> SmallVec<[f64; RECENT]> {
        let own = self.weights.iter().take(recent.len());
        let all: f64 = own.clone().chain(self.weights.iter().skip(RECENT)).sum();
        own.map(|weight| weight / all).collect()
    }

    /// The share of all moves that lead to that model.
    pub(super) fn drawn(&self, model: ModelId) -> f64 {
        self.moves.share(model)
    }

    /// A session with those models has asked for that one.
    pub(super) fn learn(&mut self, recent: &Recent, model: ModelId) {
        if !recent.is_empty() {
            self.weigh(recent, model);
        }
        if recent.first() != Some(&model) {
            if let Some(last) = recent.first() {
                self.went(*last, model);
            }
            self.moves.note(model);
            self.moves_of_late.note(model);
        }
    }

    fn weigh(&mut self, recent: &Recent, model: ModelId) {
        let guesses = self.guesses(recent, model);
        let sum: f64 = self.weights.iter().zip(guesses).map(|(weight, guess)| weight * guess).sum();
        if sum <= 0.0 {
            return;
        }
        self.seen = (self.seen + 1.0).min(LOOK_BACK);
        let step = 1.0 / self.seen;
        // What a session cannot guess yet, for it has too few models, keeps its weight: it was not on trial.
        let tried = |index: usize| index < recent.len() || index >= RECENT;
        let on_trial: f64 =
            (0..GUESSES).filter(|index| tried(*index)).filter_map(|index| self.weights.get(index)).sum();
        for (index, (weight, guess)) in self.weights.iter_mut().zip(guesses).enumerate() {
            if tried(index) {
                *weight += step * (on_trial * *weight * guess / sum - *weight);
            }
        }
    }

    /// What each guess gives for that model.
    fn guesses(&self, recent: &Recent, model: ModelId) -> [f64; GUESSES] {
        let mut guesses = [0.0; GUESSES];
        for (guess, own) in guesses.iter_mut().zip(recent) {
            *guess = f64::from(*own == model);
        }
        if let Some(guess) = guesses.get_mut(FROM_HERE) {
            let ways = recent.first().and_then(|last| self.ways.get(last.0 as usize));
            *guess = ways.map_or(0.0, |ways| ways.chance(model));
        }
        if let Some(guess) = guesses.get_mut(ANYWHERE) {
            *guess = self.moves.share(model);
        }
        if let Some(guess) = guesses.get_mut(OF_LATE) {
            *guess = self.moves_of_late.share(model);
        }
        guesses
    }

    fn went(&mut self, from: ModelId, to: ModelId) {
        let index = from.0 as usize;
        if self.ways.len() <= index {
            self.ways.resize_with(index + 1, Ways::default);
        }
        if let Some(ways) = self.ways.get_mut(index) {
            ways.note(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that asked for these, the latest first.
    fn recent(models: &[u32]) -> Recent {
        models.iter().copied().map(ModelId).collect()
    }

    fn follow(mixture: &mut Mixture, recent: &mut Recent, model: ModelId) {
        mixture.learn(recent, model);
        recent.retain(|known| *known != model);
        recent.insert(0, model);
        recent.truncate(RECENT);
    }

    #[test]
    fn a_session_that_stays_is_expected_to_stay_as_often_as_it_does() {
        let (mut mixture, mut random, mut session) =
            (Mixture::new(1000), fastrand::Rng::with_seed(1), Recent::new());
        for _ in 0..5_000 {
            let model = session.first().copied().filter(|_| random.f64() < 0.72);
            follow(&mut mixture, &mut session, model.unwrap_or_else(|| ModelId(random.u32(0..50))));
        }
        let chance = mixture.chance(&recent(&[3, 4, 5]), ModelId(3));
        assert!((0.68..0.77).contains(&chance), "{chance}");
        assert_eq!(mixture.rank(&recent(&[3, 4]), 1)[0].0, ModelId(3));
        let all: f64 = (0..50).map(|model| mixture.chance(&recent(&[3, 4, 5]), ModelId(model))).sum();
        assert!((0.8..1.001).contains(&all), "chances come to {all}");
    }

    #[test]
    fn a_session_that_goes_back_and_forth_is_expected_back() {
        let (mut mixture, mut random) = (Mixture::new(1000), fastrand::Rng::with_seed(2));
        for _ in 0..300 {
            let (one, other) = (ModelId(random.u32(0..40)), ModelId(random.u32(40..80)));
            let mut session = Recent::new();
            (0..6)
                .for_each(|turn| follow(&mut mixture, &mut session, if turn % 2 == 0 { one } else { other }));
        }
        assert_eq!(mixture.rank(&recent(&[70, 9]), 1)[0].0, ModelId(9));
    }

    #[test]
    fn where_others_went_is_where_this_one_is_expected() {
        let (mut mixture, mut random) = (Mixture::new(1000), fastrand::Rng::with_seed(3));
        for _ in 0..3_000 {
            // Each goes on to the one that follows; where a session begins is anywhere.
            let (mut session, first) = (Recent::new(), random.u32(0..20));
            (0..4).for_each(|step| follow(&mut mixture, &mut session, ModelId(first + step)));
        }
        assert_eq!(mixture.rank(&recent(&[7]), 1)[0].0, ModelId(8));
        assert_eq!(mixture.rank(&recent(&[12, 11]), 1)[0].0, ModelId(13));
    }

    #[test]
    fn ways_are_few_and_keep_the_common_ones() {
        let (mut ways, mut random) = (Ways::default(), fastrand::Rng::with_seed(4));
        for turn in 0..5_000 {
            ways.note(ModelId(if turn % 3 == 0 { 1 } else { random.u32(10..1_000) }));
        }
        assert_eq!(ways.to.len(), WAYS);
        assert!((0.2..0.45).contains(&ways.chance(ModelId(1))), "{}", ways.chance(ModelId(1)));
        assert!(ways.total <= MOVES);
    }
}
