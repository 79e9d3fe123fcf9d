//! Errors as the protocol says them: <https://platform.openai.com/docs/guides/error-codes/api-errors>.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind};

/// What of a request was wrong: the cause of an [`Error`] that this room makes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the parameter '{parameter}': {code}")]
pub struct Fault {
    /// The parameter, as `messages[1].content`.
    pub parameter: String,
    /// What is wrong with it, in a word for programs.
    pub code: &'static str,
}

/// A parameter that nobody knows.
pub(super) const UNKNOWN: &str = "unknown_parameter";
/// A parameter that others serve.
pub(super) const UNSUPPORTED: &str = "unsupported_parameter";
/// A parameter that must be there.
pub(super) const MISSING: &str = "missing_required_parameter";
/// A value that the parameter cannot have.
pub(super) const INVALID: &str = "invalid_value";

/// A request is refused for one of its parameters; `why` follows its name: words, or its value after `=`.
pub(super) fn refused(parameter: &str, code: &'static str, why: impl std::fmt::Display) -> Error {
    let why = why.to_string();
    let gap = if why.starts_with('=') { "" } else { " " };
    let message = format!("{parameter}{gap}{why}");
    Error::with_source(ErrorKind::Item, message, Fault { parameter: parameter.to_owned(), code })
}

/// A request that asks a model for what it is not for.
pub fn wrong_task(model: &str, what: &str) -> Error {
    let fault = Fault { parameter: "model".to_owned(), code: "unsupported_model" };
    Error::with_source(ErrorKind::Item, format!("model '{model}' is not for {what}"), fault)
}

/// The body of an answer, or the data of an event, that says what went wrong.
pub fn error_body(error: &Error) -> Vec<u8> {
    let fault = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Fault>());
    let kind = error.kind();
    let parameter = match kind {
        ErrorKind::ModelNotFound => Some("model"),
        _ => fault.map(|fault| fault.parameter.as_str()),
    };
    let code = fault.map(|fault| fault.code.to_owned());
    let code = code.or_else(|| (kind != ErrorKind::Item).then(|| snake_case(kind.meaning().class)));
    body(error.message(), kind.meaning().http_status, parameter, code.as_deref())
}

/// True for a body that says in this protocol's words what went wrong.
pub fn is_error_body(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "error")]
        _error: Map<String, Value>,
    }
    serde_json::from_slice::<Said>(body).is_ok()
}

/// The body of an answer of that status, which stands in no table of errors.
pub fn refusal_body(status: u16, message: &str) -> Vec<u8> {
    body(message, status, None, None)
}

fn body(message: &str, status: u16, parameter: Option<&str>, code: Option<&str>) -> Vec<u8> {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    let body = json!({ "error": { "message": message, "type": kind, "param": parameter, "code": code } });
    body.to_string().into_bytes()
}

fn snake_case(class: &str) -> String {
    let mut name = String::with_capacity(class.len() + 4);
    for letter in class.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(error: &Error) -> Value {
        serde_json::from_slice::<Value>(&error_body(error)).unwrap()["error"].clone()
    }

    #[test]
    fn errors_name_their_parameter_and_their_code() {
        let refused = refused("temperature", INVALID, "must be at most 2");
        let expected = json!({"message": "temperature must be at most 2", "type": "invalid_request_error",
            "param": "temperature", "code": "invalid_value"});
        assert_eq!(said(&refused), expected);
        let missing = Error::new(ErrorKind::ModelNotFound, "there is no model 'm'");
        assert_eq!(
            (&said(&missing)["param"], &said(&missing)["code"]),
            (&json!("model"), &json!("model_not_found"))
        );
        let full = Error::new(ErrorKind::Overloaded, "full");
        assert_eq!(
            (&said(&full)["type"], &said(&full)["code"]),
            (&json!("server_error"), &json!("overloaded"))
        );
        let plain = Error::new(ErrorKind::Item, "bad");
        assert_eq!((&said(&plain)["param"], &said(&plain)["code"]), (&Value::Null, &Value::Null));
        let body: Value = serde_json::from_slice(&refusal_body(405, "no")).unwrap();
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
}
