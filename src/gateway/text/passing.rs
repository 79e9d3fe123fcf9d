//! A request that is passed on as it came, and its answer: event by event, or as a whole.

use std::collections::VecDeque;

use super::exchange::{Hear, Heard, Question};
use super::{TextProtocol, TextSettings, TextUpstream};
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::about::About;
use crate::pipeline::{Piece, Said, Speaker};
use crate::stream::{EventCutter, RawEvent};
use crate::wire::openai::{Passage, PassedRow};

/// Passes a request on, and its answer back.
pub(super) async fn pass(
    upstream: &TextUpstream,
    row: &[u8],
    speaker: &Speaker,
    about: About<'_>,
) -> Result<Said> {
    let broken = || Error::new(ErrorKind::Internal, "a request was to be passed on and is none");
    let row = PassedRow::read(row).ok_or_else(broken)?;
    let question = Question {
        path: upstream.path(row.passage, row.stream),
        body: row.body(&upstream.settings.model),
        stream: row.stream,
        about,
    };
    if row.stream {
        let cutter = EventCutter::new(upstream.settings.max_event);
        upstream.stream(question, speaker, &mut Passing { cutter, events: VecDeque::new(), speaker }).await?;
    } else {
        let whole = upstream.whole(question).await?;
        if let Some(sleeper) = speaker.say(Piece::Passed(whole)) {
            sleeper.wake();
        }
    }
    Ok(Said::Finish { reason: None, prompt_tokens: None })
}

impl TextUpstream {
    /// Where a request for that goes.
    pub(super) fn path(&self, passage: Passage, stream: bool) -> String {
        match (passage, self.settings.protocol) {
            (Passage::Chat, TextProtocol::OpenAi) => "/v1/chat/completions".to_owned(),
            (Passage::Completion, TextProtocol::OpenAi) => "/v1/completions".to_owned(),
            (Passage::Embeddings, TextProtocol::OpenAi) => "/v1/embeddings".to_owned(),
            _ => {
                let TextSettings { model, version, .. } = &self.settings;
                let version = version.iter().map(|version| format!("/versions/{version}"));
                let version = version.collect::<String>();
                format!("/v2/models/{model}{version}/generate{}", if stream { "_stream" } else { "" })
            }
        }
    }
}

/// Says every event as it came.
struct Passing<'a> {
    cutter: EventCutter,
    events: VecDeque<RawEvent>,
    speaker: &'a Speaker,
}

impl Hear for Passing<'_> {
    fn hear(&mut self, portion: &[u8]) -> Result<Heard> {
        let cut = self.cutter.feed(portion, &mut self.events);
        let (mut heard, mut sleeper) = (Heard::Nothing, None);
        for event in self.events.drain(..) {
            heard = if event.is_done || heard == Heard::Over { Heard::Over } else { Heard::Something };
            // The first that is said finds the reader asleep, if any does.
            sleeper = self.speaker.say(Piece::Passed(event.bytes)).or(sleeper);
        }
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        cut.map(|()| heard)
    }

    fn end(&mut self) -> Result<()> {
        if self.cutter.is_within() {
            return Err(Error::new(ErrorKind::ProtocolError, "it ended within an event"));
        }
        Ok(())
    }
}
