//! What a failure upstream means: to whoever waits, and for the other rows of the batch.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use crate::client::Response;
use crate::error::{Error, ErrorKind};
use crate::pipeline::{Blame, Fault};
use crate::wire::grpc::Code;

/// Characters of an upstream's words that are handed on.
const MOST_WORDS: usize = 500;

/// Bytes of its answer that are kept.
const MOST_BODY: usize = 64 * 1024;

/// How upstreams of gRPC begin to say that a message was too long for them.
const TOO_LONG: [&str; 2] = ["larger than max", "exceeds maximum"];

/// What an upstream refused a request with: the source of the error that is told.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The status over HTTP.
    pub status: Option<u16>,
    /// The code over gRPC, by its name.
    pub code: Option<&'static str>,
    /// What it said, as it said it.
    pub body: Bytes,
    /// The same in words.
    words: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.code) {
            (_, Some(code)) => write!(f, "the upstream answered {code}: {}", self.words),
            (Some(status), None) => write!(f, "the upstream answered with status {status}: {}", self.words),
            (None, None) => f.write_str(&self.words),
        }
    }
}

impl std::error::Error for Refusal {}

/// The failure that an answer stands for; none where all went well.
pub(super) fn of_response(response: &Response) -> Option<Fault> {
    let (kind, blame, refusal) = match &response.grpc {
        Some(end) if end.code == Code::Ok => return None,
        Some(end) => {
            let (kind, blame) = of_code(end.code, &end.message);
            let body = Bytes::copy_from_slice(end.message.as_bytes());
            let words = shortened(&end.message);
            (kind, blame, Refusal { status: None, code: Some(end.code.name()), body, words })
        }
        None if response.status.is_success() => return None,
        None => {
            let status = response.status.as_u16();
            let (kind, blame) = of_status(status);
            let body = response.body.slice(..response.body.len().min(MOST_BODY));
            let words = words_of(&response.body);
            (kind, blame, Refusal { status: Some(status), code: None, body, words })
        }
    };
    // In its own words where it means the request, in ours where something is wrong between it and here.
    let message = if kind == ErrorKind::Item { refusal.words.clone() } else { refusal.to_string() };
    let error = Error::with_source(kind, message, refusal);
    let error = match response.retry_after() {
        Some(wait) if kind == ErrorKind::Overloaded => error.retry_after(wait),
        _ => error,
    };
    Some(Fault { error, out_of_memory: false, blame })
}

fn of_status(status: u16) -> (ErrorKind, Blame) {
    match status {
        400 | 413 | 422 => (ErrorKind::Item, Blame::Rows),
        404 => (ErrorKind::ModelNotFound, Blame::Elsewhere),
        408 | 504 => (ErrorKind::DeadlineExceeded, Blame::Elsewhere),
        429 | 503 => (ErrorKind::Overloaded, Blame::Elsewhere),
        // Models that raise say so. It may be one row that they cannot bear.
        500 => (ErrorKind::Remote, Blame::Perhaps),
        _ => (ErrorKind::Remote, Blame::Elsewhere),
    }
}

fn of_code(code: Code, message: &str) -> (ErrorKind, Blame) {
    match code {
        Code::ResourceExhausted if TOO_LONG.iter().any(|words| message.contains(words)) => {
            (ErrorKind::Item, Blame::Rows)
        }
        Code::InvalidArgument | Code::OutOfRange => (ErrorKind::Item, Blame::Rows),
        Code::Internal | Code::Unknown => (ErrorKind::Remote, Blame::Perhaps),
        code => (code.kind(), Blame::Elsewhere),
    }
}

/// What somebody is told whose request never had an answer. Where the upstream is, and what its network says, is for those
/// who run it: they find it as the cause.
pub(super) fn of_failure(model: &str, error: Error) -> Fault {
    let kind = error.kind();
    let what = match kind {
        ErrorKind::Item | ErrorKind::Config | ErrorKind::Closed | ErrorKind::Internal => return error.into(),
        ErrorKind::Output => format!("the upstream of model '{model}' answered wrongly: {}", error.message()),
        ErrorKind::ProtocolError => format!("the upstream of model '{model}' does not keep to the protocol"),
        ErrorKind::ConnectFailed | ErrorKind::ConnectTimeout => {
            format!("no connection to the upstream of model '{model}' could be opened")
        }
        ErrorKind::AcquireTimeout => {
            format!("no connection to the upstream of model '{model}' became free in time")
        }
        kind if kind.meaning().http_status == 504 => {
            format!("the upstream of model '{model}' did not answer in time")
        }
        _ => format!("the connection to the upstream of model '{model}' broke"),
    };
    Fault { error: Error::with_source(kind, what, error), out_of_memory: false, blame: Blame::Elsewhere }
}

/// What an answer says went wrong: the protocol's `error`, OpenAI's, `FastAPI`'s `detail`, else its beginning.
fn words_of(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let said = json.as_ref().and_then(|json| match (json.get("error"), json.get("detail")) {
        (Some(Value::String(words)), _) | (None, Some(Value::String(words))) => Some(words.clone()),
        (Some(error), _) => error.get("message").and_then(Value::as_str).map(str::to_owned),
        (None, Some(detail)) => Some(detail.to_string()),
        (None, None) => None,
    });
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    if said.is_empty() { "it says nothing more".to_owned() } else { shortened(&said) }
}

fn shortened(words: &str) -> String {
    let shown: String = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    match shown.char_indices().nth(MOST_WORDS) {
        Some((end, _)) => format!("{}...", shown.get(..end).unwrap_or_default()),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_upstream_are_found_wherever_it_puts_them() {
        for (body, words) in [
            (r#"{"error": "bad row"}"#, "bad row"),
            (r#"{"error": {"message": "too long", "type": "x"}}"#, "too long"),
            (r#"{"detail": "no"}"#, "no"),
            (r#"{"detail": [{"loc": 1}]}"#, r#"[{"loc":1}]"#),
            ("Bad\r\nGateway", "Bad  Gateway"),
            ("", "it says nothing more"),
        ] {
            assert_eq!(words_of(body.as_bytes()), words);
        }
        assert_eq!(shortened(&"ä".repeat(501)), "ä".repeat(500) + "...");
    }

    #[test]
    fn rows_are_to_blame_where_the_upstream_says_so_and_only_there() {
        for (status, kind, blame) in [
            (400, ErrorKind::Item, Blame::Rows),
            (413, ErrorKind::Item, Blame::Rows),
            (500, ErrorKind::Remote, Blame::Perhaps),
            (401, ErrorKind::Remote, Blame::Elsewhere),
            (429, ErrorKind::Overloaded, Blame::Elsewhere),
            (502, ErrorKind::Remote, Blame::Elsewhere),
            (504, ErrorKind::DeadlineExceeded, Blame::Elsewhere),
        ] {
            assert_eq!(of_status(status), (kind, blame), "{status}");
        }
        let too_long = "Received message larger than max (7 vs. 5)";
        assert_eq!(of_code(Code::ResourceExhausted, too_long), (ErrorKind::Item, Blame::Rows));
        assert_eq!(of_code(Code::ResourceExhausted, "busy"), (ErrorKind::Overloaded, Blame::Elsewhere));
        assert_eq!(of_code(Code::Unavailable, ""), (ErrorKind::ModelNotReady, Blame::Elsewhere));
    }

    #[test]
    fn who_never_had_an_answer_does_not_hear_where_the_upstream_is() {
        let failed = Error::new(ErrorKind::ConnectFailed, "no connection to http://10.0.0.7: refused");
        let told = of_failure("m", failed).error;
        assert_eq!(told.kind(), ErrorKind::ConnectFailed);
        assert!(!told.message().contains("10.0.0.7"), "{told}");
        assert!(std::error::Error::source(&told).unwrap().to_string().contains("10.0.0.7"));
    }
}
