//! The head of a call, and the head of its answer.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::Full;

use super::AnswerBody;
use crate::serve::answer::ReplyBody;
use crate::serve::deadline::Deadline;

use crate::serve::terms::HeadTerms;
use crate::serve::words::whole_seconds;
use crate::wire::grpc::{self, Code, Encoding, Status, parse_timeout};

const GRPC: HeaderValue = HeaderValue::from_static(grpc::CONTENT_TYPE);
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// Milliseconds that a client waits before it tries again (gRFC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// Content types of messages as they are understood here.
const PROTO: [&[u8]; 2] = [b"application/grpc", b"application/grpc+proto"];

/// True for a request that says it is a call of gRPC.
pub(in crate::serve) fn is_call<B>(request: &Request<B>) -> bool {
    names_grpc(request.headers())
}

/// True where the content type is one of gRPC.
pub(in crate::serve) fn names_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| grpc::is_grpc(kind.as_bytes()))
}

/// What the head of a call asks for.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) terms: HeadTerms,
    pub(super) encoding: Encoding,
}

impl Head {
    /// # Errors
    /// [`Code::InvalidArgument`] for a time-out, a priority or a tenant that is none; [`Code::Unimplemented`] for messages that are packed or
    /// written in a way that is not understood.
    pub(super) fn of(parts: &Parts) -> Result<Self, Status> {
        if parts.method != Method::POST {
            return Err(Status::new(Code::Unimplemented, "a call is sent by POST"));
        }
        let kind = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if !PROTO.contains(&kind) {
            let kind = String::from_utf8_lossy(kind);
            let message = format!("content-type {kind} is not understood: application/grpc+proto is");
            return Err(Status::new(Code::Unimplemented, message));
        }
        let encoding = parts.headers.get(ENCODING).map(|named| Encoding::of_header(named.as_bytes()));
        let mut terms = HeadTerms::of_head(&parts.headers)?;
        terms.end_by(deadline(&parts.headers)?);
        Ok(Self { terms, encoding: encoding.transpose()?.unwrap_or_default() })
    }
}

fn deadline(headers: &HeaderMap) -> Result<Option<Deadline>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let Some(time) = parse_timeout(value.as_bytes()) else {
        let value = String::from_utf8_lossy(value.as_bytes());
        let message =
            format!("grpc-timeout '{value}' is no time: at most eight digits and one of H, M, S, m, u, n");
        return Err(Status::new(Code::InvalidArgument, message));
    };
    // What lies beyond every clock is no deadline.
    Ok(Deadline::after(time, "grpc-timeout"))
}

/// The answer with one message, and where its time went.
pub(super) fn message(framed: Bytes, timing: Option<HeaderValue>) -> Response<AnswerBody> {
    let mut reply = of(AnswerBody::message(framed));
    if let Some(timing) = timing {
        reply.headers_mut().insert(SERVER_TIMING, timing);
    }
    reply
}

/// The answer to a call that failed before it had anything to say: its trailers stand in its head.
pub(super) fn failure(status: &Status) -> Response<AnswerBody> {
    let mut reply = of(AnswerBody::Reply(ReplyBody::Whole(Full::default())));
    put(reply.headers_mut(), status);
    if status.code == Code::Unimplemented {
        // Packed otherwise, the same call may be understood.
        reply.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(Encoding::ACCEPTED));
    }
    reply
}

/// The head of an answer with that body.
pub(super) fn of(body: AnswerBody) -> Response<AnswerBody> {
    let mut reply = Response::new(body);
    reply.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    reply
}

/// The trailers of a call that ended well.
pub(super) fn well() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, ZERO);
    trailers
}

/// The trailers of a call that ended so.
pub(super) fn trailers(end: &Result<(), Status>) -> HeaderMap {
    let mut trailers = well();
    if let Err(status) = end {
        put(&mut trailers, status);
    }
    trailers
}

fn put(fields: &mut HeaderMap, status: &Status) {
    fields.insert(STATUS, HeaderValue::from(u16::from(status.code.number())));
    // Escaped, it holds nothing that a field cannot carry.
    if let Ok(message) = HeaderValue::from_maybe_shared(Bytes::from(status.header())) {
        fields.insert(MESSAGE, message);
    }
    if let Some(wait) = status.retry_after {
        let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        fields.insert(PUSHBACK, HeaderValue::from(milliseconds));
        fields.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parts(fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/x").header("content-type", "application/grpc");
        for (name, value) in fields {
            if *name == "content-type" {
                request.headers_mut().unwrap().remove("content-type");
            }
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_a_head_asks_for_is_understood_or_named() {
        assert!(Head::of(&parts(&[])).unwrap().terms.deadline().is_none());
        assert!(Head::of(&parts(&[("content-type", "application/grpc+proto; x=1")])).is_ok());
        assert!(Head::of(&parts(&[("grpc-timeout", "5S")])).unwrap().terms.deadline().is_some());
        for (name, value, code, named) in [
            ("grpc-timeout", "5 seconds", Code::InvalidArgument, "grpc-timeout '5 seconds'"),
            ("x-request-priority", "urgent", Code::InvalidArgument, "x-request-priority is 'urgent'"),
            ("x-request-tenant", "", Code::InvalidArgument, "x-request-tenant is empty"),
            ("grpc-encoding", "snappy", Code::Unimplemented, "grpc-encoding snappy"),
            ("content-type", "application/grpc+json", Code::Unimplemented, "application/grpc+json"),
        ] {
            let status = Head::of(&parts(&[(name, value)])).unwrap_err();
            assert_eq!(status.code, code, "{name}");
            assert!(status.message.contains(named), "{}", status.message);
        }
    }

    #[test]
    fn a_failure_says_when_to_come_back_where_that_is_known() {
        let mut status = Status::new(Code::ResourceExhausted, "full");
        assert!(!failure(&status).headers().contains_key("retry-after"));
        status.retry_after = Some(Duration::from_millis(1_200));
        let reply = failure(&status);
        let field = |name: &str| reply.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!((field("grpc-status"), field("grpc-message")), ("8".to_owned(), "full".to_owned()));
        assert_eq!(
            (field("grpc-retry-pushback-ms"), field("retry-after")),
            ("1200".to_owned(), "2".to_owned())
        );
    }
}
