//! Requests from within the process: rows in, rows out, over no wire; with the limits, the queues and the batches of all
//! others.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::deadline::{Deadline, within};
use super::{Door, Found, Timing};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{InFlight, StreamCount};
use crate::pipeline::{AnswerRow, Answered, Endpoint, Finish, Piece, Pieces, RequestTerms, Task};
use crate::tensor::{Rows, Specs};
use crate::wire::oip;
use crate::wire::openai::{self, Choices, Generation, Heard, column};

impl Door {
    /// The model of that name and version, as [`Service::model`](super::Service::model).
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`], naming what there is.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Found> {
        self.service.model(name, version)
    }

    /// Asks a model about `count` rows, which are in its queue when the future was polled once.
    ///
    /// # Errors
    /// As [`Endpoint::infer`](crate::pipeline::Endpoint::infer); [`ErrorKind::Overloaded`] where there are `max_in_flight`
    /// requests already; [`ErrorKind::DeadlineExceeded`].
    ///
    /// # Cancellation
    /// Dropping the future takes the rows out of the queue; rows already with the model are answered to nobody.
    pub async fn infer_rows(
        &self,
        model: Found,
        (terms, deadline): (RequestTerms, Option<Deadline>),
        (specs, rows): (Specs, Rows),
        count: usize,
    ) -> Result<(Answered, Timing)> {
        let _in_flight = self.admit()?;
        let terms = dated(&model, terms, deadline)?;
        let endpoint = Arc::clone(&model);
        let admitted = Instant::now();
        let answer = endpoint.infer(terms, specs, rows, count);
        // It is in the queue: who takes the model away waits for it there.
        drop(model);
        let answered = within(deadline, answer).await?;
        if !oip::same_shape(&answered.rows) {
            let name = &endpoint.spec.name;
            let message = format!("model '{name}' answered rows of one request in different shapes");
            return Err(Error::new(ErrorKind::Output, message));
        }
        let timing = Timing::of(admitted, answered.load, &answered.batch, Instant::now());
        Ok((answered, timing))
    }

    /// Asks a model about one row, for what each of its steps says.
    ///
    /// # Errors
    /// As [`infer_rows`](Self::infer_rows), and [`ErrorKind::Item`] where it answers with text, or there are several rows.
    pub fn step_rows(
        &self,
        model: &Found,
        (terms, deadline): (RequestTerms, Option<Deadline>),
        (specs, rows): (Specs, Rows),
        count: usize,
    ) -> Result<Steps> {
        let name = &model.spec.name;
        let refused = if model.spec.task == Task::Generate {
            format!("model '{name}' answers with text: give it a prompt, or messages")
        } else if count != 1 {
            format!("{count} rows in one request: a stream answers one")
        } else {
            let in_flight = self.admit()?;
            let pieces = model.stream(dated(model, terms, deadline)?, specs, &rows)?;
            return Ok(self.steps(pieces, None, in_flight));
        };
        model.count_invalid();
        Err(Error::new(ErrorKind::Item, refused))
    }

    /// Asks a model of text for one choice.
    ///
    /// # Errors
    /// As [`infer_rows`](Self::infer_rows), and [`ErrorKind::Item`] where it is no model of text.
    pub fn step_text(
        &self,
        model: &Found,
        (terms, deadline): (RequestTerms, Option<Deadline>),
        asked: &Generation,
    ) -> Result<Steps> {
        if model.spec.task != Task::Generate {
            model.count_invalid();
            return Err(openai::wrong_task(&model.spec.name, "text"));
        }
        let in_flight = self.admit()?;
        let document = asked.documents.first().map_or(&[][..], |document| document.as_ref());
        let (specs, rows) = column([document], model.spares());
        let choices = Choices::new(1, 1, asked.max_tokens, &asked.stops);
        let pieces = model.stream(dated(model, terms, deadline)?, specs, &rows)?;
        Ok(self.steps(pieces, Some(choices), in_flight))
    }

    fn steps(&self, pieces: Pieces, choices: Option<Choices>, in_flight: InFlight) -> Steps {
        Steps {
            pieces: Some(pieces),
            choices,
            collected: VecDeque::new(),
            failure: None,
            streaming: self.streams.streaming,
            ended: None,
            count: self.streams.metrics().begin(),
            in_flight: Some(in_flight),
        }
    }
}

/// The terms with that deadline, which nobody must have missed yet.
fn dated(model: &Endpoint, terms: RequestTerms, deadline: Option<Deadline>) -> Result<RequestTerms> {
    if let Some(deadline) = deadline {
        deadline.check().inspect_err(|_| model.count_expired())?;
    }
    Ok(RequestTerms { deadline: deadline.map(Deadline::at), ..terms })
}

/// What a model has said.
#[derive(Debug, Clone)]
pub enum Said {
    /// Whole characters of UTF-8, never none.
    Text(Bytes),
    /// The outputs of a step.
    Row(AnswerRow),
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `stop`, `length`, or what the model said; `None` where it said nothing.
    pub reason: Option<Arc<str>>,
    /// Tokens of the prompt, where the model has counted them.
    pub prompt_tokens: Option<u64>,
}

/// An answer that comes step by step. Dropping it stops the generation within one step, also where the request still waits.
pub struct Steps {
    /// None once it has ended.
    pieces: Option<Pieces>,
    /// What of a text is said, and where it ends.
    choices: Option<Choices>,
    /// What is kept until the last is there, where answers are given as a whole.
    collected: VecDeque<Said>,
    /// It failed, and nobody was told yet.
    failure: Option<Error>,
    streaming: bool,
    ended: Option<Result<Ended>>,
    count: StreamCount,
    in_flight: Option<InFlight>,
}

impl Steps {
    /// What the model has said next; `None` at the end: [`end`](Self::end) says which.
    ///
    /// # Errors
    /// What the model failed with, once; nothing comes after it.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Said>>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(error));
        }
        if self.streaming {
            return self.poll_said(context);
        }
        loop {
            match std::task::ready!(self.poll_said(context))? {
                Some(said) => self.collected.push_back(said),
                None => return Poll::Ready(Ok(self.collected.pop_front())),
            }
        }
    }

    /// As [`poll_next`](Self::poll_next), awaited.
    ///
    /// # Errors
    /// As it has.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Said>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Has a failure that was taken said again.
    pub fn put_back(&mut self, error: Error) {
        self.failure = Some(error);
    }

    /// How it ended, once it has ended well.
    pub fn end(&self) -> Option<&Ended> {
        self.ended.as_ref().and_then(|ended| ended.as_ref().ok())
    }

    fn poll_said(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Said>>> {
        while let Some(pieces) = &mut self.pieces {
            let Some(piece) = std::task::ready!(pieces.poll_next(context)) else {
                let end = pieces.end();
                return Poll::Ready(self.finish(end));
            };
            match piece {
                Piece::Row(row) => return Poll::Ready(Ok(Some(Said::Row(row)))),
                // Only who asks in the words of another server has its words back.
                Piece::Passed(_) => {}
                Piece::Text(text) => {
                    let Some(choices) = &mut self.choices else { continue };
                    let mut out = Vec::new();
                    if let Heard::Ends(reason) = choices.piece(0, &text, &mut out) {
                        let prompt_tokens = pieces.prompt_tokens();
                        pieces.enough();
                        self.note(Ok(Ended { reason: Some(reason.into()), prompt_tokens }));
                    }
                    if !out.is_empty() {
                        return Poll::Ready(Ok(Some(Said::Text(out.into()))));
                    }
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// The model has said all that it had to say; what was held back of its text comes now.
    fn finish(&mut self, end: Result<Finish>) -> Result<Option<Said>> {
        let finish = end.inspect_err(|error| {
            self.collected.clear();
            self.note(Err(error.clone()));
        })?;
        let mut out = Vec::new();
        let mut reason = finish.reason.clone();
        if let Some(choices) = &mut self.choices {
            let why = choices.end(0, finish.reason.as_deref(), finish.prompt_tokens, &mut out);
            reason = Some(why.into());
        }
        self.note(Ok(Ended { reason, prompt_tokens: finish.prompt_tokens }));
        Ok((!out.is_empty()).then(|| Said::Text(out.into())))
    }

    fn note(&mut self, ended: Result<Ended>) {
        match &ended {
            Ok(_) => self.count.ended(),
            Err(_) => self.count.failed(),
        }
        self.ended = Some(ended);
        // The generation ends here.
        (self.pieces, self.in_flight) = (None, None);
    }
}
