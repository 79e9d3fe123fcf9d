//! Messages of the inference service, for `penstock.testing` and `penstock bench`.

use bytes::Bytes;
use prost::Message;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::wire::grpc::proto::inference::ModelInferRequest;
use crate::wire::grpc::proto::inference::model_infer_request::InferInputTensor;

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
