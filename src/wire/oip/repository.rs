//! The model repository: what is asked of it, and its answers, as JSON and as messages.
//!
//! <https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md>

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Parameter;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::grpc::proto::inference::model_repository_parameter::ParameterChoice;
use crate::wire::grpc::proto::inference::repository_index_response::ModelIndex;
use crate::wire::grpc::proto::inference::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
};

/// What unloads more than the one model that is named.
const DEPENDENTS: &str = "unload_dependents";

/// One line of the index: a version of a model, whether it is loaded or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How far it is: `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is so; empty where there is nothing to say.
    pub reason: String,
}

/// A request for the index, as JSON.
#[derive(Deserialize)]
struct IndexBody {
    #[serde(default)]
    ready: bool,
}

/// A request to load or to unload, as JSON.
#[derive(Deserialize)]
struct ChangeBody {
    #[serde(default)]
    parameters: HashMap<String, serde_json::Value>,
}

/// Whether a request for the index is for ready models alone. An empty body asks for all, as Triton's own client does.
///
/// # Errors
/// [`ErrorKind::Item`] for a body that is none of this.
pub fn index_request(body: &[u8]) -> Result<bool> {
    Ok(json::<IndexBody>(body)?.is_some_and(|asked| asked.ready))
}

/// The same of a message.
///
/// # Errors
/// [`ErrorKind::Item`] where it names a repository: there is one, and it has no name.
pub fn index_request_message(message: &RepositoryIndexRequest) -> Result<bool> {
    unnamed(&message.repository_name)?;
    Ok(message.ready)
}

/// The body of the index.
pub fn index_body(entries: &[IndexEntry]) -> Vec<u8> {
    // Texts alone: it does not fail.
    serde_json::to_vec(entries).unwrap_or_default()
}

/// The message of the index.
pub fn index_message(entries: Vec<IndexEntry>) -> RepositoryIndexResponse {
    let model = |entry: IndexEntry| ModelIndex {
        name: entry.name,
        version: entry.version,
        state: entry.state.to_owned(),
        reason: entry.reason,
    };
    RepositoryIndexResponse { models: entries.into_iter().map(model).collect() }
}

/// Makes sure that a request to load a model asks for nothing more than that.
///
/// # Errors
/// [`ErrorKind::Item`] for a body that is none, and for parameters: a model is what the application makes it, so
/// Triton's `config` and `file:` have nothing to override.
pub fn load_request(body: &[u8]) -> Result<()> {
    takes_no_parameters(&parameters_of_json(body)?)
}

/// The name of the model that a message wants loaded.
///
/// # Errors
/// As those of [`load_request`].
pub fn load_request_message(message: RepositoryModelLoadRequest) -> Result<String> {
    unnamed(&message.repository_name)?;
    takes_no_parameters(&parameters_of_message(message.parameters)?)?;
    Ok(message.model_name)
}

/// Whether a request to unload a model is for those, too, that cannot be without it.
///
/// # Errors
/// [`ErrorKind::Item`] for a body that is none, and for another parameter than `unload_dependents`, or one that is
/// neither true nor false.
pub fn unload_request(body: &[u8]) -> Result<bool> {
    dependents(&parameters_of_json(body)?)
}

/// The name of the model that a message wants unloaded, and whether those, too, that cannot be without it.
///
/// # Errors
/// As those of [`unload_request`].
pub fn unload_request_message(message: RepositoryModelUnloadRequest) -> Result<(String, bool)> {
    unnamed(&message.repository_name)?;
    let dependents = dependents(&parameters_of_message(message.parameters)?)?;
    Ok((message.model_name, dependents))
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<Option<T>> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let wrong =
        |why: &str| Error::new(ErrorKind::Item, format!("the body is no request of this kind: {why}"));
    if !body.trim_ascii_start().starts_with(b"{") {
        // Fields of an object may stand in a list for serde, and for nobody else.
        return Err(wrong("an object is wanted"));
    }
    serde_json::from_slice(body).map(Some).map_err(|error| wrong(&error.to_string()))
}

fn parameters_of_json(body: &[u8]) -> Result<Vec<(String, Parameter)>> {
    let given = json::<ChangeBody>(body)?.map_or_else(HashMap::new, |asked| asked.parameters);
    let each = given.into_iter().map(|(name, value)| {
        let value = match &value {
            serde_json::Value::Bool(value) => Some(Parameter::Bool(*value)),
            serde_json::Value::Number(value) => value.as_i64().map(Parameter::Integer),
            serde_json::Value::String(value) => Some(Parameter::Text(value.clone())),
            _ => None,
        };
        value.map(|value| (name.clone(), value)).ok_or_else(|| no_value(&name))
    });
    each.collect()
}

fn parameters_of_message(
    given: HashMap<String, ModelRepositoryParameter>,
) -> Result<Vec<(String, Parameter)>> {
    let each = given.into_iter().map(|(name, value)| match value.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Ok((name, Parameter::Bool(value))),
        Some(ParameterChoice::Int64Param(value)) => Ok((name, Parameter::Integer(value))),
        Some(ParameterChoice::StringParam(value)) => Ok((name, Parameter::Text(value))),
        // The content of a file, of `file:`: what it says is not looked at.
        Some(ParameterChoice::BytesParam(_)) => Ok((name, Parameter::Text(String::new()))),
        None => Err(no_value(&name)),
    });
    each.collect()
}

fn takes_no_parameters(given: &[(String, Parameter)]) -> Result<()> {
    match given.iter().map(|(name, _)| name).min() {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Item,
            format!("parameter '{name}' is not taken: a model is loaded as its application declares it"),
        )),
    }
}

fn dependents(given: &[(String, Parameter)]) -> Result<bool> {
    if let Some(name) = given.iter().map(|(name, _)| name).filter(|name| *name != DEPENDENTS).min() {
        let message = format!("parameter '{name}' is not taken: {DEPENDENTS} is the only one");
        return Err(Error::new(ErrorKind::Item, message));
    }
    match given.first() {
        None => Ok(false),
        Some((_, Parameter::Bool(dependents))) => Ok(*dependents),
        Some(_) => Err(Error::new(ErrorKind::Item, format!("{DEPENDENTS} must be true or false"))),
    }
}

fn unnamed(repository: &str) -> Result<()> {
    if repository.is_empty() {
        return Ok(());
    }
    let message = format!("there is no repository '{repository}': the server has one, without a name");
    Err(Error::new(ErrorKind::Item, message))
}

fn no_value(name: &str) -> Error {
    Error::new(ErrorKind::Item, format!("parameter '{name}' must be a bool, a whole number or a text"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parameter(choice: ParameterChoice) -> ModelRepositoryParameter {
        ModelRepositoryParameter { parameter_choice: Some(choice) }
    }

    fn with(name: &str, choice: ParameterChoice) -> HashMap<String, ModelRepositoryParameter> {
        [(name.to_owned(), parameter(choice))].into()
    }

    #[test]
    fn the_index_is_asked_for_with_a_body_or_without() {
        for (body, ready) in
            [("", false), (" \n", false), ("{}", false), (r#"{"ready":true}"#, true), (r#"{"x":1}"#, false)]
        {
            assert_eq!(index_request(body.as_bytes()).unwrap(), ready, "{body}");
        }
        for body in ["[", "[]", "[true]", "true", r#"{"ready":1}"#, "{}{}"] {
            assert_eq!(index_request(body.as_bytes()).unwrap_err().kind(), ErrorKind::Item, "{body}");
        }
        let mut message = RepositoryIndexRequest { ready: true, ..RepositoryIndexRequest::default() };
        assert!(index_request_message(&message).unwrap());
        message.repository_name = "/models".to_owned();
        assert!(index_request_message(&message).unwrap_err().message().contains("'/models'"));
    }

    #[test]
    fn the_index_says_the_same_either_way() {
        let entries = vec![
            IndexEntry { name: "m".into(), version: "1".into(), state: "READY", reason: String::new() },
            IndexEntry { name: "m".into(), version: "2".into(), state: "UNAVAILABLE", reason: "no".into() },
        ];
        let body: Value = serde_json::from_slice(&index_body(&entries)).unwrap();
        assert_eq!(
            body,
            json!([
                {"name": "m", "version": "1", "state": "READY", "reason": ""},
                {"name": "m", "version": "2", "state": "UNAVAILABLE", "reason": "no"},
            ])
        );
        let message = index_message(entries);
        let states: Vec<_> = message.models.iter().map(|model| model.state.as_str()).collect();
        assert_eq!((states, message.models[1].reason.as_str()), (vec!["READY", "UNAVAILABLE"], "no"));
    }

    #[test]
    fn a_load_takes_no_parameters() {
        for body in ["", "{}", r#"{"parameters":{}}"#] {
            load_request(body.as_bytes()).unwrap();
        }
        for (body, words) in [
            (r#"{"parameters":{"config":"{}"}}"#, "'config'"),
            (r#"{"parameters":{"file:1/model.onnx":"AA=="}}"#, "'file:1/model.onnx'"),
            (r#"{"parameters":{"a":1.5}}"#, "must be a bool, a whole number or a text"),
            (r#"{"parameters":[]}"#, "no request of this kind"),
            ("x", "no request of this kind"),
        ] {
            let error = load_request(body.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Item);
            assert!(error.message().contains(words), "{error}");
        }
        let mut message =
            RepositoryModelLoadRequest { model_name: "m".into(), ..RepositoryModelLoadRequest::default() };
        assert_eq!(load_request_message(message.clone()).unwrap(), "m");
        message.parameters = with("file:1/model.onnx", ParameterChoice::BytesParam("x".into()));
        assert!(load_request_message(message).unwrap_err().message().contains("'file:1/model.onnx'"));
    }

    #[test]
    fn an_unload_is_of_the_one_or_of_its_dependents_too() {
        for (body, dependents) in [
            ("", false),
            (r#"{"parameters":{"unload_dependents":false}}"#, false),
            (r#"{"parameters":{"unload_dependents":true}}"#, true),
        ] {
            assert_eq!(unload_request(body.as_bytes()).unwrap(), dependents, "{body}");
        }
        for (body, words) in [
            (r#"{"parameters":{"unload_dependents":"yes"}}"#, "unload_dependents must be true or false"),
            (r#"{"parameters":{"drain":1,"unload_dependents":true}}"#, "'drain'"),
            (r#"{"parameters":{"unload_dependents":null}}"#, "'unload_dependents' must be"),
        ] {
            assert!(unload_request(body.as_bytes()).unwrap_err().message().contains(words), "{body}");
        }
        let message = RepositoryModelUnloadRequest {
            model_name: "m".into(),
            parameters: with("unload_dependents", ParameterChoice::BoolParam(true)),
            ..RepositoryModelUnloadRequest::default()
        };
        assert_eq!(unload_request_message(message.clone()).unwrap(), ("m".to_owned(), true));
        let named = RepositoryModelUnloadRequest { repository_name: "r".into(), ..message };
        assert_eq!(unload_request_message(named).unwrap_err().kind(), ErrorKind::Item);
    }
}
