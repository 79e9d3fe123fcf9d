//! What servers and models say of themselves, and how they say that something went wrong.

use serde_json::{Value, json};

use crate::tensor::TensorSpec;

/// What runs the models.
pub(super) const PLATFORM: &str = "penstock_python";

/// Extensions of the protocol that the server speaks: the last two where models can be loaded and unloaded by calls.
const EXTENSIONS: [&str; 3] =
    ["binary_tensor_data", "model_repository", "model_repository(unload_dependents)"];

/// Extensions of the protocol that a server speaks, with a model repository or without.
pub fn extensions(repository: bool) -> impl Iterator<Item = &'static str> {
    EXTENSIONS.into_iter().take(if repository { EXTENSIONS.len() } else { 1 })
}

/// The body of server metadata.
pub fn server_metadata(name: &str, version: &str, repository: bool) -> Vec<u8> {
    let extensions: Vec<_> = extensions(repository).collect();
    json!({ "name": name, "version": version, "extensions": extensions }).to_string().into_bytes()
}

/// The body of model metadata; the batch axis stands first in every shape, as -1.
pub fn model_metadata(
    name: &str,
    versions: &[String],
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Vec<u8> {
    let body = json!({
        "name": name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(tensor).collect::<Vec<_>>(),
    });
    body.to_string().into_bytes()
}

/// The body of the answer to a probe: `{"ready": true}`.
pub fn health(what: &str, holds: bool) -> Vec<u8> {
    json!({ what: holds }).to_string().into_bytes()
}

/// The body of model readiness.
pub fn model_ready(name: &str, ready: bool) -> Vec<u8> {
    json!({ "name": name, "ready": ready }).to_string().into_bytes()
}

/// The body of an error.
pub fn error_body(message: &str) -> Vec<u8> {
    json!({ "error": message }).to_string().into_bytes()
}

/// True for a body that says in this protocol's words what went wrong.
pub fn is_error_body(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(rename = "error")]
        _error: String,
    }
    serde_json::from_slice::<Said>(body).is_ok()
}

fn tensor(spec: &TensorSpec) -> Value {
    let mut shape = vec![-1];
    shape.extend(spec.shown_axes());
    json!({ "name": spec.name, "datatype": spec.elements.oip_name(), "shape": shape })
}
