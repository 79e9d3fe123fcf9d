//! The choices of an answer while they are made: what of the model's text is said, and where each ends.

use std::sync::Arc;

use super::answer::Usage;
use super::stop::{Search, Stops};

/// Why a choice ended: at the model's own end, or at one of the texts that end it.
const STOP: &str = "stop";
/// At its most tokens.
const LENGTH: &str = "length";

/// The choices of one answer.
#[derive(Debug)]
pub struct Choices {
    of: Vec<Choice>,
    /// Choices of each prompt, side by side.
    each: usize,
    max_tokens: u64,
}

#[derive(Debug)]
struct Choice {
    search: Search,
    tokens: u64,
    prompt_tokens: Option<u64>,
    /// All was said of it.
    ended: bool,
}

/// What there is to say after a piece of the model's text.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The text goes on.
    More,
    /// It ends here, for that reason, whatever the model would still say.
    Ends(&'static str),
}

impl Choices {
    /// So many choices, `each` of them of one prompt, which end after `max_tokens` or at one of `stops`.
    pub fn new(count: usize, each: usize, max_tokens: u64, stops: &Arc<Stops>) -> Self {
        let choice = || Choice { search: Search::new(stops), tokens: 0, prompt_tokens: None, ended: false };
        Self { of: (0..count).map(|_| choice()).collect(), each: each.max(1), max_tokens }
    }

    /// Takes a token of a choice, and adds to `out` what can be said of it.
    pub fn piece(&mut self, choice: usize, text: &[u8], out: &mut Vec<u8>) -> Heard {
        let Some(choice) = self.of.get_mut(choice).filter(|choice| !choice.ended) else {
            return Heard::Ends(STOP);
        };
        choice.tokens += 1;
        if choice.search.push(text, out) {
            choice.ended = true;
            return Heard::Ends(STOP);
        }
        if choice.tokens < self.max_tokens {
            return Heard::More;
        }
        choice.search.end(out);
        choice.ended = true;
        Heard::Ends(LENGTH)
    }

    /// Takes the model's own end of a choice, adds to `out` what was held back, and gives the reason for the end.
    pub fn end<'a>(
        &mut self,
        choice: usize,
        reason: Option<&'a str>,
        prompt_tokens: Option<u64>,
        out: &mut Vec<u8>,
    ) -> &'a str {
        self.prompt(choice, prompt_tokens);
        if let Some(choice) = self.of.get_mut(choice).filter(|choice| !choice.ended) {
            choice.search.end(out);
            choice.ended = true;
        }
        reason.unwrap_or(STOP)
    }

    /// Takes the length of the prompt of a choice, where the model has said it.
    pub fn prompt(&mut self, choice: usize, tokens: Option<u64>) {
        if let (Some(choice), Some(_)) = (self.of.get_mut(choice), tokens) {
            choice.prompt_tokens = tokens;
        }
    }

    /// What the answer took so far.
    pub fn usage(&self) -> Usage {
        let of_prompt = |choices: &[Choice]| choices.iter().find_map(|choice| choice.prompt_tokens);
        Usage {
            prompt_tokens: self.of.chunks(self.each).filter_map(of_prompt).sum(),
            completion_tokens: self.of.iter().map(|choice| choice.tokens).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(count: usize, max_tokens: u64, stop: &str) -> Choices {
        Choices::new(count, 2, max_tokens, &Stops::new([stop]))
    }

    #[test]
    fn a_choice_ends_at_its_most_tokens_with_all_that_was_held_back() {
        let mut choices = choices(1, 3, "ab");
        let mut out = Vec::new();
        assert_eq!(choices.piece(0, b"x", &mut out), Heard::More);
        assert_eq!(choices.piece(0, b"", &mut out), Heard::More);
        assert_eq!(choices.piece(0, b"a", &mut out), Heard::Ends(LENGTH));
        assert_eq!(out, b"xa");
        assert_eq!(choices.piece(0, b"late", &mut out), Heard::Ends(STOP), "nothing is heard any more");
        choices.prompt(0, Some(4));
        choices.prompt(0, None);
        assert_eq!(choices.usage().prompt_tokens, 4);
        assert_eq!((out.as_slice(), choices.usage().completion_tokens), (&b"xa"[..], 3));
    }

    #[test]
    fn a_choice_ends_at_a_stop_or_where_the_model_ends() {
        let mut choices = choices(4, 9, "ab");
        let mut out = Vec::new();
        assert_eq!(choices.piece(0, b"xaby", &mut out), Heard::Ends(STOP));
        assert_eq!(out, b"x");
        out.clear();
        assert_eq!(choices.piece(1, b"xa", &mut out), Heard::More);
        assert_eq!(choices.end(1, None, Some(5), &mut out), "stop");
        assert_eq!(out, b"xa");
        assert_eq!(choices.end(2, Some("length"), Some(7), &mut out), "length");
        choices.end(3, None, Some(7), &mut out);
        let usage = choices.usage();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (12, 2), "each prompt counts once");
    }
}
