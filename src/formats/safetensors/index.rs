//! The index of weights that lie in several files: which tensor is in which.

use std::collections::{BTreeMap, BTreeSet};

use super::header::{Header, refused};
use super::json;
use super::names::quoted;
use crate::error::{Error, ErrorKind, Result};

/// The longest index, in bytes: as long as the longest header.
pub const MAX_INDEX: u64 = super::header::MAX_HEADER;

/// The most files that an index may name: each is held open.
pub const MAX_FILES: usize = 1000;

/// The longest name of a file, in bytes.
const MAX_NAME: usize = 255;

/// What an index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    files: BTreeMap<String, String>,
}

impl Index {
    /// Reads an index: an object whose `weight_map` gives the file of each tensor. Whatever else is in it is not looked at, but
    /// no key may stand twice in one object.
    ///
    /// A file is named as such, without a directory: it ends in `.safetensors`, does not begin with a dot and holds none
    /// of `/`, `\`, `:` and control characters.
    ///
    /// # Errors
    /// [`ErrorKind::PathEscape`] where a name of a file could lead out of the directory; [`ErrorKind::UnsafeFormat`] where
    /// anything else is not so.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.len() as u64 > MAX_INDEX {
            return Err(refused(format!("the index has {} bytes, more than {MAX_INDEX}", text.len())));
        }
        let files = json::weight_map(text).map_err(refused)?;
        if files.is_empty() {
            return Err(refused("the index names no tensor"));
        }
        let index = Self { files };
        let count = index.files().len();
        if count > MAX_FILES {
            return Err(refused(format!("the index names {count} files, more than {MAX_FILES}")));
        }
        index.files().into_iter().try_for_each(check_name)?;
        Ok(index)
    }

    /// The file of each tensor.
    pub fn weight_map(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    /// The names of the files, in order.
    pub fn files(&self) -> BTreeSet<&str> {
        self.files.values().map(String::as_str).collect()
    }

    /// Makes sure that the file of that name holds the tensors that the index says, and no other.
    ///
    /// # Errors
    /// [`ErrorKind::UnsafeFormat`] where it does not.
    pub fn check(&self, file: &str, header: &Header) -> Result<()> {
        for tensor in header.tensors() {
            let found = self.files.get(&tensor.name);
            if found.is_none_or(|found| found != file) {
                let name = quoted(&tensor.name);
                let said = found.map_or("nowhere".to_owned(), |found| format!("in {}", quoted(found)));
                return Err(refused(format!("it holds tensor {name}, which is {said} by the index")));
            }
        }
        let missing = self.files.iter().find(|(name, home)| *home == file && header.get(name).is_none());
        match missing {
            Some((name, _)) => Err(refused(format!(
                "it does not hold tensor {}, which the index says it does",
                quoted(name)
            ))),
            None => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let shown = quoted(name);
    let outward = |letter: char| matches!(letter, '/' | '\\' | ':') || letter.is_control();
    if name.starts_with('.') || name.contains(outward) {
        return Err(Error::new(
            ErrorKind::PathEscape,
            format!("the index names the file {shown}, which is no plain name in its own directory"),
        ));
    }
    if !name.ends_with(".safetensors") || name.len() > MAX_NAME {
        return Err(refused(format!(
            "the index names the file {shown}, which does not end in .safetensors or is longer than {MAX_NAME} bytes"
        )));
    }
    Ok(())
}
