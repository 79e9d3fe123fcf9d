//! Memory that two processes share: a file without a name, which grows as batches do.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Bytes that are kept for the next batch; what a larger one took is given back.
const KEPT_BYTES: u64 = 64 << 20;

/// Shared memory, read and written at offsets.
#[derive(Debug)]
pub struct SharedMemory {
    file: File,
}

impl SharedMemory {
    /// Empty memory.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new() -> io::Result<Self> {
        nameless().map(|file| Self { file })
    }

    /// The same memory in the other process, by the descriptor that came over a socket.
    pub fn received(descriptor: OwnedFd) -> Self {
        Self { file: File::from(descriptor) }
    }

    /// Writes `bytes` at `at`; the memory grows where it has to.
    ///
    /// # Errors
    /// What the operating system says, mostly that no memory is left.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Fills `bytes` from `at`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the memory ends before.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    /// True where it has no bytes, or cannot say.
    pub fn is_empty(&self) -> bool {
        self.len().unwrap_or_default() == 0
    }

    /// Gives back what a large batch took. Nobody may be about to read it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn shrink(&self) -> io::Result<()> {
        if self.len()? > KEPT_BYTES { self.file.set_len(0) } else { Ok(()) }
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(target_os = "linux")]
fn nameless() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(File::from(memfd_create("penstock-batch", MemfdFlags::CLOEXEC)?))
}

#[cfg(not(target_os = "linux"))]
fn nameless() -> io::Result<File> {
    let name = format!("penstock-{}-{}", std::process::id(), fastrand::u64(..));
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
