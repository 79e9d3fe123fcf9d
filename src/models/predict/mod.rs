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

use smallvec::SmallVec;

use self::gaps::Gaps;
use self::mixture::Mixture;
use self::outlook::Outlook;
use self::popularity::Popularity;
use self::preloads::Preloads;
use self::rhythm::{Due, Rhythms, Visitor, Visits};
use self::scorecard::{Guess, Scorecard};
use self::sessions::Sessions;
pub use self::settings::{Accuracy, Because, PredictReport, PredictSettings, Prospect, Wish};
use crate::error::Result;
use crate::flow::Moment;
use crate::models::ModelId;

/// Requests of one visitor for one model that lie closer together than this are one: only the first is looked at.
const VISIT: Duration = Duration::from_secs(1);
/// Of visits that are due, those that must come.
const COME: f64 = 0.6;
/// Sessions that are looked through for wishes, the latest of them.
const LOOKED_THROUGH: usize = 1_000;
/// How long a model lies idle until it is evicted, before that was seen; what the latest eviction weighs; its bounds.
const FIRST_IDLE: f64 = 300.0;
const LATEST: f64 = 0.1;
const SHORTEST: f64 = 10.0;
const LONGEST: f64 = 3600.0;

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
            by_rhythm: Scorecard::new(history, COME),
            preloads: Preloads::default(),
            outlook: Outlook::default(),
            idle: FIRST_IDLE,
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
        self.seen(model, own, popular, due);
    }

    fn note_alone(&mut self, now: Moment, model: ModelId) {
        let index = model.0 as usize;
        if self.alone.len() <= index {
            self.alone.resize_with(index + 1, Default::default);
        }
        let Some((visits, last)) = self.alone.get_mut(index) else { return };
        if last.replace(now).is_some_and(|last| now.since(last) < VISIT) {
            return;
        }
        let due = self.rhythms.due(now);
        let popular = self.popularity.leaders().iter().filter(|popular| !due.iter().any(|(due, _)| due == *popular));
        let named = due.iter().map(|(due, _)| *due).chain(popular.copied());
        let own = guess(named.take(self.settings.top), model);
        let due = self.rhythms.visit(visits, Visitor::Nobody(model), model, now);
        self.seen(model, own, self.popular(model), due);
    }

    fn seen(&mut self, model: ModelId, own: Guess, popular: Guess, due: Option<Due>) {
        if due.is_some() {
            self.by_rhythm.score(Guess { first: true, named: true }, popular);
        }
        self.overall.score(own, popular);
        self.popularity.note(model);
        self.outlook.stale();
    }

    /// What popularity would have guessed.
    fn popular(&self, model: ModelId) -> Guess {
        let (first, named) = self.popularity.names(model, self.settings.top);
        Guess { first, named }
    }

    /// The models that should be loaded now, those that save the most first. They keep to the share of the memory, together
    /// with those that were wished for before and still wait; `prospect` says what a load would take, or `None` for a model that
    /// is loaded, or loading, or cannot be.
    pub fn wishes(&mut self, now: Moment, memory: Option<u64>, prospect: &dyn Fn(ModelId) -> Option<Prospect>) -> Vec<Wish> {
        self.settle(now);
        self.next = None;
        let mut wishes = Vec::new();
        if self.by_rhythm.is_on() {
            self.wish_by_rhythm(now, prospect, &mut wishes);
        }
        if self.by_session.is_on() {
            self.wish_by_session(now, prospect, &mut wishes);
        }
        wishes.sort_by(|one, other| other.0.saves.total_cmp(&one.0.saves).then(one.0.model.cmp(&other.0.model)));
        wishes.dedup_by_key(|(wish, _)| wish.model);
        let mut room = memory.map_or(u64::MAX, |memory| share_of(memory, self.settings.share)).saturating_sub(self.preloads.bytes());
        wishes.retain(|(_, bytes)| {
            let fits = *bytes <= room;
            room -= if fits { *bytes } else { 0 };
            fits
        });
        wishes.into_iter().map(|(wish, _)| wish).collect()
    }

    fn settle(&mut self, now: Moment) {
        let score = &mut self.by_rhythm;
        self.rhythms.settle(now, |_| score.score(Guess::default(), Guess::default()));
    }

    fn wish_by_rhythm(&mut self, now: Moment, prospect: &dyn Fn(ModelId) -> Option<Prospect>, wishes: &mut Vec<(Wish, u64)>) {
        for rhythm in self.rhythms.trusted() {
            let Some(Prospect { bytes, load_seconds }) = prospect(rhythm.model) else { continue };
            let (from, until) = rhythm.expected(load_seconds * MARGIN);
            if now < from {
                self.next = Some(self.next.map_or(from, |next| next.min(from)));
            } else if now <= until {
                let (model, likely) = (rhythm.model, rhythm.likely());
                let wish = Wish { model, until, likely, saves: likely * load_seconds, because: Because::Rhythm };
                wishes.push((wish, bytes));
            }
        }
    }

    fn wish_by_session(&mut self, now: Moment, prospect: &dyn Fn(ModelId) -> Option<Prospect>, wishes: &mut Vec<(Wish, u64)>) {
        self.look(now);
        let until = now + Duration::from_secs_f64(self.idle);
        for model in self.outlook.of_sessions() {
            let likely = self.outlook.likely(model, &self.mixture);
            let Some(Prospect { bytes, load_seconds }) = prospect(model).filter(|_| likely >= LIKELY) else { continue };
            let wish = Wish { model, until, likely, saves: likely * load_seconds, because: Because::Session };
            wishes.push((wish, bytes));
        }
    }

    fn look(&mut self, now: Moment) {
        let idle = Duration::from_secs_f64(self.idle);
        self.outlook.look(now, idle, LOOKED_THROUGH, &mut self.sessions, (&self.mixture, &mut self.gaps));
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of bytes")]
fn share_of(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

/// Whether a model is the first of those named, and whether it is among them.
fn guess(named: impl Iterator<Item = ModelId>, model: ModelId) -> Guess {
    let place = named.enumerate().find(|(_, named)| *named == model).map(|(place, _)| place);
    Guess { first: place == Some(0), named: place.is_some() }
}
