//! An answer: whole, or its head and a body that still comes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{StatusCode, Version};

use super::request::Target;
use crate::error::Error;
use crate::wire::grpc::Code;
use crate::wire::http1::Fields;

/// An answer, with its body where it was asked for whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status; over gRPC the one that means the same as its code.
    pub status: StatusCode,
    /// How a call of gRPC ended; none over HTTP.
    pub grpc: Option<GrpcEnd>,
    /// The version of HTTP that it came over.
    pub version: Version,
    /// Its header fields; over gRPC its initial metadata and its trailers.
    pub fields: Fields,
    /// Its body, without its content coding where that was taken off. Over gRPC the one message, without its prefix and
    /// unpacked; empty where the call failed.
    pub body: Bytes,
    /// What was asked for.
    pub target: Target,
    /// Who answered: `http://host:port` or `grpc://host:port`.
    pub endpoint: Arc<str>,
    /// True where it came over a connection that had carried another request before.
    pub reused: bool,
    /// How often the request was sent, or tried to be.
    pub attempts: u32,
    /// From the call to the head of the answer.
    pub first_byte: Duration,
    /// From the call to the end of the answer; for a body that still comes, to its head.
    pub elapsed: Duration,
}

/// How a call of gRPC ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcEnd {
    /// The code.
    pub code: Code,
    /// The sentence of the server, or about it where it left without one; may be empty.
    pub message: String,
}

impl GrpcEnd {
    /// The failure that it means; none where all went well. `endpoint` is who answered.
    pub fn error(&self, endpoint: &str) -> Option<Error> {
        if self.code == Code::Ok {
            return None;
        }
        let said = if self.message.is_empty() { "" } else { ": " };
        let message = format!("{endpoint} answered {}{said}{}", self.code.name(), self.message);
        Some(Error::new(self.code.kind(), message))
    }
}

impl Response {
    /// For how long the server asks to be left alone: in milliseconds where it says them, else by `Retry-After`, in seconds
    /// or as a date (RFC 9110, section 10.2.3). One that is neither is taken for a second, a date that is over for no time.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Some(wait) = self.milliseconds() {
            return Some(wait);
        }
        let value = self.fields.get("retry-after")?;
        let value = std::str::from_utf8(value).ok()?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = |date: SystemTime| date.duration_since(SystemTime::now()).unwrap_or_default();
        Some(httpdate::parse_http_date(value).map_or(Duration::from_secs(1), until))
    }

    /// The same in milliseconds, as gRPC says it, and servers of models over HTTP.
    fn milliseconds(&self) -> Option<Duration> {
        let names = ["retry-after-ms", "grpc-retry-pushback-ms", "retry-pushback-ms"];
        let value = names.into_iter().find_map(|name| self.fields.get(name))?;
        std::str::from_utf8(value).ok()?.trim().parse().ok().map(Duration::from_millis)
    }
}
