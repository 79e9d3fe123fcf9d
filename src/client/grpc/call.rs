//! A call with one message each way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::{HeaderMap, Response};
use tokio::time::Instant;

use super::super::http1::Lost;
use super::super::http2::{Http2, Inbound, SendError, Upload};
use super::super::request::{Deadlines, Request, config};
use super::super::response::GrpcEnd;
use super::Caller;
use super::end::{broken, encoding_of, foreign, of_reset, status_of, unreadable, without_status};
use super::wait::{Wait, left_of};
use crate::wire::grpc::{Code, Messages};
use crate::wire::http1::Fields;

/// Messages longer than their prefix can say do not exist.
pub(super) const LONGEST: usize = u32::MAX as usize;

/// Messages up to here come in one frame, as a rule.
const SHORT: usize = 16 * 1024;

/// What came of a call.
pub(in crate::client) struct Came {
    pub(in crate::client) end: GrpcEnd,
    /// Empty where the call failed.
    pub(in crate::client) message: Bytes,
    pub(in crate::client) fields: Fields,
    /// From sending to the head of the answer.
    pub(in crate::client) first_byte: Duration,
    /// Whether the server left without a status of its own.
    pub(in crate::client) is_broken: bool,
}

/// Sends a call and waits for its end. To drop the future resets the stream.
///
/// # Errors
/// A [`Lost`] of the time-outs, of the connection, and of an answer that is against the protocol.
pub(in crate::client) async fn call(
    http2: &Http2,
    caller: &Caller,
    request: &Request,
    deadlines: &Deadlines,
    endpoint: &Arc<str>,
) -> std::result::Result<Came, Lost> {
    let sent = Instant::now();
    let (inbound, upload) = match begin(http2, caller, request, deadlines, sent, endpoint) {
        Ok(begun) => begun,
        Err(SendError { error, unsent, .. }) => return Err(Lost::new(error, unsent)),
    };
    let answer =
        Answer { inbound, upload, wait: Wait::new(http2.timers(), Arc::clone(endpoint)), endpoint, sent };
    match answer.whole(deadlines, request.max_response.min(LONGEST)).await {
        Ok(came) => Ok(came),
        Err(SendError { reset: Some(reason), unsent: false, .. }) => Ok(Came {
            end: of_reset(reason),
            message: Bytes::new(),
            fields: Fields::default(),
            first_byte: sent.elapsed(),
            is_broken: true,
        }),
        Err(SendError { error, unsent, .. }) => Err(Lost::new(error, unsent)),
    }
}

/// Sends the head and the message.
fn begin(
    http2: &Http2,
    caller: &Caller,
    request: &Request,
    deadlines: &Deadlines,
    now: Instant,
    endpoint: &str,
) -> std::result::Result<(Inbound, Upload), SendError> {
    let message = request.grpc.as_ref().map(|form| form.message.clone()).unwrap_or_default();
    if message.is_empty() {
        return Err(SendError::before(config("the call has no message, not even an empty one")));
    }
    let (inbound, stream) = open(http2, caller, request, deadlines, now, endpoint)?;
    Ok((inbound, Upload::new(stream, message)))
}

/// Sends the head.
///
/// # Errors
/// Those of a call that was not sent.
pub(in crate::client) fn open(
    http2: &Http2,
    caller: &Caller,
    request: &Request,
    deadlines: &Deadlines,
    now: Instant,
    endpoint: &str,
) -> std::result::Result<(Inbound, SendStream<Bytes>), SendError> {
    let form = request.grpc.as_ref();
    let form = form.ok_or_else(|| SendError::before(config("the request has no form for gRPC")))?;
    let left = left_of(deadlines, now, endpoint).map_err(SendError::before)?;
    let head = caller.head(form, &request.fields, left).map_err(SendError::before)?;
    http2.open(head)
}

/// An answer that is waited for.
struct Answer<'a> {
    inbound: Inbound,
    upload: Upload,
    wait: Wait,
    endpoint: &'a str,
    sent: Instant,
}

impl Answer<'_> {
    async fn whole(mut self, deadlines: &Deadlines, limit: usize) -> std::result::Result<Came, SendError> {
        let head = self.head(deadlines).await?;
        let first_byte = self.sent.elapsed();
        let came = |end, message, trailers: Option<&HeaderMap>| {
            let fields = Fields::of_maps(head.headers(), trailers);
            Came { end, message, fields, first_byte, is_broken: false }
        };
        if let Some(end) = foreign(&head) {
            return Ok(came(end, Bytes::new(), None));
        }
        let refused = |status| SendError::after(unreadable(self.endpoint, &status));
        let encoding = encoding_of(head.headers()).map_err(refused)?;
        let mut messages = Messages::new(encoding, limit, "max_response");
        let message = self.message(&mut messages, deadlines).await?;
        let inbound = &mut self.inbound;
        let idle = || deadlines.idle(Instant::now());
        let trailers = self.wait.until(idle, |context| inbound.poll_trailers(context)).await?;
        let end = trailers.as_ref().and_then(status_of).or_else(|| status_of(head.headers()));
        let end = end.ok_or_else(|| SendError::after(without_status(self.endpoint)))?;
        if end.code != Code::Ok {
            return Ok(came(end, Bytes::new(), trailers.as_ref()));
        }
        messages.end().map_err(|status| SendError::after(unreadable(self.endpoint, &status)))?;
        let none = || SendError::after(broken(self.endpoint, "answered a call with no message"));
        Ok(came(end, kept(message.ok_or_else(none)?), trailers.as_ref()))
    }

    async fn head(&mut self, deadlines: &Deadlines) -> std::result::Result<Response<()>, SendError> {
        let Self { inbound, upload, wait, sent, .. } = self;
        let head = wait.until(
            || deadlines.first(*sent),
            |context| {
                upload.advance(context);
                inbound.poll_head(context)
            },
        );
        head.await
    }

    /// The one message, once all pieces have come; none where there was none.
    async fn message(
        &mut self,
        messages: &mut Messages,
        deadlines: &Deadlines,
    ) -> std::result::Result<Option<Bytes>, SendError> {
        let Self { inbound, upload, wait, endpoint, .. } = self;
        let mut message = None;
        loop {
            let piece = wait.until(
                || deadlines.idle(Instant::now()),
                |context| {
                    upload.advance(context);
                    inbound.poll_piece(context)
                },
            );
            let Some(piece) = piece.await? else { return Ok(message) };
            messages.push(piece);
            let refused = |status| SendError::after(unreadable(endpoint, &status));
            while let Some(next) = messages.take().map_err(refused)? {
                if message.replace(next).is_some() {
                    let what = "answered a call with more than one message";
                    return Err(SendError::after(broken(endpoint, what)));
                }
            }
        }
    }
}

/// A message as it is handed out. A short one would keep the whole buffer alive that it was read into, and keep it from being
/// used again.
pub(super) fn kept(message: Bytes) -> Bytes {
    if message.len() <= SHORT { Bytes::copy_from_slice(&message) } else { message }
}
