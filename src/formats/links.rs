//! What the files of a model may be links to.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// True where a file of the model in `home` may lie at `real`; both are paths without links.
///
/// A link may lead to a file in the same directory or below. There is one other that it may lead to: in the cache of
/// Hugging Face's hub, `models--*/snapshots/<revision>` holds links to `models--*/blobs`, and to nothing else.
pub(super) fn may_hold(home: &Path, real: &Path) -> bool {
    real.starts_with(home) || hub(home).is_some_and(|blobs| real.parent() == Some(&blobs))
}

/// Where the files of a snapshot in the hub's cache lie.
fn hub(directory: &Path) -> Option<PathBuf> {
    let repository = directory.ancestors().find(|above| {
        let name = above.file_name().and_then(OsStr::to_str).unwrap_or_default();
        ["models--", "datasets--", "spaces--"].iter().any(|kind| name.starts_with(kind))
    })?;
    directory.starts_with(repository.join("snapshots")).then(|| repository.join("blobs"))
}
