//! `ModelInfer`: an inference request, from its message to the message of its answer.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use super::inquiries::{decoded, status, version};
use super::steps::{Steps, TextTerms, text_terms};
use crate::error::Error;
use crate::flow::offload;
use crate::metrics::InFlight;
use crate::pipeline::Task;
use crate::serve::access::Note;
use crate::serve::stream::Streams;
use crate::serve::terms::HeadTerms;
use crate::serve::timing::Timing;
use crate::serve::{Found, Service, infer};
use crate::wire::grpc::Status;
use crate::wire::grpc::proto::inference::ModelInferRequest;
use crate::wire::oip::{InferRequest, InferResponse};

/// A request that fits its model.
pub(super) struct Fit {
    model: Found,
    request: InferRequest,
    /// Of a text model.
    text: Option<TextTerms>,
}

/// A request that fits none.
pub(super) struct Refused {
    /// What its sender calls it; empty where that could not be read.
    pub(super) id: String,
    pub(super) status: Status,
}

/// Finds the model that a message asks for, and reads its tensors.
///
/// # Errors
/// A message that is none, a model that is not served, tensors that the model does not take: each is named.
pub(super) async fn read(service: &Arc<Service>, message: Bytes) -> Result<Fit, Refused> {
    let service = Arc::clone(service);
    // The rows are copied out of the message: the read buffer it lies in can serve the next request.
    offload::run(message.len(), move || {
        let asked: ModelInferRequest =
            decoded(message).map_err(|status| Refused { id: String::new(), status })?;
        fit(&service, &asked).map_err(|error| Refused { id: asked.id, status: status(error) })
    })
    .await
}

fn fit(service: &Service, asked: &ModelInferRequest) -> Result<Fit, Error> {
    let model = service.model(&asked.model_name, version(&asked.model_version))?;
    let spec = &model.spec;
    let request = InferRequest::from_message(asked, &spec.inputs, &spec.outputs, model.spares())
        .inspect_err(|_| model.count_invalid())?;
    let is_text = spec.task == Task::Generate;
    let text = is_text.then(|| text_terms(asked, &request, &spec.name)).transpose();
    let text = text.inspect_err(|_| model.count_invalid())?;
    Ok(Fit { model, request, text })
}

impl Fit {
    /// What the sender calls the request.
    pub(super) fn id(&self) -> Option<&str> {
        self.request.id.as_deref()
    }

    /// True where its answer comes step by step, over a call that has room for that: one text, or one row of a
    /// generator.
    pub(super) fn has_steps(&self) -> bool {
        self.request.count == 1 && (self.text.is_some() || self.model.is_stepwise())
    }

    /// Puts the request into its model's queue: its answer, step by step.
    ///
    /// # Errors
    /// What the queue refuses.
    pub(super) fn steps(
        self,
        terms: HeadTerms,
        streams: &Streams,
        in_flight: InFlight,
    ) -> Result<Steps, Refused> {
        let Self { model, request, text } = self;
        let id = request.id.clone().unwrap_or_default();
        let begun = Steps::begin(&model, request, text, terms, streams, in_flight);
        begun.map_err(|error| Refused { id, status: status(error) })
    }

    /// The answer of the model, framed, and where its time went, if that is to be said.
    ///
    /// # Errors
    /// What the queue refuses, and what the model failed with.
    ///
    /// # Cancellation
    /// Dropping the future takes the request out of its model's queue.
    pub(super) async fn answer(
        self,
        terms: HeadTerms,
        say_timing: bool,
        note: &mut Note,
    ) -> Result<(Bytes, Option<HeaderValue>), Status> {
        let Self { model, request, .. } = self;
        if note.logged {
            note.model = Some(Arc::clone(&model));
        }
        let (asked, admitted, answer) = infer::queue(&model, request, terms, note).map_err(status)?;
        let answered = answer.await.map_err(status)?;
        let (batch, load) = (Arc::clone(&answered.batch), answered.load);
        let message = infer::write(&model, asked, answered, message).await.map_err(status)?;
        let timing = Timing::of(admitted, load, &batch, std::time::Instant::now());
        note.batch = Some((Arc::clone(&batch), timing));
        Ok((message, if say_timing { timing.header(&batch) } else { None }))
    }
}

fn message(response: &InferResponse<'_>) -> Result<Bytes, Error> {
    response.check_shape()?;
    Ok(response.to_message())
}
