//! What models lie on disk as: weights in safetensors, graphs in ONNX. Neither needs an interpreter.

mod links;
pub mod onnx;
pub mod safetensors;
