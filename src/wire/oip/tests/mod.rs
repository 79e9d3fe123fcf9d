//! Requests and responses of the protocol, as text and as bytes.

mod binary;
mod elements;
mod nesting;
mod request;
mod response;
mod roundtrip;
mod tensors;
mod upstream;

use std::sync::Arc;

use super::InferRequest;
use crate::error::{ErrorKind, Result};
use crate::tensor::{Column, DType, Spares, TensorSpec};

/// Every type that the protocol has a name for, but for texts.
const DTYPES: [DType; 13] = [
    DType::Bool,
    DType::Int8,
    DType::Int16,
    DType::Int32,
    DType::Int64,
    DType::UInt8,
    DType::UInt16,
    DType::UInt32,
    DType::UInt64,
    DType::Float16,
    DType::BFloat16,
    DType::Float32,
    DType::Float64,
];

fn spec(name: &str, elements: &str, axes: &[i64]) -> TensorSpec {
    TensorSpec::new(name, elements, axes).unwrap()
}

fn spares() -> Arc<Spares> {
    Spares::new(1 << 20)
}

/// Parses for a model with these inputs and with outputs `y` and `z`.
fn parse(body: &str, inputs: &[TensorSpec]) -> Result<InferRequest> {
    let outputs = [spec("y", "float32", &[]), spec("z", "int8", &[])];
    InferRequest::parse(body.as_bytes(), None, inputs, &outputs, &spares())
}

/// What a request is refused with, which must be the sender's fault.
fn refusal(body: &str, inputs: &[TensorSpec]) -> String {
    let error = parse(body, inputs).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Item, "{error}");
    error.message().to_owned()
}

/// A request for input `x` alone.
fn body_of(elements: &str, shape: &str, data: &str) -> String {
    let datatype = spec("x", elements, &[]).elements.oip_name().unwrap();
    format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
}

/// Parses rows of one element each.
fn scalars(elements: &str, count: usize, data: &str) -> Result<InferRequest> {
    parse(&body_of(elements, &format!("[{count}]"), data), &[spec("x", elements, &[])])
}

/// The bytes of a column of numbers.
fn bytes(column: &Column) -> &[u8] {
    match column {
        Column::Numbers { memory, .. } => memory.as_slice(),
        other => panic!("{other:?} holds no numbers"),
    }
}

fn texts(column: &Column) -> Vec<&[u8]> {
    match column {
        Column::Texts { texts, .. } => texts.range(0..texts.len()).collect(),
        other => panic!("{other:?} holds no texts"),
    }
}

/// The numbers as they lie in memory.
macro_rules! in_memory {
    ($numbers:expr) => {
        $numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<u8>>()
    };
}
use in_memory;
