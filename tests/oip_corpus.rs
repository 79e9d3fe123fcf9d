//! Hostile requests, kept as files: each is read or refused as its name says, and nothing breaks.
//!
//! A file is named `<verdict>-<type>-<what>`: `ok` or `bad`, for a model whose one input `x` has rows `[any length]` of that
//! type and whose outputs are `y` and `z`. A binary request begins with a line of its own, the header length or `none`.
//! What is in `protobuf` was written by Triton's client, `tritonclient.grpc.service_pb2`. The fuzz targets begin with the
//! same files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;

use penstock::error::{Error, ErrorKind};
use penstock::tensor::{Spares, TensorSpec};
use penstock::wire::grpc::proto::inference::ModelInferRequest;
use penstock::wire::oip::InferRequest;
use prost::Message;

type Read = dyn Fn(&[u8], &[TensorSpec], &[TensorSpec]) -> Result<InferRequest, Error>;

/// Replays the files of a folder and gives how many were `ok` and how many `bad`.
fn replay(folder: &str, read: &Read) -> (usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/oip").join(folder);
    let (mut ok, mut bad) = (0, 0);
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let [verdict, elements, _] = *name.splitn(3, '-').collect::<Vec<_>>() else { panic!("{name}") };
        let inputs = [TensorSpec::new("x", elements, &[-1]).unwrap()];
        let outputs = ["y", "z"].map(|name| TensorSpec::new(name, "float32", &[]).unwrap());
        match (verdict, read(&fs::read(&file).unwrap(), &inputs, &outputs)) {
            ("ok", Ok(_)) => ok += 1,
            ("bad", Err(error)) if error.kind() == ErrorKind::Item => bad += 1,
            (_, found) => panic!("{name}: {found:?}"),
        }
    }
    (ok, bad)
}

#[test]
fn json_requests_get_their_verdicts() {
    let (ok, bad) = replay("json", &|bytes, inputs, outputs| {
        InferRequest::parse(bytes, None, inputs, outputs, &Spares::new(1 << 20))
    });
    assert!(ok > 10 && bad > 40, "{ok} and {bad}");
}

#[test]
fn binary_requests_get_their_verdicts() {
    let (ok, bad) = replay("binary", &|bytes, inputs, outputs| {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(bytes.get(..end).unwrap()).unwrap();
        let header_length = if line == "none" { None } else { Some(line.parse().unwrap()) };
        InferRequest::parse(
            bytes.get(end + 1..).unwrap(),
            header_length,
            inputs,
            outputs,
            &Spares::new(1 << 20),
        )
    });
    assert!(ok > 5 && bad > 15, "{ok} and {bad}");
}

#[test]
fn messages_of_grpc_get_their_verdicts() {
    let (ok, bad) = replay("protobuf", &|bytes, inputs, outputs| {
        let message = ModelInferRequest::decode(bytes)
            .map_err(|error| Error::new(ErrorKind::Item, error.to_string()))?;
        InferRequest::from_message(&message, inputs, outputs, &Spares::new(1 << 20))
    });
    assert!(ok > 10 && bad > 35, "{ok} and {bad}");
}
