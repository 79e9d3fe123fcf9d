//! The header of a file, as the format's README has it, and checked against the length of the file.
//!
//! What is accepted is a subset of what the format's reference accepts. Refused here and not there: a key that stands twice,
//! a key that an entry does not have, an entry that is a list, `__metadata__: null`, a header that begins with white space or ends
//! in any but spaces, an empty name or one with control characters, more than [`MAX_RANK`] dimensions, and dimensions whose
//! product overflows although another one is zero.

use std::collections::BTreeMap;

use super::layout;
use super::names::quoted;
use super::stored::StoredType;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that say how long the header is: a little-endian number.
pub const PREFIX: usize = 8;

/// The longest header, in bytes, its length in front left out; the reference's own limit.
pub const MAX_HEADER: u64 = 100_000_000;

/// The most dimensions of a tensor: what every version of NumPy can have.
pub const MAX_RANK: usize = 32;

/// What a file says of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    tensors: Vec<TensorEntry>,
    /// Positions in `tensors`, by name.
    by_name: Vec<usize>,
    metadata: BTreeMap<String, String>,
    data_begin: u64,
}

/// What a file says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name: not empty, and without control characters.
    pub name: String,
    /// The type of its elements.
    pub dtype: StoredType,
    /// The length of each axis; none for a scalar.
    pub shape: Vec<usize>,
    /// Where its bytes begin, counted from the end of the header.
    pub begin: u64,
    /// Where they end.
    pub end: u64,
}

impl TensorEntry {
    /// Bytes that it takes.
    pub fn nbytes(&self) -> u64 {
        self.end - self.begin
    }
}

impl Header {
    /// How long the header behind the first eight bytes is, in a file of `file_length` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::UnsafeFormat`] where it is longer than [`MAX_HEADER`] or than the file.
    pub fn length(prefix: [u8; PREFIX], file_length: u64) -> Result<u64> {
        let length = u64::from_le_bytes(prefix);
        if length > MAX_HEADER {
            let hint = mistaken(prefix).map(|what| format!("; it looks like {what}")).unwrap_or_default();
            return Err(refused(format!("its header has {length} bytes, more than {MAX_HEADER}{hint}")));
        }
        let room = file_length.saturating_sub(PREFIX as u64);
        if length > room {
            return Err(refused(format!(
                "its header has {length} bytes, and only {room} follow: it is truncated"
            )));
        }
        Ok(length)
    }

    /// Reads the header of a file of `file_length` bytes from its beginning: the eight bytes in front and the header; what
    /// follows is not looked at.
    ///
    /// # Errors
    /// [`ErrorKind::UnsafeFormat`] where anything is not as the format, or the head of this file, has it.
    pub fn parse(head: &[u8], file_length: u64) -> Result<Self> {
        let Some((prefix, rest)) = head.split_first_chunk::<PREFIX>() else {
            return Err(refused(format!(
                "it has {} bytes, less than the {PREFIX} of a header's length",
                head.len()
            )));
        };
        let length = Self::length(*prefix, file_length)?;
        let text = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let Some(text) = text else {
            return Err(refused(format!("its header has {length} bytes, and only {} are here", rest.len())));
        };
        let (mut tensors, metadata) = super::json::header(text).map_err(refused)?;
        let data_begin = PREFIX as u64 + length;
        layout::check(&mut tensors, file_length - data_begin).map_err(refused)?;
        let by_name = by_name(&tensors).map_err(refused)?;
        Ok(Self { tensors, by_name, metadata, data_begin })
    }

    /// Its tensors, in the order of their bytes.
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.get(self.position(name)?)
    }

    /// Where in [`Header::tensors`] the tensor of that name stands.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        let at = self.by_name.binary_search_by(|position| self.name(*position).cmp(name)).ok()?;
        self.by_name.get(at).copied()
    }

    fn name(&self, position: usize) -> &str {
        self.tensors.get(position).map_or("", |tensor| &tensor.name)
    }

    /// What stands under `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Where in the file the first tensor begins.
    pub fn data_begin(&self) -> u64 {
        self.data_begin
    }
}

/// What a file is that often lies where weights should, by how it begins.
fn mistaken(prefix: [u8; PREFIX]) -> Option<&'static str> {
    match &prefix {
        b"version " => Some("a pointer of Git LFS: fetch the file itself"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive, such as torch.save writes"),
        [0x80, 2..=5, ..] => Some("a pickle, which is not read"),
        _ => None,
    }
}

/// Positions in the order of the names, each of which is there once.
fn by_name(tensors: &[TensorEntry]) -> std::result::Result<Vec<usize>, String> {
    let mut named: Vec<(&str, usize)> =
        tensors.iter().enumerate().map(|(position, tensor)| (tensor.name.as_str(), position)).collect();
    named.sort_unstable();
    let twice = named.iter().zip(named.iter().skip(1)).find(|(first, second)| first.0 == second.0);
    match twice {
        Some((first, _)) => Err(format!("its header has the key {} twice", quoted(first.0))),
        None => Ok(named.into_iter().map(|(_, position)| position).collect()),
    }
}

pub(super) fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsafeFormat, message)
}
