//! The Open Inference Protocol, version 2, as JSON: <https://github.com/open-inference/open-inference-protocol>.

mod flatten;
mod metadata;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use metadata::{error_body, model_metadata, model_ready, server_metadata};
pub use request::InferRequest;
pub use response::{AnsweredRow, InferResponse, same_shape};
