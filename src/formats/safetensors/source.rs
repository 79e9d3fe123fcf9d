//! One file of tensors: open, its header read and checked, and what tells whether it is still the same.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::header::{Header, PREFIX, refused};
use super::locate::unreadable;
use super::names::in_file;
use crate::error::{Error, ErrorKind, Result};

/// A file of tensors that is open.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user, or the index, named it.
    path: PathBuf,
    file: File,
    identity: Identity,
    header: Header,
}

/// What changes with the contents of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(facts: &Metadata) -> Self {
        Self {
            device: facts.dev(),
            inode: facts.ino(),
            length: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
        }
    }
}

impl Source {
    /// Opens the file at `real`, which messages call `path`, and reads its header; gives the header's bytes, too.
    pub(super) fn open(path: &Path, real: &Path, links: Links) -> Result<(Self, Vec<u8>)> {
        let (file, facts) = open(real, links).map_err(|cause| unreadable(path, cause))?;
        let identity = Identity::of(&facts);
        if !facts.is_file() {
            return Err(in_file(path, &refused("it is no regular file")));
        }
        let head = read_head(&file, identity.length).map_err(|fault| fault.at(path))?;
        let header = Header::parse(&head, identity.length).map_err(|error| in_file(path, &error))?;
        Ok((Self { path: path.to_owned(), file, identity, header }, head))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn length(&self) -> u64 {
        self.identity.length
    }

    /// Fills `memory` from the byte at `offset` on.
    pub(super) fn read(&self, memory: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(memory, offset).map_err(|cause| lost(&self.path, cause))
    }

    /// Makes sure that the file that is open is as it was.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|cause| unreadable(&self.path, cause))?;
        if Identity::of(&now) == self.identity { Ok(()) } else { Err(changed(&self.path)) }
    }

    /// Makes sure, too, that its path still leads to it.
    pub(super) fn check_in_place(&self) -> Result<()> {
        self.check_unchanged()?;
        let now = fs::metadata(&self.path).map_err(|cause| unreadable(&self.path, cause))?;
        if Identity::of(&now) == self.identity { Ok(()) } else { Err(changed(&self.path)) }
    }
}

/// Whether the last part of a path may be a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// It is followed: the user named it.
    Follow,
    /// It was followed before, and is one no longer.
    Refuse,
}

/// Opens without waiting, which a pipe of that name would have it do.
fn open(path: &Path, links: Links) -> io::Result<(File, Metadata)> {
    let nofollow = if links == Links::Refuse { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = (OFlags::NONBLOCK | nofollow).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let facts = file.metadata()?;
    Ok((file, facts))
}

/// The whole of a small file, such as an index.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, facts) = open(path, Links::Follow).map_err(|cause| unreadable(path, cause))?;
    if !facts.is_file() || facts.len() > limit {
        let fault = refused(format!("it is no regular file of at most {limit} bytes"));
        return Err(in_file(path, &fault));
    }
    let mut text = vec![0; usize::try_from(facts.len()).unwrap_or_default()];
    file.read_exact_at(&mut text, 0).map_err(|cause| lost(path, cause))?;
    Ok(text)
}

/// Why a header could not be had.
enum Fault {
    Refused(Error),
    Lost(io::Error),
}

impl Fault {
    fn at(self, path: &Path) -> Error {
        match self {
            Self::Refused(error) => in_file(path, &error),
            Self::Lost(cause) => lost(path, cause),
        }
    }
}

/// The first bytes of a file, up to the end of its header.
fn read_head(file: &File, length: u64) -> std::result::Result<Vec<u8>, Fault> {
    let mut prefix = [0; PREFIX];
    if length < PREFIX as u64 {
        let message =
            format!("it has {length} bytes, less than the {PREFIX} of a header's length: it is truncated");
        return Err(Fault::Refused(refused(message)));
    }
    file.read_exact_at(&mut prefix, 0).map_err(Fault::Lost)?;
    let text = Header::length(prefix, length).map_err(Fault::Refused)?;
    let mut head = vec![0; PREFIX + usize::try_from(text).unwrap_or_default()];
    file.read_exact_at(&mut head, 0).map_err(Fault::Lost)?;
    Ok(head)
}

fn lost(path: &Path, cause: io::Error) -> Error {
    if cause.kind() == io::ErrorKind::UnexpectedEof {
        let message = format!("'{}' became shorter while it was read", path.display());
        return Error::with_source(ErrorKind::LoadFailed, message, cause);
    }
    unreadable(path, cause)
}

fn changed(path: &Path) -> Error {
    Error::new(ErrorKind::LoadFailed, format!("'{}' changed while it was read", path.display()))
}
