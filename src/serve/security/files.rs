//! Files that are read again whenever they have changed.
//!
//! What they hold is compared, not when they were written: mounted secrets change behind links, and a copy may keep its
//! date. They are small.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of a file at most.
const LARGEST: u64 = 1 << 20;

/// Something that is made of what files hold.
pub(super) trait Made: Sized {
    /// What names the files.
    type Source;

    /// The files, in the order in which [`make`](Self::make) gets what they hold.
    fn files(source: &Self::Source) -> Vec<&Path>;

    /// Makes it; `anew` where another one is in force meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the files do not hold what they should.
    fn make(source: &Self::Source, held: &[Vec<u8>], anew: bool) -> Result<Self>;
}

/// What is in force, and where it comes from.
pub(super) struct Fresh<T: Made> {
    source: T::Source,
    held: ArcSwap<T>,
    /// The hash of what was read, the last time that it could be used; whoever reads holds this.
    seen: Mutex<[u8; 32]>,
}

impl<T: Made> Fresh<T> {
    pub(super) fn open(source: T::Source) -> Result<Self> {
        let read = read_all::<T>(&source)?;
        let held = T::make(&source, &read, false)?;
        Ok(Self { seen: Mutex::new(hash(&read)), held: ArcSwap::from_pointee(held), source })
    }

    /// What is in force now.
    pub(super) fn held(&self) -> Guard<Arc<T>> {
        self.held.load()
    }

    pub(super) fn source(&self) -> &T::Source {
        &self.source
    }

    /// Reads the files, and takes up what they hold where that is not what they held before.
    pub(super) fn reload(&self) -> Result<bool> {
        let mut seen = self.seen.lock();
        let read = read_all::<T>(&self.source)?;
        let hash = hash(&read);
        if *seen == hash {
            return Ok(false);
        }
        self.held.store(Arc::new(T::make(&self.source, &read, true)?));
        *seen = hash;
        Ok(true)
    }
}

fn read_all<T: Made>(source: &T::Source) -> Result<Vec<Vec<u8>>> {
    T::files(source).into_iter().map(read).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut held = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut held));
    match read {
        Ok(_) if held.len() as u64 > LARGEST => {
            Err(Error::new(ErrorKind::Config, format!("{} is larger than {LARGEST} bytes", path.display())))
        }
        Ok(_) => Ok(held),
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            Err(Error::with_source(ErrorKind::Config, message, error))
        }
    }
}

fn hash(read: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for held in read {
        hash.update((held.len() as u64).to_le_bytes());
        hash.update(held);
    }
    hash.finalize().into()
}
