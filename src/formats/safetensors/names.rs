//! Names of tensors and of files: what they may be, and how a message shows them.

use std::path::Path;

use crate::error::Error;

/// The most letters of a name that a message shows.
const SHOWN: usize = 120;

/// A name as a message shows it: in quotes, without control characters, and not endless.
pub(super) fn quoted(name: &str) -> String {
    let shown: String = name.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    let rest = if name.chars().nth(SHOWN).is_some() { "…" } else { "" };
    format!("'{shown}{rest}'")
}

/// Why a tensor may not be called so; nothing where it may.
pub(super) fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("a tensor has an empty name");
    }
    name.chars().any(char::is_control).then_some("the name of a tensor has a control character")
}

/// An error that says which file it is about.
pub(super) fn in_file(path: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format!("'{}': {}", path.display(), error.message()))
}
