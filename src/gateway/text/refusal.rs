//! Answers of a server that say that something is wrong: they are passed on, with the status that they came with.

use bytes::Bytes;
use http::StatusCode;

use crate::client::{Body, Response};
use crate::error::{Error, ErrorKind, RemoteReply};
use crate::wire::openai::failure_words;

/// Bytes of such an answer at most that are passed on.
const LONGEST: usize = 256 * 1024;

/// What an answer means whose status says that something is wrong.
pub(super) fn refusal(response: &Response, body: &Bytes) -> Error {
    let status = response.status;
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Overloaded,
        StatusCode::NOT_FOUND => ErrorKind::ModelNotFound,
        StatusCode::GATEWAY_TIMEOUT => ErrorKind::DeadlineExceeded,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            ErrorKind::Item
        }
        _ => ErrorKind::Remote,
    };
    let words = failure_words(body);
    let gap = if words.is_empty() { "" } else { ": " };
    // Where the upstream is, is for those who run it.
    let message = match kind {
        ErrorKind::Item if !words.is_empty() => words,
        _ => format!("the upstream answered with status {}{gap}{words}", status.as_u16()),
    };
    let content_type = response.fields.get("content-type");
    let content_type = content_type.map(|kind| String::from_utf8_lossy(kind).into());
    let reply =
        RemoteReply { status: status.as_u16(), content_type, body: body.slice(..body.len().min(LONGEST)) };
    let error = Error::with_source(kind, message, reply);
    match response.retry_after() {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

/// The body of such an answer, as far as it comes and is not very long.
pub(super) async fn whole(body: &mut Body) -> Bytes {
    let mut whole = Vec::new();
    while whole.len() < LONGEST
        && let Ok(Some(portion)) = body.next().await
    {
        whole.extend_from_slice(&portion);
    }
    whole.into()
}
