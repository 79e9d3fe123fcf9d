//! Calls that need no model: what the server is, what it serves, whether it can.

use bytes::Bytes;
use prost::Message;

use super::health;
use super::method::Method;
use crate::error::Error;
use crate::serve::Service;
use crate::wire::grpc::proto::inference::{
    ModelMetadataRequest, ModelReadyRequest, ModelReadyResponse, ServerLiveResponse, ServerMetadataResponse,
    ServerReadyResponse,
};
use crate::wire::grpc::{Code, Status, framed};
use crate::wire::oip;

/// Answers such a call; `repository` says whether models can be loaded and unloaded by others.
///
/// # Errors
/// [`Code::NotFound`] for a model that is not served; [`Code::Internal`] for a message that is none, as the specification
/// has it.
pub(super) fn answer(
    service: &Service,
    repository: bool,
    method: Method,
    message: Bytes,
) -> Result<Bytes, Status> {
    Ok(match method {
        Method::ServerLive => framed(&ServerLiveResponse { live: service.is_alive() }),
        Method::ServerReady => framed(&ServerReadyResponse { ready: service.is_ready() }),
        Method::ServerMetadata => framed(&ServerMetadataResponse {
            name: "penstock".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: oip::extensions(repository).map(str::to_owned).collect(),
        }),
        Method::ModelReady => {
            let asked: ModelReadyRequest = decoded(message)?;
            let model = service.model(&asked.name, version(&asked.version)).map_err(status)?;
            framed(&ModelReadyResponse { ready: model.is_ready() })
        }
        Method::ModelMetadata => {
            let asked: ModelMetadataRequest = decoded(message)?;
            let model = service.model(&asked.name, version(&asked.version)).map_err(status)?;
            let spec = &model.spec;
            let versions = service.versions(&spec.name);
            framed(&oip::model_metadata_message(&spec.name, &versions, &spec.inputs, &spec.outputs))
        }
        Method::HealthCheck => framed(&health::check(service, &decoded(message)?)?),
        Method::HealthList => framed(&health::list(service)),
        _ => return Err(Status::new(Code::Internal, "this call is answered elsewhere")),
    })
}

/// A version, where one is given.
pub(super) fn version(given: &str) -> Option<&str> {
    (!given.is_empty()).then_some(given)
}

/// The message that these bytes are.
///
/// # Errors
/// [`Code::Internal`] where they are none, as the specification has it.
pub(in crate::serve) fn decoded<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::new(Code::Internal, format!("the message is none of this method: {error}")))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where an error is mapped")]
pub(super) fn status(error: Error) -> Status {
    Status::from(&error)
}
