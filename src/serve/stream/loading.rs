//! What a client hears while the model that it waits for is loaded.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::models::LoadState;
use crate::pipeline::Loading;

/// Time from the request to the head of an answer whose model is loaded meanwhile, and from one word of that to the next.
pub(super) const BETWEEN: Duration = Duration::from_secs(1);

/// The last that was said of a load.
pub(super) struct Told {
    words: String,
    at: Instant,
}

impl Told {
    /// Nothing yet.
    pub(super) fn nothing() -> Self {
        Self { words: String::new(), at: Instant::now() }
    }

    /// True where these words are news, and the last are old enough.
    pub(super) fn is_due(&self, words: &str) -> bool {
        self.at.elapsed() >= BETWEEN && self.words != words
    }

    /// These words are said now.
    pub(super) fn say(&mut self, words: String) {
        *self = Self { words, at: Instant::now() };
    }
}

/// How far the load of a model is, in words for a person: `loading byte-lm 45 % weights`.
pub(super) fn words(model: &str, loading: &Loading) -> String {
    let mut words = format!("loading {model}");
    if let Some(fraction) = loading.fraction {
        // Writing to a string does not fail.
        let _ = write!(words, " {:.0} %", fraction * 100.0);
    }
    let phase = match loading.state {
        LoadState::Loading => &*loading.phase,
        state => state.name(),
    };
    // One line, and no longer than a line: the phase is the loader's own.
    let phase = phase.chars().filter(|letter| !letter.is_control()).take(LONGEST_PHASE);
    let phase: String = phase.collect();
    if !phase.is_empty() {
        let _ = write!(words, " {phase}");
    }
    words
}

const LONGEST_PHASE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_told_in_one_line() {
        let loading = |state, phase: &str, fraction| Loading { state, phase: phase.into(), fraction };
        for (loading, expected) in [
            (loading(LoadState::Queued, "", None), "loading byte-lm queued"),
            (loading(LoadState::WaitingForSpace, "", None), "loading byte-lm waiting for space"),
            (loading(LoadState::Loading, "", None), "loading byte-lm"),
            (loading(LoadState::Loading, "weights", Some(0.451)), "loading byte-lm 45 % weights"),
            (loading(LoadState::Loading, "a\n\ndata: b", None), "loading byte-lm adata: b"),
            (loading(LoadState::Warming, "weights", Some(1.0)), "loading byte-lm 100 % warming"),
        ] {
            assert_eq!(words("byte-lm", &loading), expected);
        }
        assert!(words("m", &loading(LoadState::Loading, &"x".repeat(1_000), None)).len() < 120);
    }

    #[test]
    fn nothing_is_said_twice_nor_too_often() {
        let mut told = Told::nothing();
        assert!(!told.is_due("a"), "it is too early");
        told.at -= BETWEEN;
        assert!(told.is_due("a"));
        told.say("a".to_owned());
        told.at -= BETWEEN;
        assert!(!told.is_due("a"), "it was said");
        assert!(told.is_due("b"));
    }
}
