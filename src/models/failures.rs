//! Loads that fail: when they are tried again, how long they are remembered, when they are forgiven.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ModelId;
use super::graph::who_needs;
use crate::error::{Error, ErrorKind};
use crate::flow::Moment;

/// However often a model fails, it may be tried again after this.
const LONGEST_MEMORY: Duration = Duration::from_mins(5);

/// However often a load is tried, it does not wait longer than this before the next time.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How often one load may be tried, and how often it was.
#[derive(Debug, Clone, Copy)]
pub struct Attempts {
    made: u32,
    retries: u32,
    backoff: Duration,
}

impl Attempts {
    /// A load that was not tried yet, and is tried once and `retries` times more.
    pub const fn new(retries: u32, backoff: Duration) -> Self {
        Self { made: 0, retries, backoff }
    }

    /// It begins: the number of this attempt, from 1.
    pub const fn begin(&mut self) -> u32 {
        self.made = self.made.saturating_add(1);
        self.made
    }

    /// Attempts that began.
    pub const fn made(&self) -> u32 {
        self.made
    }

    /// It failed: when it begins again, or `None` where that was the last attempt. The pause is anything between nothing and
    /// `backoff`, doubled by each further failure: who failed together does not come back together.
    pub fn again(&self, now: Moment, random: &mut fastrand::Rng) -> Option<Moment> {
        if self.made > self.retries {
            return None;
        }
        let doubled = 1_u32.checked_shl(self.made.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.backoff.saturating_mul(doubled).min(LONGEST_PAUSE.max(self.backoff));
        Some(now + longest.mul_f64(random.f64()))
    }
}

/// A failure that is remembered.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What it was.
    pub error: Error,
    /// Until then nobody needs to try.
    pub until: Moment,
    /// How many loads have failed in a row, each with all its retries.
    pub in_a_row: u32,
}

/// Which models could not be loaded of late.
///
/// A model that failed is left alone for `memory`, doubled by each further failure in a row, up to five minutes. When that
/// is over it may be tried again; only a success, a reload or a new registration makes it forget how often it failed.
#[derive(Debug)]
pub struct Failures {
    memory: Duration,
    known: BTreeMap<ModelId, Failure>,
}

impl Failures {
    /// None yet. A `memory` of zero forgets at once.
    pub const fn new(memory: Duration) -> Self {
        Self { memory, known: BTreeMap::new() }
    }

    /// A load has failed for good. What is remembered of it.
    pub fn remember(&mut self, id: ModelId, error: Error, now: Moment) -> Failure {
        let before = self.known.get(&id).map_or(0, |failure| failure.in_a_row);
        let doubled = 1_u32.checked_shl(before).unwrap_or(u32::MAX);
        let memory = self.memory.saturating_mul(doubled).min(LONGEST_MEMORY.max(self.memory));
        let failure = Failure { error, until: now + memory, in_a_row: before.saturating_add(1) };
        self.known.insert(id, failure.clone());
        failure
    }

    /// What keeps a model from being tried now; `None` where nothing does.
    pub fn standing(&self, id: ModelId, now: Moment) -> Option<&Failure> {
        self.last(id).filter(|failure| now < failure.until)
    }

    /// What was last remembered of a model and not forgiven, its time over or not.
    pub fn last(&self, id: ModelId) -> Option<&Failure> {
        self.known.get(&id)
    }

    /// Forgets how a model failed: it was loaded, is reloaded or registered anew. False where there was nothing.
    pub fn forgive(&mut self, id: ModelId) -> bool {
        self.known.remove(&id).is_some()
    }

    /// The models that nobody may try now.
    pub fn standing_all(&self, now: Moment) -> impl Iterator<Item = (ModelId, &Failure)> {
        self.known.iter().filter(move |(_, failure)| now < failure.until).map(|(id, failure)| (*id, failure))
    }
}

/// What who asked for the first of `chain` is told, where the last of it failed with `cause`: the whole chain in words, the
/// kind and the cause kept, and how long to leave it alone.
///
/// `LoadTimeout` and `Capacity` stay what they are; everything else that a loader says is `LoadFailed`.
pub fn explain(chain: &[Arc<str>], cause: &Error, retry_after: Option<Duration>) -> Error {
    let kind = match cause.kind() {
        kind @ (ErrorKind::LoadTimeout | ErrorKind::Capacity | ErrorKind::Closed) => kind,
        _ => ErrorKind::LoadFailed,
    };
    let which = if chain.len() > 1 { ", which" } else { "" };
    let text = format!("{}{which} failed to load: {cause}", who_needs(chain));
    let error = Error::with_source(kind, text, cause.clone());
    match retry_after {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODEL: ModelId = ModelId(3);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn broken() -> Error {
        Error::new(ErrorKind::Model, "ValueError: no such file")
    }

    #[test]
    fn a_load_is_tried_once_and_as_often_more_as_allowed() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut attempts = Attempts::new(2, Duration::from_millis(500));
        assert_eq!(attempts.begin(), 1);
        assert!(attempts.again(at(0), &mut random).is_some());
        assert_eq!(attempts.begin(), 2);
        assert!(attempts.again(at(0), &mut random).is_some());
        assert_eq!(attempts.begin(), 3);
        assert_eq!(attempts.again(at(0), &mut random), None);
        assert_eq!(attempts.made(), 3);
        let mut once = Attempts::new(0, Duration::ZERO);
        once.begin();
        assert_eq!(once.again(at(0), &mut random), None);
    }

    #[test]
    fn pauses_double_and_are_spread_over_their_whole_length() {
        let mut random = fastrand::Rng::with_seed(7);
        for (failures, longest) in [(1, 0.5), (2, 1.0), (3, 2.0), (40, 60.0)] {
            let mut attempts = Attempts::new(u32::MAX - 1, Duration::from_millis(500));
            (0..failures).for_each(|_| _ = attempts.begin());
            let mut pause = || attempts.again(at(9), &mut random).unwrap().since(at(9)).as_secs_f64();
            let pauses: Vec<_> = (0..400).map(|_| pause()).collect();
            assert!(pauses.iter().all(|pause| (0.0..=longest).contains(pause)));
            assert!(pauses.iter().any(|pause| *pause < longest * 0.1));
            assert!(pauses.iter().any(|pause| *pause > longest * 0.9));
        }
    }

    #[test]
    fn vera_134_failure_expires() {
        let mut failures = Failures::new(Duration::from_secs(5));
        let until = failures.remember(MODEL, broken(), at(0)).until;
        assert_eq!(until, at(5));
        assert_eq!(failures.standing(MODEL, at(4)).unwrap().error.to_string(), "ValueError: no such file");
        assert!(failures.standing(MODEL, at(5)).is_none(), "it may be tried again");
        assert_eq!(failures.last(MODEL).unwrap().in_a_row, 1);
        assert!(failures.standing(ModelId(4), at(0)).is_none());
    }

    #[test]
    fn who_fails_again_is_left_alone_longer_until_it_is_forgiven() {
        let mut failures = Failures::new(Duration::from_secs(5));
        let memories: Vec<_> =
            (0..40).map(|_| failures.remember(MODEL, broken(), at(0)).until.since(at(0)).as_secs()).collect();
        assert_eq!(memories[..7], [5, 10, 20, 40, 80, 160, 300]);
        assert_eq!(memories[39], 300);
        assert_eq!(failures.standing_all(at(299)).count(), 1);
        assert!(failures.forgive(MODEL) && !failures.forgive(MODEL));
        assert_eq!(failures.standing_all(at(0)).count(), 0);
        assert_eq!(failures.remember(MODEL, broken(), at(1)).until, at(6));
        let mut forgetful = Failures::new(Duration::ZERO);
        forgetful.remember(MODEL, broken(), at(1));
        assert!(forgetful.standing(MODEL, at(1)).is_none());
        let mut patient = Failures::new(Duration::from_mins(10));
        assert_eq!(
            patient.remember(MODEL, broken(), at(0)).until,
            at(600),
            "what the user said is not cut short"
        );
    }

    #[test]
    fn who_waits_hears_the_whole_chain_and_its_cause() {
        let told = |chain: &[&str], cause: &Error| {
            let chain: Vec<Arc<str>> = chain.iter().map(|&name| name.into()).collect();
            explain(&chain, cause, Some(Duration::from_secs(5)))
        };
        let error = told(&["head"], &broken());
        assert_eq!(error.to_string(), "model 'head' failed to load: ValueError: no such file");
        assert_eq!(
            (error.kind(), error.wait_before_retry()),
            (ErrorKind::LoadFailed, Some(Duration::from_secs(5)))
        );
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "ValueError: no such file");
        let error = told(&["head", "encoder"], &broken());
        assert_eq!(
            error.to_string(),
            "model 'head' needs 'encoder', which failed to load: ValueError: no such file"
        );
        let late = Error::new(ErrorKind::LoadTimeout, "it took longer than 30 s");
        let error = told(&["head", "encoder", "tokenizer"], &late);
        assert_eq!(error.kind(), ErrorKind::LoadTimeout);
        assert_eq!(
            error.to_string(),
            "model 'head' needs 'encoder', which needs 'tokenizer', which failed to load: it took longer than 30 s"
        );
        assert_eq!(explain(&["a".into()], &broken(), None).wait_before_retry(), None);
    }

    proptest! {
        /// A failure is never remembered for longer than the bound, and the count never shrinks by failing.
        #[test]
        fn memory_is_bounded(seconds in 0..1000_u64, gaps in prop::collection::vec(0..400_u64, 1..30)) {
            let mut failures = Failures::new(Duration::from_secs(seconds));
            let mut now = 0;
            for (count, gap) in (1..).zip(gaps) {
                now += gap;
                let failure = failures.remember(MODEL, broken(), at(now));
                prop_assert_eq!(failure.in_a_row, count);
                prop_assert!(failure.until.since(at(now)) <= Duration::from_secs(seconds.max(300)));
                prop_assert!(failure.until.since(at(now)) >= Duration::from_secs(seconds));
            }
        }
    }
}
