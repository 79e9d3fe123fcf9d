//! A served model that doubles its input, and a client that sends frames as it is told.

#[path = "../../client_connect/harness/authority.rs"]
#[allow(dead_code, reason = "the tests of clients need more of it")]
mod authority;
#[path = "../../http_door/harness/certificates.rs"]
#[allow(dead_code, reason = "the tests of HTTP need more of it")]
mod certificates;
mod client;
#[path = "../../http_door/harness/door.rs"]
#[allow(dead_code, reason = "the tests of HTTP need more of it")]
mod door;
#[path = "../../http_door/harness/shelf.rs"]
#[allow(dead_code, reason = "as above")]
mod shelf;
#[path = "../../http_door/harness/talk.rs"]
#[allow(dead_code, reason = "as above")]
mod talk;
#[path = "../../http_door/harness/wire.rs"]
#[allow(dead_code, reason = "as above")]
mod wire;

pub(crate) use authority::{Authority, Signed};
pub(crate) use certificates::{Certificates, trusting};
pub(crate) use client::{Client, Duplex, Ended};
pub(crate) use door::{Door, Setup, double};
pub(crate) use shelf::{Shelf, Shelving};
pub(crate) use talk::Talking;
use wire::Wire;

use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock::wire::grpc::framed;
use penstock::wire::grpc::proto::inference::model_infer_request::InferInputTensor;
use penstock::wire::grpc::proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use prost::Message;

/// How long a test waits for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
pub(crate) const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";

/// What the model of text shares with the tests of HTTP wants it.
fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Looks until it is so, and fails if that never comes.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it never came that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A request for rows of one number each, raw.
pub(crate) fn raw(numbers: &[f32]) -> ModelInferRequest {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut request = typed(numbers);
    request.inputs[0].contents = None;
    request.raw_input_contents = vec![bytes.into()];
    request
}

/// A request for rows of one number each, in a typed field.
pub(crate) fn typed(numbers: &[f32]) -> ModelInferRequest {
    let contents = InferTensorContents { fp32_contents: numbers.to_vec(), ..InferTensorContents::default() };
    ModelInferRequest {
        model_name: "double".to_owned(),
        id: "a7".to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![i64::try_from(numbers.len()).unwrap(), 1],
            contents: Some(contents),
            ..InferInputTensor::default()
        }],
        ..ModelInferRequest::default()
    }
}

/// The whole body of a call for one row.
pub(crate) fn one(number: f32) -> Bytes {
    framed(&raw(&[number]))
}

/// The numbers of an answer, whichever form they came in.
pub(crate) fn numbers(answer: &ModelInferResponse) -> Vec<f32> {
    match answer.raw_output_contents.first() {
        Some(raw) => raw.chunks_exact(4).map(|each| f32::from_le_bytes(each.try_into().unwrap())).collect(),
        None => answer.outputs[0].contents.clone().unwrap().fp32_contents,
    }
}

impl Ended {
    /// The answer of an inference that went well.
    pub(crate) fn infer(&self) -> ModelInferResponse {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.messages.len(), 1);
        ModelInferResponse::decode(self.messages[0].clone()).unwrap()
    }

    pub(crate) fn numbers(&self) -> Vec<f32> {
        numbers(&self.infer())
    }
}
