//! Requests and answers as messages of gRPC, `proto/inference.proto`: of a server, which reads requests into columns and
//! writes answers from them, and of a client, which does the opposite with plain bytes.

mod answer;
mod asked;
mod contents;
mod metadata;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use answer::{AnswerTensor, InferAnswer, StreamAnswer};
pub use asked::{AskedTensor, RequestMessage};
pub use metadata::model_metadata_message;
