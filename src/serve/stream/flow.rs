//! From what a model says for the choices of an answer to the bytes of that answer.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderValue;

use super::Frames;
use super::loading::{self, Told};
use crate::error::{Error, Result};
use crate::pipeline::{Endpoint, Pieces};

/// An answer under way.
pub(super) struct Flow {
    /// None for a choice that is done.
    choices: Vec<Option<Pieces>>,
    running: usize,
    /// The choice that is looked at first, so that none comes last for ever.
    first: usize,
    frames: Box<dyn Frames>,
    model: Arc<Endpoint>,
    /// The last that was said of its load.
    told: Told,
    /// Frames that have not left.
    pub(super) out: Vec<u8>,
    /// Pieces in it.
    pub(super) pieces: u64,
    over: bool,
}

impl Flow {
    pub(super) fn new(choices: Vec<Pieces>, frames: Box<dyn Frames>, model: Arc<Endpoint>) -> Self {
        let running = choices.len();
        let choices = choices.into_iter().map(Some).collect();
        Self {
            choices,
            running,
            first: 0,
            frames,
            model,
            told: Told::nothing(),
            out: Vec::new(),
            pieces: 0,
            over: false,
        }
    }

    pub(super) fn content_type(&self) -> HeaderValue {
        self.frames.content_type()
    }

    /// True where there is nothing to send, and something may come.
    pub(super) fn is_quiet(&self) -> bool {
        self.out.is_empty() && !self.over
    }

    /// True where nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Writes the frames of what is there, at least `cap` bytes where there is as much; where there is less, the task is
    /// woken when more comes.
    ///
    /// # Errors
    /// What the model failed with. Nothing more comes, and nothing was said of it.
    pub(super) fn fill(&mut self, context: &mut Context<'_>, cap: usize) -> Result<()> {
        let count = self.choices.len();
        for step in 0..count {
            let choice = (self.first + step) % count;
            if self.out.len() >= cap {
                self.first = choice;
                return Ok(());
            }
            if let Err(error) = self.fill_choice(choice, context, cap) {
                self.stop();
                return Err(error);
            }
        }
        if self.running == 0 && !self.over {
            self.frames.close(&mut self.out);
            self.over = true;
        }
        Ok(())
    }

    fn fill_choice(&mut self, choice: usize, context: &mut Context<'_>, cap: usize) -> Result<()> {
        let Some(place) = self.choices.get_mut(choice) else { return Ok(()) };
        let Some(pieces) = place else { return Ok(()) };
        while self.out.len() < cap {
            match pieces.poll_next(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(piece)) => {
                    self.pieces += 1;
                    if self.frames.piece(choice, &piece, &mut self.out).is_continue() {
                        continue;
                    }
                    if let Some(tokens) = pieces.prompt_tokens() {
                        self.frames.prompt(choice, tokens);
                    }
                    pieces.enough();
                }
                Poll::Ready(None) => {
                    let end = pieces.end()?;
                    self.frames.end_choice(choice, &end, &mut self.out);
                }
            }
            // Its generation ends with it.
            *place = None;
            self.running -= 1;
            return Ok(());
        }
        Ok(())
    }

    /// True while the model is on its way.
    pub(super) fn is_loading(&self) -> bool {
        self.choices.iter().flatten().any(Pieces::is_loading)
    }

    /// How far the load of the model is, where it is on its way.
    fn load(&self) -> Option<String> {
        let loading = if self.is_loading() { self.model.loading() } else { None };
        loading.map(|loading| loading::words(&self.model.spec.name, &loading))
    }

    /// True where there is something new to say of the load of the model.
    pub(super) fn has_news(&self) -> bool {
        self.load().is_some_and(|words| self.told.is_due(&words))
    }

    /// Says how far the load of the model is, or that the model is at work.
    pub(super) fn comment(&mut self) {
        let load = self.load();
        self.frames.comment(load.as_deref().unwrap_or("waiting for the model"), &mut self.out);
        if let Some(words) = load {
            self.told.say(words);
        }
    }

    /// Ends the answer, with `error` as the last that is said.
    pub(super) fn fail(&mut self, error: &Error) {
        self.stop();
        self.frames.failed(error, &mut self.out);
    }

    /// Stops the generation of every choice; nothing more comes.
    pub(super) fn stop(&mut self) {
        self.over = true;
        self.abandon();
    }

    /// Stops the generation of every choice, of an answer that is about to [`fail`](Self::fail).
    pub(super) fn abandon(&mut self) {
        self.choices.clear();
    }
}
