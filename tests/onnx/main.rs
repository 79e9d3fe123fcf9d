//! ONNX graphs on the real library: the onnxruntime of `PyPI`, from `PENSTOCK_ONNXRUNTIME` or the environment in `.venv`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod files;
mod interfaces;
mod library;
mod running;
mod served;
mod support;
