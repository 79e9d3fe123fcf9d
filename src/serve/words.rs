//! In which protocol's words an answer says that something went wrong: by its path.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::routes::{self, Reply, Route};
use crate::error::{Error, RemoteReply};
use crate::wire::{oip, openai};

/// What `Retry-After` says, for who counts in milliseconds.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// A protocol, as far as its errors go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// The Open Inference Protocol, and paths that belong to none.
    Oip,
    /// OpenAI's API.
    OpenAi,
}

impl Words {
    /// Those of a path.
    pub(super) fn of(path: &str) -> Self {
        match path.strip_prefix("/v1") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::OpenAi,
            _ => Self::Oip,
        }
    }

    /// What a body or an event says of a failure.
    pub(super) fn said(self, error: &Error) -> Vec<u8> {
        // What another server of the protocol says is passed on.
        if let Some(reply) = error.remote_reply()
            && self.are_those_of(reply)
        {
            return reply.body.to_vec();
        }
        match self {
            Self::Oip => oip::error_body(error.message()),
            Self::OpenAi => openai::error_body(error),
        }
    }

    /// True where the answer of another server says in this protocol's words what is wrong.
    fn are_those_of(self, reply: &RemoteReply) -> bool {
        match self {
            Self::Oip => oip::is_error_body(&reply.body),
            Self::OpenAi => openai::is_error_body(&reply.body),
        }
    }

    /// The answer to a failure, by the one table; what another server answered keeps its status.
    pub(super) fn failure(self, error: &Error) -> Reply {
        let remote = error.remote_reply().map(|reply| reply.status).filter(|status| *status >= 400);
        let status = remote.unwrap_or(error.kind().meaning().http_status);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = routes::reply(status, routes::JSON, self.said(error));
        // The wire has the status only; who asks from within the process learns the kind.
        reply.extensions_mut().insert(error.kind());
        let wait = error.wait_before_retry();
        if status == StatusCode::SERVICE_UNAVAILABLE || (remote.is_some() && wait.is_some()) {
            let seconds = wait.map_or(1, whole_seconds).max(1);
            reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            if let Some(wait) = wait {
                let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                reply.headers_mut().insert(RETRY_AFTER_MS, HeaderValue::from(milliseconds));
            }
        }
        reply
    }

    /// An answer of a status that stands in no table of errors.
    pub(super) fn refusal(self, status: StatusCode, message: &str) -> Reply {
        let body = match self {
            Self::Oip => oip::error_body(message),
            Self::OpenAi => openai::refusal_body(status.as_u16(), message),
        };
        let mut reply = routes::reply(status, routes::JSON, body);
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // RFC 9110, section 15.5.16: what would have been understood.
            reply.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        }
        reply
    }

    /// The answer to a method that the path does not know.
    pub(super) fn wrong_method(self, route: &Route<'_>) -> Reply {
        let message = format!("this path answers to {}", route.method());
        let mut refusal = self.refusal(StatusCode::METHOD_NOT_ALLOWED, &message);
        if let Ok(allowed) = route.method().as_str().parse() {
            refusal.headers_mut().insert(header::ALLOW, allowed);
        }
        refusal
    }
}

/// Whole seconds, rounded up, for who counts in nothing finer.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn paths_have_their_protocols_words() {
        for (path, words) in [
            ("/v1", Words::OpenAi),
            ("/v1/models/x", Words::OpenAi),
            ("/v1x", Words::Oip),
            ("/v2/models/v1", Words::Oip),
            ("/", Words::Oip),
        ] {
            assert_eq!(Words::of(path), words, "{path}");
        }
    }

    #[test]
    fn a_failure_that_passes_says_when_to_come_again() {
        let full = Error::new(ErrorKind::Overloaded, "full");
        let field = |reply: &Reply, name: &str| {
            reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let reply = Words::Oip.failure(&full);
        assert_eq!((field(&reply, "retry-after"), field(&reply, "retry-after-ms")), (Some("1".into()), None));
        for (wait, seconds, milliseconds) in [(20, "1", "20"), (1_000, "1", "1000"), (1_001, "2", "1001")] {
            let reply = Words::OpenAi.failure(&full.clone().retry_after(Duration::from_millis(wait)));
            assert_eq!(field(&reply, "retry-after").as_deref(), Some(seconds));
            assert_eq!(field(&reply, "retry-after-ms").as_deref(), Some(milliseconds));
        }
        assert!(
            !Words::Oip.failure(&Error::new(ErrorKind::Item, "bad")).headers().contains_key("retry-after")
        );
    }
}
