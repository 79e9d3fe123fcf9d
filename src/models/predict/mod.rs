//! Which model will be asked for next: by the session that asks, and by the clock.
//!
//! A session mostly goes on with its own models; what is asked for at regular times is asked for again when it is due. Both
//! are learned from the requests alone. Both are scored against popularity on the same requests, all the time; only what is
//! ahead of it is acted on. Nothing here loads anything: the state asks for [`wishes`](Predictor::wishes) and says what became
//! of them.

mod gaps;
mod mixture;
mod outlook;
mod popularity;
mod preloads;
mod rhythm;
mod scorecard;
mod sessions;
mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::gaps::Gaps;
use self::mixture::Mixture;
use self::outlook::Outlook;
use self::popularity::Popularity;
use self::preloads::Preloads;
use self::rhythm::{Due, Rhythms, Visitor, Visits};
use self::scorecard::{Guess, Scorecard};
use self::sessions::Sessions;
use self::settings::FEWEST;
pub use self::settings::{Accuracy, Because, PredictReport, PredictSettings, Prospect, Wish};
use crate::error::Result;
use crate::flow::Moment;
use crate::models::ModelId;

/// Requests of one visitor for one model that lie closer together than this are one: only the first is looked at.
const VISIT: Duration = Duration::from_secs(1);
/// Of visits that are due, those that must come.
const COME: f64 = 0.6;
/// The chance from which on a model of sessions is wished for.
const LIKELY: f64 = 0.7;
/// The chance from which on a model that is loaded is better kept, and below which nobody but a timer is expected.
const KEPT: f64 = 0.3;
const UNLIKELY: f64 = 0.2;
/// Of the time that loads of a model take in the mean, what is allowed for one.
const MARGIN: f64 = 1.25;
/// Time until those that were due are looked at again.
const SETTLED: Duration = Duration::from_secs(10);
/// Time from a request until it is asked what that makes likely.
const PAUSE: Duration = Duration::from_secs(2);
/// Sessions that are looked through for wishes, the latest of them.
const LOOKED_THROUGH: usize = 1_000;
/// How long a model lies idle until it is evicted, before that was seen; what the latest eviction weighs; its bounds.
const FIRST_IDLE: f64 = 300.0;
const LATEST: f64 = 0.1;
const SHORTEST: f64 = 10.0;
const LONGEST: f64 = 3600.0;

/// What a load of a model would take; `None` for one that is loaded, or loading, or cannot be.
pub type Prospects<'a> = dyn Fn(ModelId) -> Option<Prospect> + 'a;

/// Follows the requests, and says what will be asked for.
#[derive(Debug)]
pub struct Predictor {
    settings: PredictSettings,
    sessions: Sessions,
    mixture: Mixture,
    gaps: Gaps,
    rhythms: Rhythms,
    /// Of each model, the requests that named no session, and when the latest came.
    alone: Vec<(Visits, Option<Moment>)>,
    popularity: Popularity,
    overall: Scorecard,
    by_session: Scorecard,
    by_rhythm: Scorecard,
    preloads: Preloads,
    outlook: Outlook,
    /// Seconds that a model lies idle until it is evicted.
    idle: f64,
    /// When there may be something to wish for.
    next: Option<Moment>,
    /// When those that were due and did not come were counted last.
    settled: Moment,
}

impl Predictor {
    /// A predictor that has seen nothing.
    ///
    /// # Errors
    ///
    /// `Config` where the settings contradict themselves: see [`PredictSettings::check`].
    pub fn new(settings: PredictSettings) -> Result<Self> {
        settings.check()?;
        let history = settings.history;
        Ok(Self {
            settings,
            sessions: Sessions::new(settings.sessions),
            mixture: Mixture::new(history),
            gaps: Gaps::new(),
            rhythms: Rhythms::default(),
            alone: Vec::new(),
            popularity: Popularity::new(history),
            overall: Scorecard::new(history, 0.0),
            by_session: Scorecard::new(history, 0.0),
            by_rhythm: Scorecard::new((history / 5).max(FEWEST), COME),
            preloads: Preloads::default(),
            outlook: Outlook::default(),
            idle: FIRST_IDLE,
            next: None,
            settled: Moment::default(),
        })
    }

    /// A request for that model has come, from the session of that key where it named one. Cheap, for every hit makes it.
    pub fn note(&mut self, now: Moment, model: ModelId, session: Option<u64>) {
        self.preloads.used(model);
        match session {
            Some(session) => self.note_session(now, model, session),
            None => self.note_alone(now, model),
        }
    }

    fn note_session(&mut self, now: Moment, model: ModelId, key: u64) {
        let (session, forgotten) = self.sessions.touch(key);
        if session.recent.first() == Some(&model) && now.since(session.last) < VISIT {
            return;
        }
        if let Some((key, mut forgotten)) = forgotten {
            forgotten.pause(now, &mut self.gaps);
            self.rhythms.forget(&mut forgotten.visits, Visitor::Session(key));
        }
        let named = self.mixture.rank(&session.recent, self.settings.top);
        let own = guess(named.iter().map(|(named, _)| *named), model);
        self.mixture.learn(&session.recent, model);
        if session.ask(model, now, &mut self.gaps) {
            self.outlook.draw(now);
            self.rhythms.forget(&mut session.visits, Visitor::Session(key));
        }
        let due = self.rhythms.visit(&mut session.visits, Visitor::Session(key), model, now);
        let popular = self.popular(model);
        self.by_session.score(own, popular);
        self.seen(now, model, own, popular, due);
    }

    fn note_alone(&mut self, now: Moment, model: ModelId) {
        let index = model.0 as usize;
        if self.alone.len() <= index {
            self.alone.resize_with(index + 1, Default::default);
        }
        let last = self.alone.get_mut(index).and_then(|(_, last)| last.replace(now));
        if last.is_some_and(|last| now.since(last) < VISIT) {
            return;
        }
        if now.since(self.settled) >= SETTLED {
            self.settle(now);
        }
        let due = self.rhythms.due(now);
        let popular =
            self.popularity.leaders().iter().filter(|popular| !due.iter().any(|(due, _)| due == *popular));
        let named = due.iter().map(|(due, _)| *due).chain(popular.copied());
        let own = guess(named.take(self.settings.top), model);
        let Some((visits, _)) = self.alone.get_mut(index) else { return };
        let due = self.rhythms.visit(visits, Visitor::Nobody(model), model, now);
        self.seen(now, model, own, self.popular(model), due);
    }

    fn seen(&mut self, now: Moment, model: ModelId, own: Guess, popular: Guess, due: Option<Due>) {
        if due.is_some() {
            self.by_rhythm.score(Guess { first: true, named: true }, popular);
        }
        self.overall.score(own, popular);
        self.popularity.note(model);
        self.look_again(now);
    }

    /// Something has changed what may be wished for.
    fn look_again(&mut self, now: Moment) {
        let soon = now + PAUSE;
        if self.is_on() {
            self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        }
    }

    /// What popularity would have guessed.
    fn popular(&self, model: ModelId) -> Guess {
        let (first, named) = self.popularity.names(model, self.settings.top);
        Guess { first, named }
    }

    /// The models that should be loaded now, those that save the most first. They keep to the share of the memory, together
    /// with those that were wished for before and still wait; `prospect` says what a load would take, or `None` for a model
    /// that is loaded, or loading, or cannot be.
    pub fn wishes(&mut self, now: Moment, memory: Option<u64>, prospect: &Prospects<'_>) -> Vec<Wish> {
        self.settle(now);
        self.next = None;
        let mut wishes = Vec::new();
        if self.is_on() {
            let idle = Duration::from_secs_f64(self.idle);
            self.outlook.look(now, idle, LOOKED_THROUGH, &mut self.sessions, (&self.mixture, &mut self.gaps));
        }
        if self.by_rhythm.is_on() {
            self.wish_by_rhythm(now, prospect, &mut wishes);
        }
        if self.by_session.is_on() {
            self.wish_by_session(now, prospect, &mut wishes);
        }
        wishes.sort_by(|one, other| other.saves.total_cmp(&one.saves).then(one.model.cmp(&other.model)));
        let room = memory.map_or(u64::MAX, |memory| share_of(memory, self.settings.share));
        let mut room = room.saturating_sub(self.preloads.bytes());
        let mut taken = Vec::new();
        wishes.retain(|wish| {
            let fits = wish.prospect.bytes <= room && !taken.contains(&wish.model);
            if fits {
                room -= wish.prospect.bytes;
                taken.push(wish.model);
            }
            fits
        });
        wishes
    }

    /// When [`wishes`](Self::wishes) wants to be asked again; `None` for not before the next request.
    pub fn next(&self) -> Option<Moment> {
        self.next
    }

    /// A wish is granted: its load is queued, and its bytes count against the share.
    pub fn granted(&mut self, wish: &Wish) {
        self.preloads.grant(wish);
    }

    /// The load of a model has begun; where it was wished for, it is paid for from here on.
    pub fn begun(&mut self, now: Moment, model: ModelId) {
        self.preloads.begun(model, now);
    }

    /// A model has left memory, after lying idle for so long where that was for space; or its load has come to nothing.
    pub fn gone(&mut self, now: Moment, model: ModelId, idle: Option<Duration>) {
        self.preloads.gone(model, now);
        if let Some(idle) = idle {
            self.idle += LATEST * (idle.as_secs_f64().clamp(SHORTEST, LONGEST) - self.idle);
        }
        self.look_again(now);
    }

    /// The models that were wished for and that nobody has asked for yet.
    pub fn waiting(&self) -> impl Iterator<Item = ModelId> {
        self.preloads.waiting()
    }

    /// The chance that somebody asks for a model before it would have lain idle for as long as models do until they are
    /// evicted; 0 while sessions are not followed.
    pub fn likely(&self, model: ModelId) -> f64 {
        if self.by_session.is_on() { self.outlook.likely(model, &self.mixture) } else { 0.0 }
    }

    /// Seconds of loading that a wish which was granted saves in the mean; 0 for a model that was not wished for.
    pub fn saves(&self, model: ModelId) -> f64 {
        self.preloads.saves(model)
    }

    /// True for a model that had better stay: it was loaded because it is expected and still is, or some session will
    /// probably come back to it.
    pub fn keeps(&self, now: Moment, model: ModelId) -> bool {
        self.preloads.expected(model, now) || self.likely(model) >= KEPT
    }

    /// True for a model that may leave at once: its next request is known to be so far off that it would be evicted before, or
    /// it was loaded for one that did not come.
    pub fn is_spent(&self, now: Moment, model: ModelId) -> bool {
        let horizon = now + Duration::from_secs_f64(self.idle);
        let silent =
            || self.by_rhythm.is_on() && self.rhythms.silent_until(model).is_some_and(|due| due > horizon);
        (self.preloads.came_to_nothing(model, now) || silent())
            && self.outlook.likely(model, &self.mixture) < UNLIKELY
    }

    /// True while it is ahead of popularity, and acted on.
    pub fn is_on(&self) -> bool {
        self.by_session.is_on() || self.by_rhythm.is_on()
    }

    /// What prediction says of itself.
    pub fn report(&self) -> PredictReport {
        let rhythms_known = self.rhythms.trusted().count();
        let mut report = PredictReport {
            on: self.by_session.is_on() || self.by_rhythm.is_on() && rhythms_known > 0,
            sessions_on: self.by_session.is_on(),
            rhythms_on: self.by_rhythm.is_on(),
            accuracy: self.overall.of_late(),
            sessions: self.by_session.of_late(),
            rhythms: self.by_rhythm.of_late(),
            ever: self.overall.ever(),
            rhythms_known,
            sessions_known: self.sessions.len(),
            idle: Duration::from_secs_f64(self.idle),
            ..PredictReport::default()
        };
        self.preloads.report(&mut report);
        report
    }

    fn settle(&mut self, now: Moment) {
        let score = &mut self.by_rhythm;
        self.settled = now;
        self.rhythms.settle(now, |_| score.score(Guess::default(), Guess::default()));
    }

    fn wish_by_rhythm(&mut self, now: Moment, prospect: &Prospects<'_>, wishes: &mut Vec<Wish>) {
        for rhythm in self.rhythms.trusted() {
            let (model, likely) = (rhythm.model, rhythm.likely());
            let Some(prospect) = prospect(model) else { continue };
            let (from, until) = rhythm.expected(prospect.load_seconds * MARGIN);
            if now < from {
                self.next = Some(self.next.map_or(from, |next| next.min(from)));
            } else if now <= until {
                wishes.push(Wish::new(model, until, likely, prospect, Because::Rhythm));
            }
        }
    }

    fn wish_by_session(&self, now: Moment, prospect: &Prospects<'_>, wishes: &mut Vec<Wish>) {
        let until = now + Duration::from_secs_f64(self.idle);
        for model in self.outlook.of_sessions() {
            let likely = self.outlook.likely(model, &self.mixture);
            if likely >= LIKELY
                && let Some(prospect) = prospect(model)
            {
                wishes.push(Wish::new(model, until, likely, prospect, Because::Session));
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of bytes"
)]
fn share_of(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

/// Whether a model is the first of those named, and whether it is among them.
fn guess(named: impl Iterator<Item = ModelId>, model: ModelId) -> Guess {
    let place = named.enumerate().find(|(_, named)| *named == model).map(|(place, _)| place);
    Guess { first: place == Some(0), named: place.is_some() }
}
