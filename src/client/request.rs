//! A request as it goes over the wire, and the time that it may take.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::address::Protocol;
use super::pieces::Pieces;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::http1::{expects_a_body, field_of, fields_of, put_field};

/// How long each part of a request may take; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Opening one connection.
    pub connect: Option<Duration>,
    /// Waiting for a connection.
    pub acquire: Option<Duration>,
    /// From sending the request to the head of its answer.
    pub first: Option<Duration>,
    /// Between two portions of the answer.
    pub idle: Option<Duration>,
    /// The whole of it, retries included.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Self {
            connect: seconds(5),
            acquire: seconds(30),
            first: seconds(30),
            idle: seconds(10),
            total: seconds(600),
        }
    }
}

/// What is asked of a server, ready to be sent to any endpoint that it may go to: over HTTP, over gRPC, or over whichever of
/// the two the endpoint speaks.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Request {
    /// True where it has a form for HTTP: method, target and body.
    pub http: bool,
    /// Its form for gRPC.
    pub grpc: Option<GrpcCall>,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: Target,
    /// Its header fields.
    pub fields: RequestFields,
    /// Its body; empty for none.
    pub body: Bytes,
    /// Its body where that is made while it is sent. It is sent once: what has begun is not tried again.
    pub pieces: Option<Pieces>,
    /// The time that it may take.
    pub timeouts: Timeouts,
    /// True where it may be sent a second time although the first may have reached the server.
    pub idempotent: bool,
    /// True where it may be sent a second time although the first may have reached the server, if that was over a connection
    /// that had served before and broke without a byte of an answer: mostly it was closed just before.
    pub again_if_silent: bool,
    /// False where it is never sent a second time.
    pub retries: bool,
    /// True where the content coding of the answer is taken off.
    pub decode: bool,
    /// Bytes that the body of a whole answer, or one message of gRPC, may have.
    pub max_response: usize,
}

/// A request as gRPC has it.
#[derive(Debug, Clone)]
pub struct GrpcCall {
    /// Service and method: `/inference.GRPCInferenceService/ModelInfer`.
    pub path: Cow<'static, str>,
    /// The message with its prefix, as [`framed`](crate::wire::grpc::framed) makes it. Of a stream, the first; empty for
    /// none yet.
    pub message: Bytes,
}

impl Request {
    /// A request of no more than a method and a target.
    pub fn new(method: Method, target: Target) -> Self {
        let idempotent = method.is_idempotent();
        Self {
            http: true,
            grpc: None,
            method,
            target,
            fields: RequestFields::default(),
            body: Bytes::new(),
            pieces: None,
            timeouts: Timeouts::default(),
            idempotent,
            again_if_silent: false,
            retries: true,
            decode: true,
            max_response: usize::MAX,
        }
    }

    /// A request that gRPC alone can carry.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the path is none.
    pub fn call(call: GrpcCall) -> Result<Self> {
        let target = call.target()?;
        Ok(Self { http: false, grpc: Some(call), ..Self::new(Method::POST, target) })
    }

    /// True where it has a form for endpoints that speak so.
    pub fn suits(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http => self.http,
            Protocol::Grpc => self.grpc.is_some(),
        }
    }

    /// The head of the request as HTTP/2 has it, for a server of that scheme and authority.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where HTTP/2 cannot carry it.
    pub(super) fn to_http2(&self, scheme: &str, authority: &str) -> Result<http::Request<()>> {
        let host = self.fields.get("host").and_then(|host| std::str::from_utf8(host).ok());
        let authority = host.unwrap_or(authority);
        let refused =
            |error| Error::with_source(ErrorKind::Config, "the request has no place in HTTP/2", error);
        let mut head = http::Request::builder()
            .method(self.method.clone())
            .uri(format!("{scheme}://{authority}{}", self.target.as_str()))
            .body(())
            .map_err(refused)?;
        for (name, value) in self.fields.iter() {
            let name = HeaderName::from_bytes(name).map_err(|error| refused(error.into()))?;
            let value = HeaderValue::from_bytes(value).map_err(|error| refused(error.into()))?;
            head.headers_mut().append(name, value);
        }
        if let Some(length) = self.stated_length() {
            head.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        Ok(head)
    }

    /// How long the body is, where the server is told.
    pub(super) fn stated_length(&self) -> Option<u64> {
        match &self.pieces {
            Some(pieces) => pieces.length(),
            None if self.body.is_empty() && !expects_a_body(&self.method) => None,
            None => Some(self.body.len() as u64),
        }
    }

    /// Whether all of it can be sent once more.
    pub(super) fn is_whole(&self) -> bool {
        self.pieces.as_ref().is_none_or(|pieces| !pieces.has_begun())
    }
}

/// The path and the query of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(Cow<'static, str>);

impl Target {
    /// Takes a target that begins with a slash (or is `*`) and is percent-encoded where it must be.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is none.
    pub fn new(target: &str) -> Result<Self> {
        if is_target(target) {
            return Ok(Self(Cow::Owned(target.to_owned())));
        }
        Err(config(format!("{target:?} is no path of a URL: it begins with a slash and is percent-encoded")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl GrpcCall {
    /// Its path, as answers name what was asked.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no path.
    pub(super) fn target(&self) -> Result<Target> {
        match &self.path {
            Cow::Borrowed(path) if is_target(path) => Ok(Target(Cow::Borrowed(path))),
            path => Target::new(path),
        }
    }
}

fn is_target(target: &str) -> bool {
    let printable = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    printable && (target.starts_with('/') || target == "*")
}

/// Header fields of a request, as HTTP/1.1 sends them.
#[derive(Debug, Clone, Default)]
pub struct RequestFields {
    pub(super) lines: Bytes,
    pub(super) has_host: bool,
}

impl RequestFields {
    /// Takes names and values; those of `defaults` that are not among them are added.
    ///
    /// The framing is the client's own affair: `content-length` and `transfer-encoding` are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for names and values that HTTP does not allow (RFC 9110, section 5).
    pub fn new<'a>(
        named: &(impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone),
        defaults: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self> {
        let mut lines = Vec::with_capacity(256);
        let mut has_host = false;
        for (name, value) in named.clone() {
            has_host |= name.eq_ignore_ascii_case(b"host");
            put(&mut lines, name, value)?;
        }
        for (name, value) in defaults {
            if !named.clone().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                has_host |= name.eq_ignore_ascii_case(b"host");
                put(&mut lines, name, value)?;
            }
        }
        Ok(Self { lines: lines.into(), has_host })
    }

    /// True where one of the fields has this name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The host that the caller names himself.
    pub(super) fn host(&self) -> Option<&[u8]> {
        if self.has_host { self.get("host") } else { None }
    }

    /// The first value of that name.
    fn get(&self, name: &str) -> Option<&[u8]> {
        field_of(&self.lines, name)
    }

    /// Names and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        fields_of(&self.lines)
    }
}

fn put(lines: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<()> {
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        let name = String::from_utf8_lossy(name);
        return Err(config(format!("{name:?} is not a valid header name")));
    }
    if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        let name = String::from_utf8_lossy(name);
        return Err(config(format!("the value of header {name:?} holds a line end or a zero byte")));
    }
    if name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding") {
        return Ok(());
    }
    put_field(lines, name, value);
    Ok(())
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The moments by which the parts of one request must have come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    timeouts: Timeouts,
    end: Option<Instant>,
}

/// A moment, and what it means to miss it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) at: Instant,
    kind: ErrorKind,
    limit: Duration,
}

impl Deadlines {
    pub(super) fn new(timeouts: Timeouts, start: Instant) -> Self {
        Self { timeouts, end: timeouts.total.and_then(|total| start.checked_add(total)) }
    }

    /// When the whole must be over.
    pub(super) fn end(&self) -> Option<Instant> {
        self.end
    }

    /// By when a connection must have been lent to a request that begins to wait now.
    pub(super) fn acquired(&self, now: Instant) -> Option<Due> {
        self.earliest(now, self.timeouts.acquire, ErrorKind::AcquireTimeout)
    }

    /// By when the head of the answer to a request that is sent now must have come.
    pub(super) fn first(&self, now: Instant) -> Option<Due> {
        self.earliest(now, self.timeouts.first, ErrorKind::FirstChunkTimeout)
    }

    /// By when the next portion must have come.
    pub(super) fn idle(&self, now: Instant) -> Option<Due> {
        self.earliest(now, self.timeouts.idle, ErrorKind::IdleTimeout)
    }

    /// What it means that the whole is not over.
    pub(super) fn total(&self) -> Option<Due> {
        let limit = self.timeouts.total?;
        self.end.map(|at| Due { at, kind: ErrorKind::DeadlineExceeded, limit })
    }

    fn earliest(&self, now: Instant, limit: Option<Duration>, kind: ErrorKind) -> Option<Due> {
        let part = limit.and_then(|limit| Some(Due { at: now.checked_add(limit)?, kind, limit }));
        match (part, self.total()) {
            (Some(part), Some(total)) if total.at < part.at => Some(total),
            (None, total) => total,
            (part, _) => part,
        }
    }
}

impl Due {
    /// The error of a request to `endpoint` that missed it.
    pub(super) fn missed(&self, endpoint: &str) -> Error {
        let limit = self.limit;
        let message = match self.kind {
            ErrorKind::AcquireTimeout => format!("no connection to {endpoint} became free within {limit:?}"),
            ErrorKind::FirstChunkTimeout => {
                format!("{endpoint} did not begin to answer within the first-byte time-out of {limit:?}")
            }
            ErrorKind::IdleTimeout => {
                format!("{endpoint} sent nothing more within the idle time-out of {limit:?}")
            }
            _ => format!("no answer of {endpoint} was whole within the total time-out of {limit:?}"),
        };
        Error::new(self.kind, message)
    }
}

pub(super) fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs<'a>(list: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        list.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    #[test]
    fn named_fields_take_the_place_of_defaults_and_framing_is_left_out() {
        let named = [("Accept", "a"), ("Content-Length", "3"), ("x", "1"), ("x", "2")];
        let fields =
            RequestFields::new(&pairs(&named), pairs(&[("accept", "b"), ("user-agent", "c")])).unwrap();
        assert_eq!(&fields.lines[..], b"Accept: a\r\nx: 1\r\nx: 2\r\nuser-agent: c\r\n");
        assert!(fields.has("User-Agent") && !fields.has("host") && !fields.has_host);
    }

    #[test]
    fn fields_that_would_smuggle_others_are_refused() {
        for (name, value) in [("a b", ""), ("", ""), ("a:", ""), ("a", "x\r\nb: y"), ("a", "\0"), ("a", "\n")]
        {
            let refused = RequestFields::new(&pairs(&[(name, value)]), pairs(&[])).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Config, "{name:?} {value:?}");
        }
    }

    #[test]
    fn targets_are_paths_that_are_encoded() {
        for target in ["/", "/a?b=%20", "*"] {
            assert_eq!(Target::new(target).unwrap().as_str(), target);
        }
        for target in ["", "a", "/ b", "/é", "/a\r\nb", "/a#b", "http://a/"] {
            assert_eq!(Target::new(target).unwrap_err().kind(), ErrorKind::Config, "{target:?}");
        }
    }

    #[test]
    fn the_earlier_of_two_limits_says_what_was_missed() {
        let now = Instant::now();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let timeouts = Timeouts { first: seconds(3), idle: None, total: seconds(5), ..Timeouts::default() };
        let deadlines = Deadlines::new(timeouts, now);
        assert_eq!(deadlines.first(now).unwrap().kind, ErrorKind::FirstChunkTimeout);
        let later = now + Duration::from_secs(4);
        assert_eq!(deadlines.first(later).unwrap().kind, ErrorKind::DeadlineExceeded);
        assert_eq!(deadlines.idle(now).unwrap().at, now + Duration::from_secs(5));
        let none = Timeouts { total: None, idle: None, ..timeouts };
        assert!(Deadlines::new(none, now).idle(now).is_none());
    }
}
