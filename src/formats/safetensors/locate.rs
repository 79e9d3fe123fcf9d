//! Which files a path stands for, and that none of them lies elsewhere.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::names::quoted;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::links::may_hold;

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// One file of tensors.
    File(PathBuf),
    /// An index of several.
    Index(PathBuf),
}

/// Finds the file that `path` is, or that stands in the directory that it is: the one `*.safetensors.index.json`, else the one
/// `*.safetensors`. Names with a dot in front are not looked at.
pub(super) fn locate(path: &Path) -> Result<Located> {
    let facts = fs::metadata(path).map_err(|cause| unreadable(path, cause))?;
    if !facts.is_dir() {
        return Ok(located(path.to_owned()));
    }
    let names = names(path).map_err(|cause| unreadable(path, cause))?;
    let ending =
        |ending: &str| -> Vec<&String> { names.iter().filter(|name| name.ends_with(ending)).collect() };
    for candidates in [ending(".safetensors.index.json"), ending(".safetensors")] {
        match candidates.as_slice() {
            [] => {}
            [only] => {
                let found = path.join(only);
                inside(path, only)?;
                return Ok(located(found));
            }
            several => return Err(ambiguous(path, several)),
        }
    }
    Err(Error::new(
        ErrorKind::LoadFailed,
        format!("'{}' holds no *.safetensors and no *.safetensors.index.json", path.display()),
    ))
}

fn located(path: PathBuf) -> Located {
    if path.extension() == Some(OsStr::new("json")) { Located::Index(path) } else { Located::File(path) }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    names.sort();
    Ok(names)
}

fn ambiguous(path: &Path, candidates: &[&String]) -> Error {
    let shown: Vec<_> = candidates.iter().take(3).map(|name| quoted(name)).collect();
    Error::new(
        ErrorKind::Config,
        format!(
            "'{}' holds {} files that could be meant ({}, …): name one",
            path.display(),
            candidates.len(),
            shown.join(", ")
        ),
    )
}

/// The file of that name in a directory, by the path that it really has.
pub(super) fn inside(directory: &Path, name: &str) -> Result<PathBuf> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let named = directory.join(name);
    let home = fs::canonicalize(directory).map_err(|cause| unreadable(directory, cause))?;
    let real = fs::canonicalize(&named).map_err(|cause| unreadable(&named, cause))?;
    if may_hold(&home, &real) {
        return Ok(real);
    }
    Err(Error::new(
        ErrorKind::PathEscape,
        format!("'{}' leads out of its directory, to '{}'", named.display(), real.display()),
    ))
}

pub(super) fn unreadable(path: &Path, cause: io::Error) -> Error {
    Error::with_source(
        ErrorKind::LoadFailed,
        format!("'{}' cannot be read: {}", path.display(), cause.to_string().to_lowercase()),
        cause,
    )
}
