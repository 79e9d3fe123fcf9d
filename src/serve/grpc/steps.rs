//! An answer that comes step by step: a message of `ModelStreamInfer` for each, as Triton's decoupled models send them.
//!
//! <https://github.com/triton-inference-server/server/blob/main/docs/user_guide/decoupled_models.md>

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use prost::Message;
use serde_json::{Map, Value};

use super::inquiries::status;
use crate::error::Result;
use crate::metrics::{InFlight, StreamCount};
use crate::pipeline::{AnswerRow, Endpoint, Piece, Pieces};
use crate::serve::access::Note;
use crate::serve::infer::{self, Asked, Opened};
use crate::serve::stream::Streams;
use crate::serve::terms::HeadTerms;
use crate::tensor::{Column, Shape, Texts};
use crate::wire::grpc::proto::inference::infer_parameter::ParameterChoice;
use crate::wire::grpc::proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse};
use crate::wire::grpc::{Status, framed};
use crate::wire::oip::InferRequest;
use crate::wire::openai::{Choices, Generation, Heard, column};

/// The parameter that says of each answer whether it is the last to its request.
const FINAL: &str = "triton_final_response";
/// Parameters of a request that are not about the text.
const PASSED: [&str; 3] = ["priority", "timeout", "triton_enable_empty_final_response"];

/// What a text model is asked, beside its prompt.
pub(super) struct TextTerms {
    document: Bytes,
    choices: Choices,
}

/// Reads what a text model is asked: its prompt from the one row, the rest from the parameters of the message.
///
/// # Errors
/// [`ErrorKind::Item`](crate::error::ErrorKind::Item), naming what cannot be.
pub(super) fn text_terms(
    asked: &ModelInferRequest,
    request: &InferRequest,
    model: &str,
) -> Result<TextTerms> {
    let prompt = match request.rows.columns() {
        [Column::Texts { texts, .. }] => texts.get(0).unwrap_or_default(),
        _ => &[],
    };
    let mut body = Map::new();
    body.insert("text_input".to_owned(), Value::from(String::from_utf8_lossy(prompt).into_owned()));
    let named = asked.parameters.iter().filter(|(name, _)| !PASSED.contains(&name.as_str()));
    let parameters: Map<_, _> = named.map(|(name, value)| (name.clone(), json_of(value))).collect();
    body.insert("parameters".to_owned(), Value::Object(parameters));
    let generation = Generation::of_text_input(model, Value::Object(body).to_string().as_bytes(), true)?;
    let choices = Choices::new(1, generation.each, generation.max_tokens, &generation.stops);
    let document = generation.documents.into_iter().next().unwrap_or_default();
    Ok(TextTerms { document, choices })
}

fn json_of(parameter: &InferParameter) -> Value {
    match &parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Value::from(*value),
        Some(ParameterChoice::Int64Param(value)) => Value::from(*value),
        Some(ParameterChoice::StringParam(value)) => Value::from(value.as_str()),
        Some(ParameterChoice::DoubleParam(value)) => Value::from(*value),
        Some(ParameterChoice::Uint64Param(value)) => Value::from(*value),
        None => Value::Null,
    }
}

/// The answer to one request, while it comes.
pub(super) struct Steps {
    model: Arc<Endpoint>,
    asked: Asked,
    id: String,
    pieces: Pieces,
    choices: Option<Choices>,
    text: Vec<u8>,
    count: StreamCount,
    /// What is kept until the last is there, where answers are sent as a whole.
    collected: Option<VecDeque<Said>>,
    _in_flight: InFlight,
}

/// What there is to send.
pub(super) enum Said {
    /// An answer, and more may come.
    Part(Bytes),
    /// The last.
    Last(Bytes),
    /// It failed.
    Failed(String, Status),
}

impl Steps {
    /// Puts a request into the queue of its model.
    ///
    /// # Errors
    /// What the queue refuses.
    pub(super) fn begin(
        model: &Arc<Endpoint>,
        request: InferRequest,
        text: Option<TextTerms>,
        head: HeadTerms,
        streams: &Streams,
        in_flight: InFlight,
    ) -> Result<Self> {
        let id = request.id.clone().unwrap_or_default();
        let opened = infer::open(model, request, head, &mut Note::default())?;
        let Opened { terms, asked, mut specs, mut rows, .. } = opened;
        let choices = text.map(|text| {
            (specs, rows) = column([text.document.as_ref()], model.spares());
            text.choices
        });
        let pieces = model.stream(terms, specs, &rows)?;
        let count = streams.metrics().begin();
        Ok(Self {
            model: Arc::clone(model),
            asked,
            id,
            pieces,
            choices,
            text: Vec::new(),
            count,
            collected: (!streams.streaming).then(VecDeque::new),
            _in_flight: in_flight,
        })
    }

    /// What there is to send next.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Said> {
        let Some(mut collected) = self.collected.take() else { return self.poll_said(context) };
        while !matches!(collected.back(), Some(Said::Last(_) | Said::Failed(..))) {
            match self.poll_said(context) {
                Poll::Ready(said) => collected.push_back(said),
                Poll::Pending => {
                    self.collected = Some(collected);
                    return Poll::Pending;
                }
            }
        }
        // Of an answer that failed nothing was sent, and nothing is.
        let has_failed = matches!(collected.back(), Some(Said::Failed(..)));
        let next = if has_failed { collected.pop_back() } else { collected.pop_front() };
        self.collected = Some(collected);
        next.map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_said(&mut self, context: &mut Context<'_>) -> Poll<Said> {
        loop {
            let Some(piece) = std::task::ready!(self.pieces.poll_next(context)) else {
                return Poll::Ready(self.end());
            };
            match piece {
                // Nothing that is asked here is passed on as it came.
                Piece::Passed(_) => {}
                Piece::Row(row) => return Poll::Ready(Said::Part(self.message(row, false))),
                Piece::Text(text) => {
                    let Some(choices) = &mut self.choices else { continue };
                    let heard = choices.piece(0, &text, &mut self.text);
                    if heard != Heard::More {
                        self.pieces.enough();
                        self.count.ended();
                        return Poll::Ready(Said::Last(self.last()));
                    }
                    if !self.text.is_empty() {
                        let row = self.row();
                        return Poll::Ready(Said::Part(self.message(row, false)));
                    }
                }
            }
        }
    }

    fn end(&mut self) -> Said {
        match self.pieces.end() {
            Ok(finish) => {
                self.count.ended();
                if let Some(choices) = &mut self.choices {
                    choices.end(0, finish.reason.as_deref(), finish.prompt_tokens, &mut self.text);
                }
                Said::Last(self.last())
            }
            Err(error) => {
                self.count.failed();
                Said::Failed(std::mem::take(&mut self.id), status(error))
            }
        }
    }

    /// The last answer: with what is left of the text, or empty.
    fn last(&mut self) -> Bytes {
        if !self.text.is_empty() {
            let row = self.row();
            return self.message(row, true);
        }
        let spec = &self.model.spec;
        framed(&ModelInferResponse {
            model_name: spec.name.clone(),
            model_version: spec.version.clone(),
            id: self.id.clone(),
            parameters: finality(true),
            ..ModelInferResponse::default()
        })
    }

    fn row(&mut self) -> AnswerRow {
        let mut texts = Texts::default();
        texts.push(&self.text);
        self.text.clear();
        AnswerRow::new(Arc::new(vec![Column::Texts { shape: Shape::new(), texts }]), 0)
    }

    fn message(&self, row: AnswerRow, last: bool) -> Bytes {
        let message = self.asked.response(&self.model.spec, &[row]).to_message();
        // Fields of a message may stand in any order.
        let parameters = ModelInferResponse { parameters: finality(last), ..ModelInferResponse::default() };
        let mut out = BytesMut::from(message);
        out.extend_from_slice(&parameters.encode_to_vec());
        out.freeze()
    }
}

fn finality(last: bool) -> std::collections::HashMap<String, InferParameter> {
    let choice = ParameterChoice::BoolParam(last);
    [(FINAL.to_owned(), InferParameter { parameter_choice: Some(choice) })].into()
}

/// What the first of several answers that has something to send has to send. Those that ended are taken out; whoever was
/// heard comes last from here on. The length before a message is not to be trusted: its sender writes one.
pub(super) fn poll_any(going: &mut VecDeque<Steps>, context: &mut Context<'_>) -> Poll<Said> {
    for at in 0..going.len() {
        let Some(steps) = going.get_mut(at) else { break };
        if let Poll::Ready(said) = steps.poll_next(context) {
            match said {
                Said::Part(_) => going.rotate_left(at + 1),
                Said::Last(_) | Said::Failed(..) => drop(going.remove(at)),
            }
            return Poll::Ready(said);
        }
    }
    Poll::Pending
}
