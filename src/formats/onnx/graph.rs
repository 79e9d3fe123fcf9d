//! A graph's file, read without the library: its inputs and outputs, and where its weights lie.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use sha2::{Digest, Sha256};

use super::external::External;
use super::interface::Interface;
use super::proto;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::TensorSpec;

/// What protocol buffers can hold in one message; more lies in files of external data.
const LARGEST: u64 = i32::MAX as u64;

/// What is known of a graph, whether its file is still at hand or not.
#[derive(Debug)]
pub struct Signature {
    pub(super) path: PathBuf,
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    size: u64,
}

/// A graph's file, as it was when it was read.
#[derive(Debug)]
pub struct Graph {
    signature: Arc<Signature>,
    pub(super) bytes: Vec<u8>,
    external: BTreeMap<String, External>,
}

impl Graph {
    /// Reads the file and looks at what it says; files of external data are found, and not read yet.
    ///
    /// # Errors
    /// [`ErrorKind::LoadFailed`] where it cannot be read; [`ErrorKind::UnsafeFormat`] where it is no ONNX model;
    /// [`ErrorKind::ChecksumMismatch`] where it is not the one with that SHA-256; [`ErrorKind::PathEscape`] where a file of
    /// its weights lies outside of its directory; [`ErrorKind::Config`] where its inputs or outputs cannot be served, or
    /// are not what `interface` says.
    pub fn read(path: &Path, interface: &Interface, sha256: Option<&str>) -> Result<Self> {
        let shown = path.display();
        let bytes = read(path)?;
        if let Some(promised) = sha256 {
            check(path, &bytes, promised)?;
        }
        let unsafe_format = |why: String| Error::new(ErrorKind::UnsafeFormat, why);
        if let Some(what) = mistaken(&bytes) {
            return Err(unsafe_format(format!("'{shown}' is {what}, not an onnx model")));
        }
        let model = proto::Model::decode(bytes.as_slice())
            .map_err(|error| unsafe_format(format!("'{shown}' is no onnx model, or was cut off: {error}")))?;
        let Some(graph) = model.graph.as_ref().filter(|_| model.ir_version > 0) else {
            return Err(unsafe_format(format!("'{shown}' is no onnx model: it holds no graph")));
        };
        let external = External::all_of(path, &model)?;
        let (inputs, outputs) = interface.of(graph).map_err(|error| {
            Error::new(error.kind(), format!("'{shown}' cannot be served: {}", error.message()))
        })?;
        let size = bytes.len() as u64 + external.values().map(|external| external.size).sum::<u64>();
        let signature = Signature { path: path.to_owned(), inputs, outputs, size };
        Ok(Self { signature: Arc::new(signature), bytes, external })
    }

    /// What is known of it.
    pub fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    /// Its files of external data, each by the name that the graph calls it.
    pub(super) fn read_external(&self) -> Result<Vec<(String, Arc<[u8]>)>> {
        self.external.iter().map(|(name, external)| Ok((name.clone(), external.read()?))).collect()
    }
}

impl Signature {
    /// The graph's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its inputs, the batch axis left out.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// Its outputs, the batch axis left out.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Bytes of its file, and of those that its weights lie in.
    pub fn size(&self) -> u64 {
        self.size
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let unread = |error: std::io::Error| {
        let message = format!("'{shown}' cannot be read: {error}");
        Error::with_source(ErrorKind::LoadFailed, message, error)
    };
    let known = std::fs::metadata(path).map_err(unread)?;
    if !known.is_file() {
        return Err(Error::new(ErrorKind::LoadFailed, format!("'{shown}' is no regular file")));
    }
    if known.len() > LARGEST {
        let message = format!(
            "'{shown}' has {} bytes, and an onnx model at most {LARGEST}: larger weights lie in external data",
            known.len()
        );
        return Err(Error::new(ErrorKind::UnsafeFormat, message));
    }
    std::fs::read(path).map_err(unread)
}

/// What a file is that often lies where a model should.
fn mistaken(bytes: &[u8]) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("empty");
    }
    if bytes.get(4..8) == Some(b"ORTM") {
        return Some("a model in the library's own format (.ort)");
    }
    bytes.starts_with(b"version https://git-lfs").then_some("a pointer of Git LFS: fetch the file itself")
}

fn check(path: &Path, bytes: &[u8], promised: &str) -> Result<()> {
    let mut found = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // A text takes whatever is written to it.
        let _ = write!(found, "{byte:02x}");
    }
    if found.eq_ignore_ascii_case(promised) {
        return Ok(());
    }
    let message = format!("'{}' has the sha-256 {found}, not {promised}", path.display());
    Err(Error::new(ErrorKind::ChecksumMismatch, message))
}
