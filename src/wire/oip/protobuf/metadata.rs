//! What a model says of itself.

use crate::tensor::TensorSpec;
use crate::wire::grpc::proto::inference::ModelMetadataResponse;
use crate::wire::grpc::proto::inference::model_metadata_response::TensorMetadata;

/// Model metadata, as [`model_metadata`](super::super::model_metadata) has it.
pub fn model_metadata_message(
    name: &str,
    versions: &[String],
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> ModelMetadataResponse {
    ModelMetadataResponse {
        name: name.to_owned(),
        versions: versions.to_vec(),
        platform: super::super::metadata::PLATFORM.to_owned(),
        inputs: inputs.iter().map(tensor).collect(),
        outputs: outputs.iter().map(tensor).collect(),
        ..ModelMetadataResponse::default()
    }
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    let mut shape = vec![-1];
    shape.extend(spec.shown_axes());
    let datatype = spec.elements.oip_name().unwrap_or_default();
    TensorMetadata { name: spec.name.clone(), datatype: datatype.to_owned(), shape }
}
