//! Several processes behind one port: whichever of them is asked for metrics answers for all.
//!
//! Each listens on a Unix socket of its own in a directory that they share. Whoever connects there gets the text of its
//! metrics, and the end of the stream after it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;

use super::Door;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics;

/// A sibling that has not answered by then is left out.
const PATIENCE: Duration = Duration::from_secs(1);

const SUFFIX: &str = "sock";

/// The processes that share a port with this one.
#[derive(Debug)]
pub struct Siblings {
    directory: PathBuf,
    name: String,
}

impl Siblings {
    /// Joins those whose sockets are in `directory`, as `name`; answers for `door` there until it is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where no socket can be made there.
    pub(super) fn join(directory: &Path, name: &str, door: Weak<Door>, runtime: &Handle) -> Result<Self> {
        let path = directory.join(name).with_extension(SUFFIX);
        // What is left of a process of that name which died.
        let _ = std::fs::remove_file(&path);
        let unusable = |error: std::io::Error| {
            let message = format!("no socket can be made at {}: {error}", path.display());
            Error::with_source(ErrorKind::Config, message, error)
        };
        let _inside = runtime.enter();
        let listener = UnixListener::bind(&path).map_err(unusable)?;
        drop(runtime.spawn(answer(listener, door)));
        Ok(Self { directory: directory.to_owned(), name: name.to_owned() })
    }

    /// The metrics of all: `own` and those of every sibling that answers, each labelled with its worker's name.
    pub(super) async fn merged(&self, own: String) -> String {
        let mut texts = vec![(self.name.clone(), own)];
        for name in self.others() {
            let path = self.directory.join(&name).with_extension(SUFFIX);
            if let Ok(Ok(text)) = tokio::time::timeout(PATIENCE, ask(&path)).await {
                texts.push((name, text));
            }
        }
        texts.sort();
        metrics::merge(&texts).text
    }

    fn others(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let sockets = paths.filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX));
        let names = sockets.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        names.filter(|name| *name != self.name).collect()
    }
}

async fn answer(listener: UnixListener, door: Weak<Door>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let Some(text) = door.upgrade().map(|door| door.metrics_text()) else {
            return;
        };
        // A sibling that left meanwhile wants no answer.
        let _ = tokio::time::timeout(PATIENCE, stream.write_all(text.as_bytes())).await;
    }
}

async fn ask(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    UnixStream::connect(path).await?.read_to_string(&mut text).await?;
    Ok(text)
}

impl Door {
    /// Shares metrics with the processes whose sockets are in `directory`, as worker `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where no socket can be made there, or where it shares them already.
    pub fn join_siblings(self: &Arc<Self>, directory: &Path, name: &str, runtime: &Handle) -> Result<()> {
        let siblings = Siblings::join(directory, name, Arc::downgrade(self), runtime)?;
        self.siblings
            .set(siblings)
            .map_err(|_| Error::new(ErrorKind::Config, "this door shares its metrics already"))
    }
}
