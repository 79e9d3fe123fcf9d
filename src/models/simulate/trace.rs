//! The requests of a trace, in the order of their time.

use std::f64::consts::TAU;
use std::time::Duration;

use super::chance::{Chance, Zipf};
use super::shape::{Model, Shape};
use crate::flow::Moment;
use crate::models::ModelId;

/// Seconds of a day.
const DAY: f64 = 24.0 * 3600.0;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A person, by number.
    User(u32),
    /// A timer, of a model that nobody else asks for.
    Timer,
    /// Somebody who goes through the whole catalogue.
    Scan,
    /// Somebody who goes round in more than there is room for.
    Loop,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// When it comes.
    pub at: Moment,
    /// The model that it is for: an index into the catalogue.
    pub model: ModelId,
    /// Who asks.
    pub source: Source,
    /// How many guesses it takes who knows the shape's numbers, the present popularity and the user's last model: one (that
    /// model; for a timer, its own), two (the most popular other one), or `None` for more. What no prediction can beat.
    pub guesses: Option<u8>,
}

impl Access {
    /// The key of the session, for those that have one.
    pub fn session(&self) -> Option<u64> {
        match self.source {
            Source::User(user) => Some(u64::from(user)),
            Source::Timer | Source::Scan | Source::Loop => None,
        }
    }
}

/// A catalogue, and who asks for what and when.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The models, by their numbers.
    pub models: Vec<Model>,
    /// The requests, in the order of their time.
    pub accesses: Vec<Access>,
}

impl Trace {
    /// The trace of a shape; the same for the same seed.
    pub fn new(shape: &Shape, seed: u64) -> Self {
        let mut trace = Self { models: shape.catalogue(seed), accesses: Vec::new() };
        let mut order: Vec<_> = (0..shape.models).filter_map(model).collect();
        Chance::new(seed, 1).shuffle(&mut order);
        let scheduled = order.split_off(order.len() - share_of(order.len(), shape.timers));
        for (at, model) in scheduled.into_iter().enumerate() {
            trace.timer(shape, model, at, seed);
        }
        trace.people(shape, order, seed);
        trace.scan(shape);
        trace.go_round(shape, seed);
        let end = Moment::default() + shape.length;
        trace.accesses.retain(|access| access.at < end);
        trace.accesses.sort_by_key(|access| access.at);
        trace
    }

    /// Models in turn, one after another: whoever has room for all but one of them, and lets the longest unused go, never
    /// has the one that is asked for.
    pub fn cyclic(models: Vec<Model>, rounds: usize, step: Duration) -> Self {
        let mut at = Moment::default();
        let ids: Vec<_> = (0..models.len()).filter_map(model).collect();
        let accesses = ids.iter().cycle().take(ids.len() * rounds).map(|model| {
            at = at + step;
            Access { at, model: *model, source: Source::Loop, guesses: None }
        });
        Self { accesses: accesses.collect(), models }
    }

    /// Every access by chance, each model as likely as any other: nothing to predict, little to keep.
    pub fn uniform(shape: &Shape, accesses: usize, seed: u64) -> Self {
        let (models, mut chance) = (shape.catalogue(seed), Chance::new(seed, 7));
        let mut at = Moment::default();
        let mut access = |_| {
            at = at + Duration::from_secs_f64(chance.gamma(1.0) * 20.0);
            let user = u32::try_from(chance.below(shape.users)).unwrap_or_default();
            let model = model(chance.below(models.len()))?;
            Some(Access { at, model, source: Source::User(user), guesses: None })
        };
        Self { accesses: (0..accesses).filter_map(&mut access).collect(), models }
    }

    /// What is to be known of a model; of one that is not in the catalogue, nothing.
    pub(super) fn model(&self, id: ModelId) -> Model {
        let nothing = Model { bytes: 0, load: Duration::ZERO };
        self.models.get(id.0 as usize).copied().unwrap_or(nothing)
    }

    /// Bytes of the whole catalogue.
    pub fn bytes(&self) -> u64 {
        self.models.iter().map(|model| model.bytes).sum()
    }

    /// A share of the catalogue's bytes.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of bytes, to the byte or nearly"
    )]
    pub fn budget(&self, share: f64) -> u64 {
        (self.bytes() as f64 * share) as u64
    }

    fn ask(&mut self, seconds: f64, model: ModelId, source: Source, guesses: Option<u8>) {
        let at = Moment::default() + Duration::from_secs_f64(seconds);
        self.accesses.push(Access { at, model, source, guesses });
    }

    fn timer(&mut self, shape: &Shape, model: ModelId, number: usize, seed: u64) {
        let mut chance = Chance::new(seed, 100 + u64::from(model.0));
        let Some(period) = shape.periods.get(number % shape.periods.len().max(1)) else { return };
        let period = period.as_secs_f64();
        let mut at = chance.between(0.0, period);
        while at < shape.length.as_secs_f64() {
            self.ask(at, model, Source::Timer, Some(1));
            at += period * (1.0 + shape.jitter * chance.normal()).max(0.1);
        }
    }

    fn people(&mut self, shape: &Shape, ranks: Vec<ModelId>, seed: u64) {
        let sessions = sessions(shape, seed);
        let mut popularity = Popularity::new(shape, ranks, seed);
        let mut chance = Chance::new(seed, 3);
        let mut requests = requests(shape, &sessions, &mut chance);
        // The order of time: the popularity drifts, and a user's last model is that of his request before.
        requests.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut last = vec![None; shape.users];
        for (at, user) in requests {
            popularity.drift_until(at);
            let Some(last) = last.get_mut(user) else { continue };
            let stays = chance.happens(shape.stay);
            let Some(model) = last.filter(|_| stays).or_else(|| popularity.draw(&mut chance)) else {
                continue;
            };
            let guesses = popularity.guesses(*last, model);
            *last = Some(model);
            self.ask(at, model, Source::User(u32::try_from(user).unwrap_or_default()), guesses);
        }
    }

    fn scan(&mut self, shape: &Shape) {
        let Some(mut at) = shape.scan else { return };
        for model in (0..shape.models).filter_map(model) {
            self.ask(at.as_secs_f64(), model, Source::Scan, None);
            at += shape.step;
        }
    }

    fn go_round(&mut self, shape: &Shape, seed: u64) {
        let Some(mut at) = shape.looping else { return };
        let mut order: Vec<_> = (0..shape.models).filter_map(model).collect();
        Chance::new(seed, 4).shuffle(&mut order);
        let (room, mut bytes) = (self.budget(shape.looped), 0);
        let fits = order.iter().take_while(|id| {
            let before = bytes;
            bytes += self.model(**id).bytes;
            before <= room
        });
        let round = fits.count();
        for model in order.iter().take(round).cycle().take(round * shape.rounds) {
            self.ask(at.as_secs_f64(), *model, Source::Loop, None);
            at += shape.step;
        }
    }
}

/// Which model has which rank.
struct Popularity {
    zipf: Zipf,
    ranks: Vec<ModelId>,
    drifting: usize,
    every: f64,
    next: f64,
    chance: Chance,
}

impl Popularity {
    fn new(shape: &Shape, ranks: Vec<ModelId>, seed: u64) -> Self {
        let every = shape.drift.as_secs_f64();
        let (zipf, drifting) = (Zipf::new(ranks.len(), shape.zipf), share_of(ranks.len(), shape.drifting));
        Self { zipf, drifting, ranks, every, next: every, chance: Chance::new(seed, 2) }
    }

    fn draw(&self, chance: &mut Chance) -> Option<ModelId> {
        self.ranks.get(self.zipf.draw(chance)).copied()
    }

    /// See [`Access::guesses`].
    fn guesses(&self, last: Option<ModelId>, model: ModelId) -> Option<u8> {
        let popular = self.ranks.iter().copied().filter(|other| Some(*other) != last);
        let mut guesses = (1_u8..=2).zip(last.into_iter().chain(popular));
        guesses.find(|(_, guess)| *guess == model).map(|(number, _)| number)
    }

    /// Some models, whatever their ranks, swap them with one another.
    fn drift_until(&mut self, seconds: f64) {
        while self.next <= seconds {
            self.next += self.every;
            let mut places: Vec<_> = (0..self.ranks.len()).collect();
            self.chance.shuffle(&mut places);
            places.truncate(self.drifting);
            // Each takes the place of the next: none keeps its own.
            for pair in places.windows(2) {
                if let [one, other] = pair {
                    self.ranks.swap(*one, *other);
                }
            }
        }
    }
}

/// When sessions begin, in seconds.
fn sessions(shape: &Shape, seed: u64) -> Vec<f64> {
    let mut chance = Chance::new(seed, 5);
    let (mut begins, mut traffic) = (Vec::new(), 0.0);
    loop {
        // Days of average traffic: bursts come closer when there is more of it.
        traffic += chance.gamma(shape.variation) / shape.sessions_a_day;
        let at = time_of(traffic, shape.day);
        if at >= shape.length.as_secs_f64() {
            return begins;
        }
        begins.push(at);
    }
}

/// When so many days' worth of traffic have come, in seconds: traffic is `max(0, day + sin)` through the day.
fn time_of(traffic: f64, day: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    let whole = come_by(1.0, day);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if come_by(middle, day) < traffic.fract() * whole { low = middle } else { high = middle }
    }
    (traffic.floor() + low) * DAY
}

/// The integral of `max(0, day + sin(2 pi t))` from 0 to `t`, a share of a day.
fn come_by(t: f64, day: f64) -> f64 {
    let integral = |t: f64| day * t - (TAU * t).cos() / TAU;
    // Where the sine is below -day there is none: about three quarters of the day.
    let half = day.clamp(-1.0, 1.0).acos() / TAU;
    let (sleep, wake) = (0.75 - half, 0.75 + half);
    let before = integral(t.min(sleep)) - integral(0.0);
    if t > wake { before + integral(t) - integral(wake) } else { before }
}

/// The requests of sessions: when, and whose.
fn requests(shape: &Shape, sessions: &[f64], chance: &mut Chance) -> Vec<(f64, usize)> {
    let mut free_at = vec![0.0; shape.users];
    let mut requests = Vec::new();
    for begin in sessions {
        let idle: Vec<_> =
            (0..shape.users).filter(|user| free_at.get(*user).is_some_and(|free| free <= begin)).collect();
        // Everybody is here already: one more would be somebody whom the shape does not have.
        let Some(user) = idle.get(chance.below(idle.len())) else { continue };
        let mut at = *begin;
        for _ in 0..chance.geometric(shape.requests_a_session) {
            requests.push((at, *user));
            at += chance.log_normal(shape.gap.as_secs_f64(), shape.gap_sigma);
        }
        if let Some(free) = free_at.get_mut(*user) {
            *free = at;
        }
    }
    requests
}

fn model(number: usize) -> Option<ModelId> {
    u32::try_from(number).ok().map(ModelId)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "shares of a catalogue"
)]
fn share_of(count: usize, share: f64) -> usize {
    (count as f64 * share).round() as usize
}
