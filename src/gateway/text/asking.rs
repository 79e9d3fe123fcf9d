//! A question for text, asked in the server's own words, and what it says, token by token.

use std::collections::VecDeque;

use super::exchange::{Hear, Heard, Question};
use super::{TextProtocol, TextUpstream};
use crate::error::Result;
use crate::gateway::about::About;
use crate::pipeline::{Piece, Said, Speaker};
use crate::stream::{Event, SseDecoder};
use crate::wire::openai::{self, Chunk, Passage};

const DONE: &str = "[DONE]";

/// Asks the question that a document holds.
pub(super) async fn ask(
    upstream: &TextUpstream,
    document: &[u8],
    speaker: &Speaker,
    about: About<'_>,
) -> Result<Said> {
    let (passage, body) = match upstream.settings.protocol {
        TextProtocol::OpenAi => openai::question(document, &upstream.settings.model)?,
        TextProtocol::Generate => (Passage::Generate, openai::text_input(document)?),
    };
    let question = Question { path: upstream.path(passage, true), body, stream: true, about };
    let mut saying = Saying {
        decoder: SseDecoder::new(upstream.settings.max_event),
        events: VecDeque::new(),
        speaker,
        reason: None,
        prompt_tokens: None,
    };
    upstream.stream(question, speaker, &mut saying).await?;
    let Saying { reason, prompt_tokens, .. } = saying;
    Ok(Said::Finish { reason: reason.map(Into::into), prompt_tokens })
}

/// Says the text of every event.
struct Saying<'a> {
    decoder: SseDecoder,
    events: VecDeque<Event>,
    speaker: &'a Speaker,
    reason: Option<String>,
    prompt_tokens: Option<u64>,
}

impl Hear for Saying<'_> {
    fn hear(&mut self, portion: &[u8]) -> Result<Heard> {
        let fed = self.decoder.feed(portion, &mut self.events);
        let (mut heard, mut sleeper, mut failed) = (Heard::Nothing, None, fed.err());
        while let Some(event) = self.events.pop_front() {
            if event.data.trim() == DONE {
                heard = Heard::Over;
                break;
            }
            heard = Heard::Something;
            match openai::chunk(&event.data) {
                Ok(Chunk { text, reason, prompt_tokens }) => {
                    if let Some(tokens) = prompt_tokens {
                        self.speaker.note_prompt(tokens);
                        self.prompt_tokens = Some(tokens);
                    }
                    self.reason = reason.or(self.reason.take());
                    if let Some(text) = text {
                        sleeper = self.speaker.say(Piece::Text(text.into())).or(sleeper);
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        failed.map_or(Ok(heard), Err)
    }

    /// A server that speaks of text in lines says nothing at the end.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}
