//! Hostile files of weights, kept as files: each is read or refused as its name says, and nothing breaks.
//!
//! A file is named `<verdict>-<what>`: `ok`, `bad`, or, for an index that names files elsewhere, `escape`. The fuzz targets
//! begin with the same files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use penstock::error::{Error, ErrorKind};
use penstock::formats::safetensors::{Header, Index};

/// Reads the files of a folder and gives how many got which verdict, which is the one of their names.
fn replay(folder: &str, read: &dyn Fn(&[u8]) -> Result<(), Error>) -> BTreeMap<String, usize> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/safetensors").join(folder);
    let mut counts = BTreeMap::new();
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let (expected, _) = name.split_once('-').unwrap();
        let verdict = match read(&fs::read(&file).unwrap()).map_err(|error| error.kind()) {
            Ok(()) => "ok",
            Err(ErrorKind::UnsafeFormat) => "bad",
            Err(ErrorKind::PathEscape) => "escape",
            Err(other) => panic!("{name}: {other:?}"),
        };
        assert_eq!(verdict, expected, "{name}");
        *counts.entry(verdict.to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn headers_get_their_verdicts() {
    let counts = replay("header", &|file| Header::parse(file, file.len() as u64).map(drop));
    assert!(counts["ok"] > 30 && counts["bad"] > 40, "{counts:?}");
}

#[test]
fn indexes_get_their_verdicts() {
    let counts = replay("index", &|text| Index::parse(text).map(drop));
    assert!(counts["ok"] > 3 && counts["bad"] > 12 && counts["escape"] > 7, "{counts:?}");
}
