//! What a client asks besides inference, in the words of HTTP and of gRPC.

use std::collections::HashMap;
use std::fmt::Write;

use bytes::Bytes;
use http::Method;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::wire::grpc::framed;
use crate::wire::grpc::proto::inference::model_metadata_response::TensorMetadata;
use crate::wire::grpc::proto::inference::model_repository_parameter::ParameterChoice;
use crate::wire::grpc::proto::inference::{
    ModelMetadataRequest, ModelReadyRequest, ModelReadyResponse, ModelRepositoryParameter,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};

/// What a path of a URL does not carry as it is.
const IN_PATHS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b'<').add(b'>').add(b'?').add(b'\\');

/// A question of the Open Inference Protocol, or of the model repository that Triton adds to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Whether the server runs.
    Live,
    /// Whether every model can answer.
    Ready,
    /// What the server is.
    Server,
    /// Whether a model can answer.
    ModelReady(ModelName),
    /// What a model takes and gives.
    Model(ModelName),
    /// Which models there are; true for those alone that can answer.
    Index(bool),
    /// Load a model.
    Load(String, Parameters),
    /// Unload a model.
    Unload(String, Parameters),
}

/// A model and its version, where that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
}

/// What goes with a request to load or to unload a model.
pub type Parameters = Vec<(String, Parameter)>;

/// A value of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

impl Question {
    /// Method, path and body of the request over HTTP.
    pub fn http(&self) -> (Method, String, Bytes) {
        let (method, path) = match self {
            Self::Live => (Method::GET, "/v2/health/live".to_owned()),
            Self::Ready => (Method::GET, "/v2/health/ready".to_owned()),
            Self::Server => (Method::GET, "/v2".to_owned()),
            Self::ModelReady(model) => (Method::GET, model.path("/ready")),
            Self::Model(model) => (Method::GET, model.path("")),
            Self::Index(_) => (Method::POST, "/v2/repository/index".to_owned()),
            Self::Load(name, _) => (Method::POST, format!("/v2/repository/models/{}/load", in_path(name))),
            Self::Unload(name, _) => {
                (Method::POST, format!("/v2/repository/models/{}/unload", in_path(name)))
            }
        };
        let body = match self {
            Self::Index(ready) => json!({ "ready": ready }).to_string(),
            Self::Load(_, parameters) | Self::Unload(_, parameters) => as_json(parameters),
            _ => String::new(),
        };
        (method, path, body.into())
    }

    /// The path of the call over gRPC.
    pub fn grpc_path(&self) -> &'static str {
        match self {
            Self::Live => "/inference.GRPCInferenceService/ServerLive",
            Self::Ready => "/inference.GRPCInferenceService/ServerReady",
            Self::Server => "/inference.GRPCInferenceService/ServerMetadata",
            Self::ModelReady(_) => "/inference.GRPCInferenceService/ModelReady",
            Self::Model(_) => "/inference.GRPCInferenceService/ModelMetadata",
            Self::Index(_) => "/inference.GRPCInferenceService/RepositoryIndex",
            Self::Load(..) => "/inference.GRPCInferenceService/RepositoryModelLoad",
            Self::Unload(..) => "/inference.GRPCInferenceService/RepositoryModelUnload",
        }
    }

    /// The message of the call, the prefix of gRPC before it.
    pub fn message(&self) -> Bytes {
        match self {
            Self::Live => framed(&ServerLiveRequest {}),
            Self::Ready => framed(&ServerReadyRequest {}),
            Self::Server => framed(&ServerMetadataRequest {}),
            Self::ModelReady(ModelName { name, version }) => framed(&ModelReadyRequest {
                name: name.clone(),
                version: version.clone().unwrap_or_default(),
            }),
            Self::Model(ModelName { name, version }) => framed(&ModelMetadataRequest {
                name: name.clone(),
                version: version.clone().unwrap_or_default(),
            }),
            Self::Index(ready) => framed(&RepositoryIndexRequest { ready: *ready, ..Default::default() }),
            Self::Load(name, parameters) => framed(&RepositoryModelLoadRequest {
                model_name: name.clone(),
                parameters: as_messages(parameters),
                ..Default::default()
            }),
            Self::Unload(name, parameters) => framed(&RepositoryModelUnloadRequest {
                model_name: name.clone(),
                parameters: as_messages(parameters),
                ..Default::default()
            }),
        }
    }

    /// The answer of gRPC in the words of HTTP.
    ///
    /// # Errors
    /// [`ErrorKind::ProtocolError`] where it is no answer to this question.
    pub fn answer(&self, message: &[u8]) -> Result<Value> {
        Ok(match self {
            Self::Live => json!({ "live": decoded::<ServerLiveResponse>(message)?.live }),
            Self::Ready => json!({ "ready": decoded::<ServerReadyResponse>(message)?.ready }),
            Self::ModelReady(model) => {
                json!({ "name": model.name, "ready": decoded::<ModelReadyResponse>(message)?.ready })
            }
            Self::Server => {
                let ServerMetadataResponse { name, version, extensions } = decoded(message)?;
                json!({ "name": name, "version": version, "extensions": extensions })
            }
            Self::Model(_) => {
                let model: Described = decoded(message)?;
                json!({
                    "name": model.name,
                    "versions": model.versions,
                    "platform": model.platform,
                    "inputs": model.inputs.iter().map(tensor).collect::<Vec<_>>(),
                    "outputs": model.outputs.iter().map(tensor).collect::<Vec<_>>(),
                })
            }
            Self::Index(_) => {
                let index: RepositoryIndexResponse = decoded(message)?;
                let models = index.models.iter().map(|model| {
                    json!({
                        "name": model.name,
                        "version": model.version,
                        "state": model.state,
                        "reason": model.reason,
                    })
                });
                models.collect()
            }
            Self::Load(..) | Self::Unload(..) => Value::Null,
        })
    }
}

/// `ModelMetadataResponse` without its field 6: servers do not agree on what it holds.
#[derive(Clone, PartialEq, Message)]
struct Described {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    versions: Vec<String>,
    #[prost(string, tag = "3")]
    platform: String,
    #[prost(message, repeated, tag = "4")]
    inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<TensorMetadata>,
}

impl ModelName {
    fn path(&self, action: &str) -> String {
        let mut path = format!("/v2/models/{}", in_path(&self.name));
        if let Some(version) = &self.version {
            // Writing to a string does not fail.
            let _ = write!(path, "/versions/{}", in_path(version));
        }
        path + action
    }
}

fn in_path(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, IN_PATHS)
}

fn as_json(parameters: &Parameters) -> String {
    let values = parameters.iter().map(|(name, value)| {
        let value = match value {
            Parameter::Bool(value) => json!(value),
            Parameter::Integer(value) => json!(value),
            Parameter::Text(value) => json!(value),
        };
        (name.clone(), value)
    });
    let values: Map<String, Value> = values.collect();
    if values.is_empty() { "{}".to_owned() } else { json!({ "parameters": values }).to_string() }
}

fn as_messages(parameters: &Parameters) -> HashMap<String, ModelRepositoryParameter> {
    let values = parameters.iter().map(|(name, value)| {
        let choice = match value {
            Parameter::Bool(value) => ParameterChoice::BoolParam(*value),
            Parameter::Integer(value) => ParameterChoice::Int64Param(*value),
            Parameter::Text(value) => ParameterChoice::StringParam(value.clone()),
        };
        (name.clone(), ModelRepositoryParameter { parameter_choice: Some(choice) })
    });
    values.collect()
}

fn tensor(tensor: &TensorMetadata) -> Value {
    json!({ "name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape })
}

fn decoded<M: Message + Default>(message: &[u8]) -> Result<M> {
    M::decode(message).map_err(|error| {
        let message = format!("the answer is not what was asked for: {error}");
        Error::with_source(ErrorKind::ProtocolError, message, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::grpc::PREFIX;
    use crate::wire::grpc::proto::inference::repository_index_response::ModelIndex;

    fn model(name: &str, version: Option<&str>) -> ModelName {
        ModelName { name: name.to_owned(), version: version.map(str::to_owned) }
    }

    #[test]
    fn questions_have_a_path_of_http_that_stands_any_name() {
        let unload = vec![("unload_dependents".to_owned(), Parameter::Bool(true))];
        for (question, method, path, body) in [
            (Question::Live, Method::GET, "/v2/health/live", ""),
            (Question::Ready, Method::GET, "/v2/health/ready", ""),
            (Question::Server, Method::GET, "/v2", ""),
            (Question::Model(model("a b/ü", None)), Method::GET, "/v2/models/a%20b%2F%C3%BC", ""),
            (Question::ModelReady(model("m", Some("1"))), Method::GET, "/v2/models/m/versions/1/ready", ""),
            (Question::Index(true), Method::POST, "/v2/repository/index", r#"{"ready":true}"#),
            (Question::Load("m".into(), vec![]), Method::POST, "/v2/repository/models/m/load", "{}"),
            (
                Question::Unload("m".into(), unload),
                Method::POST,
                "/v2/repository/models/m/unload",
                r#"{"parameters":{"unload_dependents":true}}"#,
            ),
        ] {
            assert_eq!(question.http(), (method, path.to_owned(), Bytes::from(body)));
        }
    }

    #[test]
    fn answers_of_grpc_read_as_those_of_http() {
        let index = RepositoryIndexResponse {
            models: vec![ModelIndex {
                name: "m".into(),
                version: "1".into(),
                state: "READY".into(),
                reason: String::new(),
            }],
        };
        assert_eq!(
            Question::Index(false).answer(&index.encode_to_vec()).unwrap(),
            json!([{"name": "m", "version": "1", "state": "READY", "reason": ""}])
        );
        let server =
            ServerMetadataResponse { name: "s".into(), version: "2".into(), extensions: vec!["e".into()] };
        assert_eq!(
            Question::Server.answer(&server.encode_to_vec()).unwrap(),
            json!({"name": "s", "version": "2", "extensions": ["e"]})
        );
        assert_eq!(Question::Live.answer(&[8, 1]).unwrap(), json!({"live": true}));
        assert_eq!(
            Question::ModelReady(model("m", None)).answer(&[]).unwrap(),
            json!({"name": "m", "ready": false})
        );
        assert_eq!(Question::Live.answer(&[0xff]).unwrap_err().kind(), ErrorKind::ProtocolError);
    }

    #[test]
    fn what_others_say_beside_of_a_model_is_passed_over() {
        let tensor = TensorMetadata { name: "x".into(), datatype: "FP32".into(), shape: vec![-1, 2] };
        let described = Described { name: "m".into(), inputs: vec![tensor], ..Described::default() };
        let mut message = described.encode_to_vec();
        message.extend_from_slice(b"\x32\x07\x0a\x01k\x12\x02\xff\xff");
        assert_eq!(
            Question::Model(model("m", None)).answer(&message).unwrap(),
            json!({"name": "m", "versions": [], "platform": "", "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
            ], "outputs": []})
        );
    }

    #[test]
    fn parameters_go_along_by_their_types() {
        let parameters = vec![
            ("a".to_owned(), Parameter::Integer(-1)),
            ("b".to_owned(), Parameter::Text("x".into())),
            ("c".to_owned(), Parameter::Bool(false)),
        ];
        let load = Question::Load("m".into(), parameters);
        assert_eq!(load.http().2, r#"{"parameters":{"a":-1,"b":"x","c":false}}"#);
        let message = RepositoryModelLoadRequest::decode(load.message().slice(PREFIX..)).unwrap();
        let choice = |name: &str| message.parameters[name].parameter_choice.clone().unwrap();
        assert_eq!(message.model_name, "m");
        assert_eq!(choice("a"), ParameterChoice::Int64Param(-1));
        assert_eq!(choice("b"), ParameterChoice::StringParam("x".into()));
        assert_eq!(choice("c"), ParameterChoice::BoolParam(false));
    }
}
