//! The Open Inference Protocol, version 2: <https://github.com/open-inference/open-inference-protocol>, as JSON with the
//! [binary tensor data extension](https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).

mod ask;
mod binary;
mod envelope;
mod fit;
mod flatten;
mod given;
mod metadata;
mod numbers;
mod protobuf;
mod questions;
mod repository;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod told;

pub use crate::tensor::AnswerRow;
pub use ask::AskedRows;
pub use given::{Given, arranged, outputs_of};
pub use metadata::{
    error_body, extensions, health, is_error_body, model_metadata, model_ready, server_metadata,
};
pub use protobuf::{
    AnswerTensor, AskedTensor, InferAnswer, RequestMessage, StreamAnswer, model_metadata_message,
};
pub use questions::{ModelName, Parameter, Parameters, Question};
pub use repository::{
    IndexEntry, index_body, index_message, index_request, index_request_message, load_request,
    load_request_message, unload_request, unload_request_message,
};
pub use request::{InferRequest, WantedOutput};
pub use response::{Encoded, InferResponse, same_shape, size_of};
pub use told::ToldRows;
