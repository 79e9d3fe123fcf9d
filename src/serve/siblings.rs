//! Several processes behind one port: whichever of them is asked for metrics answers for all.
//!
//! Each listens on a Unix socket of its own in a directory that they share. Whoever connects there gets the text of its
//! metrics, and the end of the stream after it.

use std::fs::File;
use std::os::unix::fs::FileExt;
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
    shares: Option<Shares>,
}

/// How many connections each process has, in a file: four bytes for each, at the place that its name says. Whoever wakes
/// first for a burst of connections would take them all otherwise.
#[derive(Debug)]
struct Shares {
    file: File,
    place: usize,
}

/// Places in the file at most; a name beyond it, or one that is no number, does not take part.
const PLACES: usize = 256;
const FILE: &str = "connections";

impl Shares {
    fn join(directory: &Path, name: &str) -> Option<Self> {
        let place = name.parse().ok().filter(|place| *place < PLACES)?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        Some(Self { file: options.open(directory.join(FILE)).ok()?, place })
    }

    /// Says how many this process has: one more, for 0 stands for a place that is empty.
    fn publish(&self, connections: usize) {
        let count = u32::try_from(connections).unwrap_or(u32::MAX).saturating_add(1);
        // A share that is out of date costs balance, nothing else.
        let _ = self.file.write_at(&count.to_ne_bytes(), self.place as u64 * 4);
    }

    /// The fewest that another process has.
    fn fewest_elsewhere(&self) -> Option<usize> {
        let mut bytes = [0; PLACES * 4];
        let read = self.file.read_at(&mut bytes, 0).ok()?;
        let places = bytes.get(..read)?.chunks_exact(4).enumerate();
        let others = places.filter(|(place, _)| *place != self.place);
        let counts = others.map(|(_, count)| count.try_into().map_or(0, u32::from_ne_bytes));
        counts.filter(|count| *count > 0).min().map(|count| count as usize - 1)
    }
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
        let shares = Shares::join(directory, name);
        if let Some(shares) = &shares {
            shares.publish(0);
        }
        Ok(Self { directory: directory.to_owned(), name: name.to_owned(), shares })
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

    /// Tells the others how many connections are open here.
    pub(super) fn publish(&self, connections: usize) {
        if let Some(shares) = &self.shares {
            shares.publish(connections);
        }
    }

    /// True where that many connections are more than another process should be left behind with.
    pub(super) fn is_ahead(&self, connections: usize) -> bool {
        let fewest = self.shares.as_ref().and_then(Shares::fewest_elsewhere);
        fewest.is_some_and(|fewest| connections > fewest + 1 + fewest / 16)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("penstock-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn who_has_more_connections_than_another_is_ahead() {
        let directory = directory("shares");
        let join = |name| Shares::join(&directory, name).unwrap();
        let (first, second) = (join("0"), join("5"));
        assert_eq!(first.fewest_elsewhere(), None, "nobody else has said a word");
        second.publish(3);
        join("7").publish(9);
        assert_eq!(first.fewest_elsewhere(), Some(3));
        assert_eq!(second.fewest_elsewhere(), Some(9), "its own do not count");
        let here = Siblings { directory: directory.clone(), name: "0".to_owned(), shares: Some(first) };
        assert!(!here.is_ahead(4));
        assert!(here.is_ahead(5));
        second.publish(160);
        join("7").publish(160);
        assert!(!here.is_ahead(171), "a few more of many are no matter");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_name_that_is_no_place_takes_no_part() {
        let directory = directory("places");
        assert!(Shares::join(&directory, "256").is_none());
        assert!(Shares::join(&directory, "first").is_none());
        let here = Siblings { directory: directory.clone(), name: "first".to_owned(), shares: None };
        assert!(!here.is_ahead(1_000));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
