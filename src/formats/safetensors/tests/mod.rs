//! What is refused, what is read, and that both are so for whatever stands in a file.

mod files;
mod header;
mod index;
mod random;
mod reference;

use std::path::PathBuf;

use super::*;
use crate::error::{Error, ErrorKind};

/// One tensor as tests write it: name, type, shape, bytes.
type Written<'a> = (&'a str, &'a str, &'a [usize], &'a [u8]);

/// A file with that header, and that behind it.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), data].concat()
}

/// A file as the format wants it, without padding.
fn written(tensors: &[Written<'_>]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let (begin, end) = (data.len(), data.len() + bytes.len());
        let name = serde_json::to_string(name).unwrap();
        entries.push(format!(
            r#"{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
        data.extend_from_slice(bytes);
    }
    with_header(&format!("{{{}}}", entries.join(",")), &data)
}

fn parsed(file: &[u8]) -> Result<Header, Error> {
    Header::parse(file, file.len() as u64)
}

/// Makes sure that a file is refused, for a reason that says so.
#[track_caller]
fn assert_refused(file: &[u8], reason: &str) {
    let error = parsed(file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeFormat);
    assert!(error.message().contains(reason), "{} does not say '{reason}'", error.message());
}

/// A directory with files of those names and contents.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, contents) in files {
            folder.write(name, contents);
        }
        folder
    }

    fn write(&self, name: &str, contents: &[u8]) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), contents).unwrap();
    }

    fn link(&self, target: &str, name: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn reading() -> Settings {
    Settings { mode: Mode::Read, ..Settings::default() }
}

fn mapping() -> Settings {
    Settings { mode: Mode::Map, ..Settings::default() }
}

fn unwatched(_: u64, _: u64) -> bool {
    true
}
