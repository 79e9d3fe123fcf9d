//! Messages of the inference service, for `penstock.testing` and `penstock bench`.

use bytes::Bytes;
use prost::Message;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors::to_python;
use crate::error::{Error, ErrorKind};
use crate::wire::grpc::proto::inference::model_infer_request::InferInputTensor;
use crate::wire::grpc::proto::inference::{ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse};

/// An input: name, datatype, shape, and its data as the protocol has them raw.
type Input = (String, String, Vec<i64>, Vec<u8>);

/// A `ModelInferRequest` with raw contents.
#[pyfunction]
pub(crate) fn infer_message(
    py: Python<'_>,
    model: String,
    inputs: Vec<Input>,
    request_id: String,
) -> Py<PyBytes> {
    let mut request = ModelInferRequest { model_name: model, id: request_id, ..Default::default() };
    for (name, datatype, shape, data) in inputs {
        request.inputs.push(InferInputTensor { name, datatype, shape, ..Default::default() });
        request.raw_input_contents.push(Bytes::from(data));
    }
    PyBytes::new(py, &request.encode_to_vec()).unbind()
}

/// A `ModelMetadataRequest`.
#[pyfunction]
pub(crate) fn metadata_message(py: Python<'_>, model: String) -> Py<PyBytes> {
    let request = ModelMetadataRequest { name: model, version: String::new() };
    PyBytes::new(py, &request.encode_to_vec()).unbind()
}

/// The inputs that a `ModelMetadataResponse` names: name, datatype, shape.
#[pyfunction]
pub(crate) fn metadata_inputs(py: Python<'_>, answer: &[u8]) -> PyResult<Vec<(String, String, Vec<i64>)>> {
    match ModelMetadataResponse::decode(answer) {
        Ok(found) => Ok(found.inputs.into_iter().map(|one| (one.name, one.datatype, one.shape)).collect()),
        Err(source) => {
            let message = "the answer is no metadata of a model";
            Err(to_python(py, &Error::with_source(ErrorKind::ProtocolError, message, source)))
        }
    }
}
