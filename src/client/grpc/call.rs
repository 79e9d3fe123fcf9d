//! A call with one message each way.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::super::http1::Lost;
use super::super::http2::{Http2, Inbound, SendError, Upload};
use super::super::request::{Deadlines, Request, config};
use super::super::response::GrpcEnd;
use super::Caller;
use super::end::{broken, encoding_of, foreign, of_reset, status_of, unreadable, without_status};
use super::wait::{Wait, left_of};
use crate::error::Error;
use crate::wire::grpc::{Code, Messages};
use crate::wire::http1::Fields;

/// Messages longer than their prefix can say do not exist.
const LONGEST: usize = u32::MAX as usize;

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
    endpoint: &str,
) -> std::result::Result<Came, Lost> {
    let sent = Instant::now();
    let (inbound, upload) = match begin(http2, caller, request, deadlines, sent, endpoint) {
        Ok(begun) => begun,
        Err(SendError { error, unsent, .. }) => return Err(Lost { error, unsent }),
    };
    let answer = Answer { inbound, upload, wait: Wait::new(endpoint), endpoint, sent };
    match answer.whole(deadlines, request.max_response.min(LONGEST)).await {
        Ok(came) => Ok(came),
        Err(SendError { reset: Some(reason), unsent: false, .. }) => Ok(Came {
            end: of_reset(reason),
            message: Bytes::new(),
            fields: Fields::default(),
            first_byte: sent.elapsed(),
            is_broken: true,
        }),
        Err(SendError { error, unsent, .. }) => Err(Lost { error, unsent }),
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
    let unsent = |error| SendError { error, unsent: true, reset: None };
    let form = request.grpc.as_ref().filter(|form| !form.message.is_empty());
    let form = form.ok_or_else(|| unsent(config("the call has no message, not even an empty one")))?;
    let left = left_of(deadlines, now, endpoint).map_err(unsent)?;
    let head = caller.head(form, &request.fields, left).map_err(unsent)?;
    let (inbound, stream) = http2.open(head)?;
    Ok((inbound, Upload::new(stream, form.message.clone())))
}

/// An answer that is waited for.
struct Answer<'a> {
    inbound: Inbound,
    upload: Upload,
    wait: Wait<'a>,
    endpoint: &'a str,
    sent: Instant,
}

impl Answer<'_> {
    async fn whole(mut self, deadlines: &Deadlines, limit: usize) -> std::result::Result<Came, SendError> {
        let Self { inbound, upload, wait, endpoint, sent } = &mut self;
        let (sent, endpoint) = (*sent, *endpoint);
        let head = wait.until(
            || deadlines.first(sent),
            |context| {
                upload.advance(context);
                inbound.poll_head(context)
            },
        );
        let head = head.await?;
        let came = |end, message, trailers: Option<&HeaderMap>| Came {
            end,
            message,
            fields: Fields::of_maps(head.headers(), trailers),
            first_byte: sent.elapsed(),
            is_broken: false,
        };
        if let Some(end) = foreign(&head) {
            return Ok(came(end, Bytes::new(), None));
        }
        let refused = |status| plain(unreadable(endpoint, &status));
        let encoding = encoding_of(head.headers()).map_err(refused)?;
        let mut messages = Messages::new(encoding, limit, "max_response");
        let mut message = None;
        let idle = || deadlines.idle(Instant::now());
        loop {
            let piece = wait.until(idle, |context| {
                upload.advance(context);
                inbound.poll_piece(context)
            });
            let Some(piece) = piece.await? else { break };
            messages.push(piece);
            while let Some(next) = messages.take().map_err(refused)? {
                if message.replace(next).is_some() {
                    return Err(plain(broken(endpoint, "answered a call with more than one message")));
                }
            }
        }
        let trailers = wait.until(idle, |context| inbound.poll_trailers(context)).await?;
        let end = trailers.as_ref().and_then(status_of).or_else(|| status_of(head.headers()));
        let end = end.ok_or_else(|| plain(without_status(endpoint)))?;
        if end.code != Code::Ok {
            return Ok(came(end, Bytes::new(), trailers.as_ref()));
        }
        messages.end().map_err(refused)?;
        let message = message.ok_or_else(|| plain(broken(endpoint, "answered a call with no message")))?;
        // A short one would keep the whole buffer alive that it was read into, and keep it from being used again.
        let message = if message.len() <= SHORT { Bytes::copy_from_slice(&message) } else { message };
        Ok(came(end, message, trailers.as_ref()))
    }
}

fn plain(error: Error) -> SendError {
    SendError { error, unsent: false, reset: None }
}
