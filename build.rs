//! Compiles the descriptions of the gRPC services in `proto/`, without a `protoc` on the machine.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

/// Relative to `proto/`.
const FILES: [&str; 4] = [
    "inference.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files =
        protox::Compiler::new(["proto"])?.include_imports(true).open_files(FILES)?.file_descriptor_set();
    // The server shows them to whoever asks by reflection.
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&files))?;
    // Tensors are not copied out of the message that they came in.
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
