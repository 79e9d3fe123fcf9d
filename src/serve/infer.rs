//! An inference request of the Open Inference Protocol, from its bytes to the bytes of its answer.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::access::{self, Note};
use super::body::{Only, only};
use super::deadline::{Deadline, within};
use super::routes::{self, Reply};
use super::terms::HeadTerms;
use super::timing::Timing;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::offload;
use crate::pipeline::{Answer, AnswerRow, Answered, BatchAccount, Endpoint, ModelSpec, RequestTerms};
use crate::tensor::{Rows, Specs};
use crate::wire::oip::{self, Encoded, InferRequest, InferResponse, WantedOutput};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Bytes of JSON before binary tensors; of requests and of answers.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Answers an inference request.
pub(super) async fn answer(
    model: &Arc<Endpoint>,
    headers: &HeaderMap,
    body: Bytes,
    terms: HeadTerms,
    say_timing: bool,
    note: &mut Note,
) -> Result<Reply> {
    let (asked, admitted, answer) = {
        let request = read(model, headers, body).await.inspect_err(|_| model.count_invalid())?;
        queue(model, request, terms, note)?
    };
    let answered = answer.await?;
    let (batch, load) = (Arc::clone(&answered.batch), answered.load);
    let encoded = write(model, asked, answered, encoded).await?;
    let mut reply = routes::tensors(encoded.body, encoded.header_length);
    if let Some(length) = encoded.header_length {
        reply.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    tell_timing(&mut reply, (admitted, load), batch, Instant::now(), say_timing, note);
    Ok(reply)
}

/// Notes where the time of an answer went whose request was whole at `admitted`, whose model took `load` to come where it was
/// not there, and that was encoded at `encoded`; the answer says it where it is to.
pub(super) fn tell_timing(
    reply: &mut Reply,
    (admitted, load): (Instant, Option<Duration>),
    batch: Arc<BatchAccount>,
    encoded: Instant,
    say_timing: bool,
    note: &mut Note,
) {
    let timing = Timing::of(admitted, load, &batch, encoded);
    if say_timing && let Some(timing) = timing.header(&batch) {
        reply.headers_mut().insert(SERVER_TIMING, timing);
    }
    note.batch = Some((batch, timing));
}

fn encoded(response: &InferResponse<'_>) -> Result<Encoded> {
    response.check()?;
    Ok(response.encode())
}

/// Puts a request into its model's queue: what its answer must look like, since when it waits, and the answer to come.
///
/// # Errors
/// As those of [`open`].
pub(super) fn queue<'a>(
    model: &'a Endpoint,
    request: InferRequest,
    head: HeadTerms,
    note: &mut Note,
) -> Result<(Asked, Instant, impl Future<Output = Answer> + Send + use<'a>)> {
    let count = request.count;
    let Opened { terms, watched, asked, specs, rows } = open(model, request, head, note)?;
    let admitted = Instant::now();
    // The rows are in the queue from here on: a request that waits must not hold them, too.
    let answer = model.infer(terms, specs, rows, count);
    Ok((asked, admitted, within(watched, answer)))
}

/// A request that is ready for its model's queue.
pub(super) struct Opened {
    pub(super) terms: RequestTerms,
    /// When it is to be given up where it waits.
    watched: Option<Deadline>,
    pub(super) asked: Asked,
    pub(super) specs: Specs,
    pub(super) rows: Rows,
}

/// The terms of a request of that name under this head, with what it says itself (when it ends, its priority); and when it is
/// to be given up where it waits.
///
/// # Errors
/// [`ErrorKind::DeadlineExceeded`] where its time has passed already: a model must not work for who waits no longer.
pub(super) fn terms_of(
    model: &Endpoint,
    head: HeadTerms,
    (end, priority): (Option<Deadline>, Option<u64>),
    id: Option<&str>,
) -> Result<(RequestTerms, Option<Deadline>)> {
    if let Some(deadline) = head.deadline() {
        deadline.check().inspect_err(|_| model.count_expired())?;
    }
    let (mut terms, watched) = head.with(end, priority);
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        terms.id = Some(access::fit_for_a_log(id).into());
    }
    Ok((terms, watched))
}

/// Takes a request apart: into what its model needs, and what its answer does.
///
/// # Errors
/// As those of [`terms_of`].
pub(super) fn open(
    model: &Endpoint,
    request: InferRequest,
    head: HeadTerms,
    note: &mut Note,
) -> Result<Opened> {
    let own = (Deadline::of_parameter(request.timeout), request.priority);
    let (terms, watched) = terms_of(model, head, own, request.id.as_deref())?;
    note.rows = Some(request.count);
    note.id.clone_from(&terms.id);
    let asked = Asked { id: request.id, wanted: request.outputs, binary: request.binary };
    Ok(Opened { terms, watched, asked, specs: request.specs, rows: request.rows })
}

/// What the answer must look like.
pub(super) struct Asked {
    id: Option<String>,
    wanted: Option<Vec<WantedOutput>>,
    binary: bool,
}

impl Asked {
    /// The same, all outputs as JSON.
    #[must_use]
    pub(super) fn in_json(mut self) -> Self {
        self.binary = false;
        self.wanted.iter_mut().flatten().for_each(|output| output.binary = false);
        self
    }

    /// An answer of a model with those rows.
    pub(super) fn response<'a>(&'a self, spec: &'a ModelSpec, rows: &'a [AnswerRow]) -> InferResponse<'a> {
        InferResponse {
            model: &spec.name,
            version: &spec.version,
            id: self.id.as_deref(),
            outputs: &spec.outputs,
            wanted: self.wanted.as_deref(),
            binary: self.binary,
            rows,
        }
    }
}

/// Reads the body of a request.
pub(super) async fn read(model: &Arc<Endpoint>, headers: &HeaderMap, body: Bytes) -> Result<InferRequest> {
    let header_length = header_length(headers)?;
    let model = Arc::clone(model);
    // The rows are copied out of the body: the read buffer it lies in can serve the next request.
    offload::run(body.len(), move || {
        let spec = &model.spec;
        InferRequest::parse(&body, header_length, &spec.inputs, &spec.outputs, model.spares())
    })
    .await
}

/// The rows of an answer as `encode` writes them.
pub(super) async fn write<T: Send + 'static>(
    model: &Arc<Endpoint>,
    asked: Asked,
    answered: Answered,
    encode: fn(&InferResponse<'_>) -> Result<T>,
) -> Result<T> {
    let rows = answered.rows;
    let model = Arc::clone(model);
    offload::run(oip::size_of(&rows), move || encode(&asked.response(&model.spec, &rows))).await
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>> {
    let length = match only(headers, &HEADER_LENGTH) {
        Only::None => return Ok(None),
        Only::Several => return Err(no_length("given twice")),
        Only::One(length) => length,
    };
    let text = length.to_str().unwrap_or("?");
    match text.parse() {
        Ok(length) => Ok(Some(length)),
        Err(_) => Err(no_length(&format!("'{text}', which is no number of bytes"))),
    }
}

fn no_length(what: &str) -> Error {
    Error::new(ErrorKind::Item, format!("inference-header-content-length is {what}"))
}
