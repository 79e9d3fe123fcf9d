//! Everything that names Python: the bridge to its interpreter and event loops, conversions, and thin classes.

mod batcher;
mod bridge;
mod client;
mod clock;
mod convert;
mod core;
mod deadline;
mod errors;
mod flight;
mod in_process;
mod inherited;
mod inside;
mod journal;
mod load;
mod messages;
mod models;
mod onnx;
mod policy;
mod polls;
mod processes;
mod recording;
mod records;
mod remote;
mod remote_text;
mod riders;
mod roster;
mod run;
mod scope;
mod security;
mod served;
mod server;
mod shift;
mod spans;
mod steps;
mod switches;
mod texts;
mod visitors;
mod waiter;
mod weights;

use pyo3::prelude::*;

/// The private extension module under `penstock`; its public face is typed Python.
#[pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use super::batcher::{NativeBatcher, Worker};
    #[pymodule_export]
    use super::bridge::lifecycle::{lock_acquisitions, reset_after_fork, shutdown};
    #[pymodule_export]
    use super::client::{
        NativeClient, NativeEvent, NativeInferStream, NativeInference, NativeMany, NativePending,
        NativeQuestion, NativeResponse, NativeStream, NativeUpload,
    };
    #[pymodule_export]
    use super::clock::NativeClock;
    #[pymodule_export]
    use super::deadline::BatchDeadline;
    #[pymodule_export]
    use super::errors::{bind_errors, error_table};

    #[pymodule_export]
    use super::inside::{NativePieces, NativePipeline, NativeTiming};
    #[pymodule_export]
    use super::journal::NativeJournal;
    #[pymodule_export]
    use super::load::NativeLoad;
    #[pymodule_export]
    use super::messages::infer_message;
    #[pymodule_export]
    use super::models::{Acquiring, Lease, LoadDesk, NativeModelCache, NativeOperation};
    #[pymodule_export]
    use super::onnx::{NativeOnnx, onnx_build_info, onnx_signature};
    #[pymodule_export]
    use super::policy::check_policy;
    #[pymodule_export]
    use super::polls::PollDesk;
    #[pymodule_export]
    use super::processes::{NativeChild, NativeKeeper};
    #[pymodule_export]
    use super::recording::{NativeRecording, tune_trace};
    #[pymodule_export]
    use super::scope::{BatchScope, count_collection};
    #[pymodule_export]
    use super::served::ServedWorker;
    #[pymodule_export]
    use super::server::NativeServer;
    #[pymodule_export]
    use super::shift::NativeShift;
    #[pymodule_export]
    use super::steps::Steps;
    #[pymodule_export]
    use super::weights::{NativeWeights, TensorMemory, load_weights};

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
