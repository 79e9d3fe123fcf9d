//! Weights: the tensors of one file, or of the files that an index names.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::digest::{self, Digest};
use super::header::TensorEntry;
use super::index::{Index, MAX_INDEX};
use super::locate::{Located, inside, locate, unreadable};
use super::mapping::may_map;
use super::names::{in_file, quoted};
use super::place::{Run, pieces};
use super::region::{Region, RegionKind, Span};
use super::settings::{Mode, Settings};
use super::source::{Links, Source, read_small};
use super::stored::StoredType;
use super::work::{self, Job};
use crate::error::{Error, ErrorKind, Result};

/// Is told the bytes that are done and all that there are, on the thread that called, a few times a second however long nothing
/// moves, and once at the end; false where the work is no longer wanted. What is mapped is no work.
pub type Watch<'a> = &'a dyn Fn(u64, u64) -> bool;

/// One tensor that was loaded.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: StoredType,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// Its bytes, little-endian, in the order of C. In a map they may begin anywhere; read ones begin where their elements may.
    pub bytes: Span,
}

/// What is known of one tensor before it is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its name, type, shape and place.
    pub entry: &'a TensorEntry,
    /// The file that it is in.
    pub file: &'a Path,
}

/// Weights that are open: their headers were read and checked, their tensors are read when they are asked for.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    pub(super) files: Vec<Volume>,
    /// Which of several files each tensor is in.
    homes: BTreeMap<String, usize>,
    metadata: BTreeMap<String, String>,
    pub(super) settings: Settings,
}

/// One file, and how its bytes are had.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) source: Source,
    /// Its header with the eight bytes in front, where its digest is wanted.
    pub(super) head: Vec<u8>,
    pub(super) digest: Option<Digest>,
    /// None where they are read.
    pub(super) map: Option<Arc<Region>>,
}

impl Weights {
    /// Opens a safetensors file, an index (`*.index.json`), or a directory with one `*.safetensors.index.json` or else one
    /// `*.safetensors`. Where digests are given, every file is read to its end and compared, which is what `watch` hears of.
    ///
    /// # Errors
    /// [`ErrorKind::UnsafeFormat`]: a file is not what the format says, or not what the index says of it.
    /// [`ErrorKind::PathEscape`]: a name or a link leads out of the directory. [`ErrorKind::ChecksumMismatch`]: a file has another
    /// digest. [`ErrorKind::LoadFailed`]: a file is missing, cannot be read, changed while it was read, or `watch` said false.
    /// [`ErrorKind::Config`]: the settings fit neither the files nor one another. [`ErrorKind::Capacity`]: no memory.
    pub fn open(path: &Path, settings: &Settings, watch: Watch<'_>) -> Result<Self> {
        let mut weights = Self::gather(path, settings)?;
        let expected: Vec<_> =
            weights.files.iter().filter_map(|volume| Some((volume, volume.digest?))).collect();
        let found: Vec<_> = expected.iter().map(|_| Mutex::new(None)).collect();
        let volumes = expected.iter().map(|(volume, _)| volume).zip(&found);
        let jobs = volumes.map(|(volume, digest)| Job::Sum { source: &volume.source, digest }).collect();
        work::run(jobs, settings.threads, watch)?;
        for ((volume, expected), found) in expected.iter().zip(found) {
            volume.compare(*expected, found.into_inner())?;
        }
        weights.check_in_place()?;
        weights.files.iter_mut().for_each(|volume| volume.head = Vec::new());
        Ok(weights)
    }

    /// Opens weights and loads the tensors of those names, or all of them: in the order of their bytes, or of the names, each
    /// once. What is read of a file lies in one region, which each of its tensors keeps. Of files that have none of the names
    /// no digest is compared.
    ///
    /// # Errors
    /// As [`Weights::open`]; [`ErrorKind::Config`] where there is no tensor of a name.
    pub fn load(
        path: &Path,
        names: Option<&[String]>,
        settings: &Settings,
        watch: Watch<'_>,
    ) -> Result<Vec<Tensor>> {
        Self::gather(path, settings)?.load_all(names, watch)
    }

    /// Opens the files and reads their headers.
    fn gather(path: &Path, settings: &Settings) -> Result<Self> {
        let located = locate(path)?;
        let ((files, homes), index) = match &located {
            Located::File(file) => ((vec![Source::open(file, file, Links::Follow)?], BTreeMap::new()), None),
            Located::Index(index) => (shards(index, settings)?, Some(last_part(index))),
        };
        let names: Vec<String> = files.iter().map(|(source, _)| last_part(source.path())).collect();
        let mut digests = digest::expected(settings.sha256.as_ref(), &names, index.as_deref())?;
        let bind = |((source, head), name): ((Source, Vec<u8>), &String)| {
            let digest = digests.remove(name);
            let map = map(&source, settings.mode)?;
            let head = if digest.is_some() { head } else { Vec::new() };
            Ok(Volume { source, head, digest, map })
        };
        let files = files.into_iter().zip(&names).map(bind).collect::<Result<Vec<Volume>>>()?;
        let mut metadata = BTreeMap::new();
        for (key, value) in files.iter().flat_map(|volume| volume.source.header().metadata()) {
            metadata.entry(key.clone()).or_insert_with(|| value.clone());
        }
        Ok(Self { path: path.to_owned(), files, homes, metadata, settings: settings.clone() })
    }

    pub(super) fn check_in_place(&self) -> Result<()> {
        self.files.iter().try_for_each(|volume| volume.source.check_in_place())
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.files.iter().map(|volume| volume.source.header().tensors().len()).sum()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all tensors.
    pub fn nbytes(&self) -> u64 {
        self.tensors().map(|found| found.entry.nbytes()).sum()
    }

    /// Every tensor, in the order of the files' names and of the bytes in each.
    pub fn tensors(&self) -> impl Iterator<Item = Found<'_>> {
        self.files.iter().flat_map(|Volume { source, .. }| {
            source.header().tensors().iter().map(|entry| Found { entry, file: source.path() })
        })
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<Found<'_>> {
        let (_, volume, entry) = self.find(name)?;
        Some(Found { entry, file: volume.source.path() })
    }

    /// What stands under `__metadata__`; of several files, what the first by name says under each key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// How the tensor of that name is held: mapped, or read when it is asked for.
    pub fn kind(&self, name: &str) -> Option<RegionKind> {
        let (_, volume, _) = self.find(name)?;
        Some(if volume.map.is_some() { RegionKind::Mapped } else { RegionKind::Read })
    }

    /// The tensor of that name: a span of its file's map, or read into a region of its own.
    ///
    /// # Errors
    /// [`ErrorKind::LoadFailed`]: its file cannot be read, or changed. [`ErrorKind::Capacity`]: no memory.
    /// [`ErrorKind::Config`]: there is no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let (_, volume, entry) = self.wanted(name)?;
        let bytes = self.span(volume, entry.begin, entry.nbytes())?;
        Ok(Tensor { name: entry.name.clone(), dtype: entry.dtype, shape: entry.shape.clone(), bytes })
    }

    /// Rows of the first axis of a tensor; its shape has their number in place of the axis' length. Only their bytes are read. In
    /// a region of their own they begin at a cache line.
    ///
    /// # Errors
    /// As [`Weights::tensor`]; [`ErrorKind::Config`] where it has no such rows, or where rows share a byte (4 and 6 bit types).
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        let (_, volume, entry) = self.wanted(name)?;
        let (first, nbytes) = row_bytes(entry, &rows)?;
        let bytes = self.span(volume, entry.begin + first, nbytes)?;
        let mut shape = entry.shape.clone();
        if let Some(length) = shape.first_mut() {
            *length = rows.len();
        }
        Ok(Tensor { name: entry.name.clone(), dtype: entry.dtype, shape, bytes })
    }

    /// Where a tensor is: the file's position, the file, and what its header says.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &Volume, &TensorEntry)> {
        let home = if self.homes.is_empty() { 0 } else { *self.homes.get(name)? };
        let volume = self.files.get(home)?;
        Some((home, volume, volume.source.header().get(name)?))
    }

    pub(super) fn wanted(&self, name: &str) -> Result<(usize, &Volume, &TensorEntry)> {
        self.find(name).ok_or_else(|| {
            let message = format!("'{}' has no tensor {}", self.path.display(), quoted(name));
            Error::new(ErrorKind::Config, message)
        })
    }

    fn span(&self, volume: &Volume, from: u64, nbytes: u64) -> Result<Span> {
        if let Some(map) = &volume.map {
            return volume.mapped(map, from, nbytes);
        }
        let length = usize::try_from(nbytes).map_err(|_| oversized(nbytes))?;
        let mut region = Region::zeroed(length)?;
        let fill = |piece| Job::Fill { source: &volume.source, piece, hashing: None };
        let pieces = pieces(&[Run { from, to: 0, length }], region.as_mut_slice());
        work::run(pieces.into_iter().map(fill).collect(), self.settings.threads, &|_, _| true)?;
        volume.source.check_unchanged()?;
        Span::new(Arc::new(region), 0, length).ok_or_else(|| oversized(nbytes))
    }
}

impl Volume {
    /// Bytes of its map, counted from the end of the header.
    pub(super) fn mapped(&self, map: &Arc<Region>, from: u64, nbytes: u64) -> Result<Span> {
        let offset = usize::try_from(self.source.header().data_begin() + from).ok();
        let span = offset.zip(usize::try_from(nbytes).ok());
        span.and_then(|(offset, length)| Span::new(Arc::clone(map), offset, length))
            .ok_or_else(|| oversized(nbytes))
    }

    /// Makes sure that the digest is there and the one that it must be.
    pub(super) fn compare(&self, expected: Digest, found: Option<Digest>) -> Result<()> {
        let message = || format!("'{}' was not read to its end", self.source.path().display());
        let found = found.ok_or_else(|| Error::new(ErrorKind::Internal, message()))?;
        found.check(expected, self.source.path())
    }
}

type Shards = (Vec<(Source, Vec<u8>)>, BTreeMap<String, usize>);

/// Opens the files that an index names, and compares them with it.
fn shards(path: &Path, settings: &Settings) -> Result<Shards> {
    let text = read_small(path, MAX_INDEX)?;
    let index = Index::parse(&text).map_err(|error| in_file(path, &error))?;
    digest::check_index(&text, settings.sha256.as_ref(), path)?;
    let names = index.files();
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::with_capacity(names.len());
    let mut homes = BTreeMap::new();
    for (at, name) in names.into_iter().enumerate() {
        let shown = directory.join(name);
        let (source, head) = Source::open(&shown, &inside(directory, name)?, Links::Refuse)?;
        index.check(name, source.header()).map_err(|error| in_file(&shown, &error))?;
        homes.extend(source.header().tensors().iter().map(|tensor| (tensor.name.clone(), at)));
        files.push((source, head));
    }
    Ok((files, homes))
}

fn map(source: &Source, mode: Mode) -> Result<Option<Arc<Region>>> {
    let mapped = || {
        let length = usize::try_from(source.length()).map_err(std::io::Error::other)?;
        Region::map(source.file(), length).map(Arc::new)
    };
    match mode {
        Mode::Map => mapped().map(Some).map_err(|cause| unreadable(source.path(), cause)),
        Mode::Auto if may_map(source.file()) => Ok(mapped().ok()),
        Mode::Auto | Mode::Read => Ok(None),
    }
}

/// Where rows of a tensor begin, counted from its first byte, and how many bytes they have.
fn row_bytes(entry: &TensorEntry, rows: &Range<usize>) -> Result<(u64, u64)> {
    let refuse =
        |why: String| Err(Error::new(ErrorKind::Config, format!("tensor {} {why}", quoted(&entry.name))));
    let Some(length) = entry.shape.first() else {
        return refuse("has no axis, so no rows".to_owned());
    };
    if rows.start > rows.end || rows.end > *length {
        return refuse(format!("has {length} rows, and {} to {} were asked for", rows.start, rows.end));
    }
    let bits = (entry.nbytes() * 8).checked_div(*length as u64).unwrap_or_default();
    if !bits.is_multiple_of(8) {
        return refuse(format!("has rows of {bits} bits, which share bytes"));
    }
    Ok((rows.start as u64 * (bits / 8), rows.len() as u64 * (bits / 8)))
}

/// The name of a file, without its directory.
pub(super) fn last_part(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

pub(super) fn oversized(nbytes: u64) -> Error {
    Error::new(ErrorKind::Capacity, format!("no memory for {nbytes} bytes of weights"))
}
