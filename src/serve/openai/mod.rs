//! OpenAI's API at the door, and text over the Open Inference Protocol: from the bytes of a request to its answer.

mod embed;
mod frames;
mod passed;
mod steps;
mod text;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;

use super::access::Note;
use super::routes::Reply;
use super::stream::Streams;
use super::terms::HeadTerms;
use super::{Found, Service};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::InFlight;
use crate::pipeline::{Endpoint, Task};
use crate::wire::openai::{self, Form, Listed};

/// A request to a model whose body is here, and what it is answered with.
pub(super) struct Call<'a> {
    pub(super) service: &'a Service,
    pub(super) streams: &'a Arc<Streams>,
    pub(super) headers: &'a HeaderMap,
    pub(super) terms: HeadTerms,
    pub(super) body: Bytes,
    pub(super) in_flight: InFlight,
    /// Whether the answer says where its time went.
    pub(super) say_timing: bool,
}

/// What is asked of a model.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// Vectors, by OpenAI's API.
    Embeddings,
    /// Text, by OpenAI's API.
    Text(Form),
    /// Text, or the steps of a model, by the Open Inference Protocol.
    Generate { name: &'a str, version: Option<&'a str>, stream: bool },
}

/// Answers a request.
///
/// # Errors
/// What the request is refused for, and what the model fails with before its first piece.
///
/// # Cancellation
/// Dropping the future, or the body of the answer, stops what the model does for it.
pub(super) async fn answer(call: Call<'_>, wanted: Wanted<'_>, note: &mut Note) -> Result<Reply> {
    if call.service.passes()
        && let Some(open) = Box::pin(passed::open(&call, wanted)).await
    {
        return Box::pin(open.answer(call, note)).await;
    }
    match wanted {
        Wanted::Embeddings => embed::answer(call, note).await,
        Wanted::Text(form) => text::answer(call, form, note).await,
        Wanted::Generate { name, version, stream } => {
            let model = call.service.model(name, version)?;
            note.model = Some(Arc::clone(&model));
            match model.spec.task {
                Task::Generate => text::generate(call, &model, stream, note).await,
                _ if stream => steps::answer(call, &model, note).await,
                _ => {
                    model.count_invalid();
                    let message =
                        format!("model '{name}' is not for text: ask it by infer or generate_stream");
                    Err(Error::new(ErrorKind::Item, message))
                }
            }
        }
    }
}

/// The models that the API serves.
pub(super) fn models(service: &Service) -> Vec<u8> {
    let mut served = service.defaults();
    served.retain(|model| is_served(model));
    openai::model_list(served.iter().map(|model| listed(service, model)))
}

/// One of them.
///
/// # Errors
/// [`ErrorKind::ModelNotFound`] where it is none.
pub(super) fn model(service: &Service, name: &str) -> Result<Vec<u8>> {
    let model = service.model(name, None)?;
    if is_served(&model) {
        return Ok(openai::model_entry(listed(service, &model)));
    }
    Err(Error::new(
        ErrorKind::ModelNotFound,
        format!("model '{name}' is served at /v2 only: it is for tensors"),
    ))
}

fn is_served(model: &Endpoint) -> bool {
    model.spec.task != Task::Tensors
}

fn listed<'a>(service: &Service, model: &'a Endpoint) -> Listed<'a> {
    Listed { name: &model.spec.name, created: seconds(service.since()) }
}

/// The model of a request, for that task.
///
/// # Errors
/// [`ErrorKind::ModelNotFound`] where there is none; [`ErrorKind::Item`] where it is for something else.
fn model_for(service: &Service, name: &str, task: Task, what: &str, note: &mut Note) -> Result<Found> {
    let model = service.model(name, None)?;
    note.model = Some(Arc::clone(&model));
    if model.spec.task == task {
        return Ok(model);
    }
    model.count_invalid();
    Err(openai::wrong_task(name, what))
}

/// Seconds since 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
