//! Weights: the tensors of one file, or of the files that an index names.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::header::TensorEntry;
use super::region::{RegionKind, Span};
use super::settings::Settings;
use super::stored::StoredType;
use crate::error::{Error, ErrorKind, Result};

/// Is told the bytes that are done and all that there are, on the thread that called, a few times a second however long nothing
/// moves; false where the work is no longer wanted.
pub type Watch<'a> = &'a dyn Fn(u64, u64) -> bool;

/// One tensor that was loaded.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: StoredType,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// Its bytes, little-endian, in the order of C. In a map they may begin anywhere; read ones begin where their elements may.
    pub bytes: Span,
}

/// What is known of one tensor before it is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its name, type, shape and place.
    pub entry: &'a TensorEntry,
    /// The file that it is in.
    pub file: &'a Path,
}

/// Weights that are open: their headers were read and checked, their tensors are read when they are asked for.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Opens a safetensors file, an index (`*.index.json`) or a directory with one of the two (see [`super::locate`]).
    /// Where digests are given, every file is read to its end and compared, which is what `watch` hears of.
    ///
    /// # Errors
    /// [`ErrorKind::UnsafeFormat`]: a file is not what the format says, or not what the index says of it.
    /// [`ErrorKind::PathEscape`]: a name or a link leads out of the directory. [`ErrorKind::ChecksumMismatch`]: a file has another
    /// digest. [`ErrorKind::LoadFailed`]: a file is missing, cannot be read, changed while it was read, or `watch` said false.
    /// [`ErrorKind::Config`]: the settings fit neither the files nor one another. [`ErrorKind::Capacity`]: no memory.
    pub fn open(path: &Path, _settings: &Settings, _watch: Watch<'_>) -> Result<Self> {
        Err(unbuilt(path))
    }

    /// Opens weights and loads the tensors of those names, or all of them: in the order of their bytes, or of the names. The bytes
    /// of a file lie in one region; each tensor keeps it.
    ///
    /// # Errors
    /// As [`Weights::open`]; [`ErrorKind::Config`] where there is no tensor of a name.
    pub fn load(
        path: &Path,
        _names: Option<&[String]>,
        _settings: &Settings,
        _watch: Watch<'_>,
    ) -> Result<Vec<Tensor>> {
        Err(unbuilt(path))
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        0
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all tensors.
    pub fn nbytes(&self) -> u64 {
        0
    }

    /// Every tensor, in the order of the files' names and of the bytes in each.
    pub fn tensors(&self) -> impl Iterator<Item = Found<'_>> {
        std::iter::empty()
    }

    /// The tensor of that name.
    pub fn get(&self, _name: &str) -> Option<Found<'_>> {
        None
    }

    /// What stands under `__metadata__`; of several files, what the first by name says under each key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// How the tensor of that name is held: mapped, or read when it is asked for.
    pub fn kind(&self, _name: &str) -> Option<RegionKind> {
        None
    }

    /// The tensor of that name: a span of its file's map, or read into a region of its own.
    ///
    /// # Errors
    /// As [`Weights::open`]; [`ErrorKind::Config`] where there is no tensor of that name.
    pub fn tensor(&self, _name: &str) -> Result<Tensor> {
        Err(unbuilt(&self.path))
    }

    /// Rows of the first axis of a tensor; its shape has their number in place of the axis' length. Only their bytes are read.
    ///
    /// # Errors
    /// As [`Weights::tensor`]; [`ErrorKind::Config`] where it has no such rows, or where rows share a byte (4 and 6 bit types).
    pub fn rows(&self, _name: &str, _rows: Range<usize>) -> Result<Tensor> {
        Err(unbuilt(&self.path))
    }
}

fn unbuilt(path: &Path) -> Error {
    Error::new(ErrorKind::Internal, format!("'{}' cannot be opened yet", path.display()))
}
