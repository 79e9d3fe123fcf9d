//! How weights are read.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// Where the bytes of the tensors lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Mapped where nobody can shorten the file while it is mapped, else read: see [`super::may_map`].
    #[default]
    Auto,
    /// Mapped: the pages of the file itself, shared with whoever else maps it. Who shortens a mapped file ends every process
    /// that looks at what is gone, with a SIGBUS.
    Map,
    /// Read into memory of this process.
    Read,
}

/// How weights are read.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the bytes lie.
    pub mode: Mode,
    /// How many threads read; as many as suit the machine where none is said.
    pub threads: Option<NonZeroUsize>,
    /// The digests that the files must have.
    pub sha256: Option<Checksums>,
}

/// SHA-256 digests (FIPS 180-4) that files must have, 64 hexadecimal digits each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksums {
    /// Of the one file that there is.
    One(String),
    /// By file name. Every file of the weights must be in it; their index may be.
    Each(BTreeMap<String, String>),
}
