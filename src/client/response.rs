//! An answer: whole, or its head and a body that still comes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{StatusCode, Version};

use super::request::Target;
use crate::wire::http1::Fields;

/// An answer, with its body where it was asked for whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// The version of HTTP that it came over.
    pub version: Version,
    /// Its header fields.
    pub fields: Fields,
    /// Its body, without its content coding where that was taken off.
    pub body: Vec<u8>,
    /// What was asked for.
    pub target: Target,
    /// Who answered: `http://host:port`.
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

impl Response {
    /// For how long the server asks to be left alone: `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3).
    /// One that is neither is taken for a second, a date that is over for no time.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = std::str::from_utf8(self.fields.get("retry-after")?).ok()?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = |date: SystemTime| date.duration_since(SystemTime::now()).unwrap_or_default();
        Some(httpdate::parse_http_date(value).map_or(Duration::from_secs(1), until))
    }
}
