//! Weights in files, as NumPy arrays over their bytes: `penstock.safetensors` documents them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use numpy::{PyArrayDescr, PyArrayDescrMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::bridge::lock;
use super::convert::arrays::over_weights;
use super::errors::{raised, to_python};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::formats::safetensors::{
    Checksums, Found, Mode, Region, RegionKind, Settings, StoredType, Tensor, Watch, Weights,
};
use crate::metrics::LockCounts;

/// Shares of a load after each of which its progress is told.
const STEPS: u64 = 20;

/// The longest that a load goes on without telling how far it is.
const SILENCE: Duration = Duration::from_secs(1);

/// Memory that arrays of weights look at: the last of them takes it along.
#[pyclass(frozen, weakref, module = "penstock._native")]
pub(crate) struct TensorMemory(Arc<Region>);

impl TensorMemory {
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.0
    }
}

#[pymethods]
impl TensorMemory {
    /// Bytes of all of it, whatever part of them an array looks at.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.len()
    }

    /// `"mapped"`: the pages of a file. `"read"`: memory of this process.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.kind() {
            RegionKind::Mapped => "mapped",
            RegionKind::Read => "read",
        }
    }

    fn __repr__(&self) -> String {
        format!("<penstock.TensorMemory {} bytes {}>", self.nbytes(), self.kind())
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Given {
    mode: String,
    sha256: Option<Digests>,
    threads: Option<NonZeroUsize>,
}

#[derive(FromPyObject)]
pub(crate) enum Digests {
    One(String),
    Each(BTreeMap<String, String>),
}

impl From<Given> for Settings {
    fn from(given: Given) -> Self {
        let mode = match given.mode.as_str() {
            "mmap" => Mode::Map,
            "read" => Mode::Read,
            _ => Mode::Auto,
        };
        let sha256 = given.sha256.map(|digests| match digests {
            Digests::One(digest) => Checksums::One(digest),
            Digests::Each(digests) => Checksums::Each(digests),
        });
        Self { mode, threads: given.threads, sha256 }
    }
}

/// Loads tensors as arrays by name. `type_of` gives NumPy's type for a type of the format, by its name.
#[pyfunction]
pub(crate) fn load_weights<'py>(
    py: Python<'py>,
    path: PathBuf,
    settings: Given,
    names: Option<Vec<String>>,
    progress: Option<Py<PyAny>>,
    type_of: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let settings = settings.into();
    let tensors =
        watched(py, progress, move |watch| load_aligned(&path, names.as_deref(), &settings, watch))?;
    let mut made = Arrays::new(type_of);
    let arrays = PyDict::new(py);
    for tensor in &tensors {
        arrays.set_item(&tensor.name, made.array(tensor)?)?;
    }
    Ok(arrays)
}

/// Loads tensors, each where its elements may lie, and tells the end of it, also where there was nothing to read.
fn load_aligned(
    path: &Path,
    names: Option<&[String]>,
    settings: &Settings,
    watch: Watch<'_>,
) -> CoreResult<Vec<Tensor>> {
    let heard = Cell::new(None);
    let tensors = Weights::load(path, names, settings, &|done, total| {
        heard.set(Some((done, total)));
        watch(done, total)
    })?;
    let bytes = tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum();
    let (done, total) = heard.get().unwrap_or((0, bytes));
    let tensors = tensors.into_iter().map(|tensor| aligned(tensor, || watch(done, total)));
    let tensors = tensors.collect::<CoreResult<_>>()?;
    if watch(total, total) { Ok(tensors) } else { Err(unwanted()) }
}

/// Weights whose headers were read, and whose tensors are read when they are asked for.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeWeights {
    weights: Weights,
    /// One for each file that is mapped: its arrays share it.
    mapped: Vec<Py<TensorMemory>>,
}

#[pymethods]
impl NativeWeights {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, settings: Given) -> PyResult<Self> {
        let settings = settings.into();
        let (weights, regions) = watched(py, None, move |watch| {
            let weights = Weights::open(&path, &settings, watch)?;
            let regions = mapped_regions(&weights)?;
            Ok((weights, regions))
        })?;
        let mapped = regions.into_iter().map(|region| Py::new(py, TensorMemory(region)));
        Ok(Self { weights, mapped: mapped.collect::<PyResult<_>>()? })
    }

    /// Name, type, shape, bytes, file and the shape of its array, for each tensor.
    fn infos<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let info = |found: Found<'_>| {
            let entry = found.entry;
            let file = found.file.file_name().unwrap_or(found.file.as_os_str());
            let shape = PyTuple::new(py, &entry.shape)?;
            let array = PyTuple::new(py, array_shape(entry.dtype, &entry.shape))?;
            let file = file.to_string_lossy();
            (&entry.name, entry.dtype.name(), shape, entry.nbytes(), file, array).into_pyobject(py)
        };
        self.weights.tensors().map(info).collect()
    }

    /// What stands under `__metadata__`.
    fn metadata(&self) -> &BTreeMap<String, String> {
        self.weights.metadata()
    }

    /// The memory of each file that is mapped.
    fn memories(&self, py: Python<'_>) -> Vec<Py<TensorMemory>> {
        self.mapped.iter().map(|memory| memory.clone_ref(py)).collect()
    }

    /// Bytes that it takes beside its `memories`: next to nothing.
    #[classattr]
    #[pyo3(name = "nbytes")]
    const NBYTES: usize = 0;

    /// A whole tensor.
    fn array<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        type_of: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tensor = read(py, || self.weights.tensor(name))?;
        self.arrays(py, type_of).array(&tensor)
    }

    /// Rows of a tensor from `begin` to in front of `end`.
    fn rows<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        begin: usize,
        end: usize,
        type_of: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tensor = read(py, || self.weights.rows(name, begin..end))?;
        self.arrays(py, type_of).array(&tensor)
    }
}

impl NativeWeights {
    fn arrays<'a, 'py>(&self, py: Python<'py>, type_of: &'a Bound<'py, PyAny>) -> Arrays<'a, 'py> {
        let memories = self.mapped.iter().map(|memory| memory.bind(py).clone()).collect();
        Arrays { memories, ..Arrays::new(type_of) }
    }
}

/// The maps of the files, as far as they are mapped and have a tensor.
fn mapped_regions(weights: &Weights) -> CoreResult<Vec<Arc<Region>>> {
    let mut regions: Vec<Arc<Region>> = Vec::new();
    let mut last = None;
    for found in weights.tensors() {
        let name = &found.entry.name;
        if last.replace(found.file) != Some(found.file) && weights.kind(name) == Some(RegionKind::Mapped) {
            regions.push(weights.tensor(name)?.bytes.region().clone());
        }
    }
    Ok(regions)
}

/// Makes arrays, whose memory is one object of Python's for each region, and which know each type after asking once.
struct Arrays<'a, 'py> {
    type_of: &'a Bound<'py, PyAny>,
    types: HashMap<StoredType, Bound<'py, PyArrayDescr>>,
    memories: Vec<Bound<'py, TensorMemory>>,
}

impl<'a, 'py> Arrays<'a, 'py> {
    fn new(type_of: &'a Bound<'py, PyAny>) -> Self {
        Self { type_of, types: HashMap::new(), memories: Vec::new() }
    }

    fn array(&mut self, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
        let descr = self.descr(tensor.dtype)?;
        let memory = self.memory(tensor.bytes.region())?;
        let shape = array_shape(tensor.dtype, &tensor.shape);
        over_weights(&memory, &tensor.bytes, &descr, &shape).map_err(|error| {
            let (name, dtype, shape) = (&tensor.name, tensor.dtype.name(), &tensor.shape);
            let message = format!("tensor '{name}', {shape:?} of {dtype}, is no array of NumPy's: {error}");
            raised(self.type_of.py(), ErrorKind::UnsafeFormat, &message)
        })
    }

    fn descr(&mut self, stored: StoredType) -> PyResult<Bound<'py, PyArrayDescr>> {
        if let Some(descr) = self.types.get(&stored) {
            return Ok(descr.clone());
        }
        let descr = self.type_of.call1((stored.name(),))?.cast_into::<PyArrayDescr>()?;
        let bytes = usize::try_from(stored.bits().div_ceil(8)).unwrap_or(usize::MAX);
        if descr.itemsize() != bytes {
            let message = format!("{descr} does not have the {bytes} bytes of {}", stored.name());
            return Err(raised(self.type_of.py(), ErrorKind::Internal, &message));
        }
        self.types.insert(stored, descr.clone());
        Ok(descr)
    }

    fn memory(&mut self, region: &Arc<Region>) -> PyResult<Bound<'py, TensorMemory>> {
        // The last one is the likeliest: tensors come file by file.
        let known = self.memories.iter().rev().find(|memory| Arc::ptr_eq(memory.get().region(), region));
        if let Some(memory) = known {
            return Ok(memory.clone());
        }
        let memory = Bound::new(self.type_of.py(), TensorMemory(region.clone()))?;
        self.memories.push(memory.clone());
        Ok(memory)
    }
}

/// The shape of an array of a tensor. Elements that share bytes come as those bytes: along the last axis where that fills
/// whole ones, else along the only one.
fn array_shape(dtype: StoredType, shape: &[usize]) -> Vec<usize> {
    if !dtype.is_packed() {
        return shape.to_vec();
    }
    let bits = usize::try_from(dtype.bits()).unwrap_or(8);
    let bytes = |elements: usize| (elements * bits).is_multiple_of(8).then_some(elements * bits / 8);
    match shape.split_last() {
        Some((last, outer)) => match bytes(*last) {
            Some(last) => outer.iter().copied().chain([last]).collect(),
            None => vec![shape.iter().product::<usize>() * bits / 8],
        },
        None => vec![bits.div_ceil(8)],
    }
}

/// The tensor where its elements may lie; copied where they do not, as long as it `is_wanted`.
fn aligned(mut tensor: Tensor, is_wanted: impl FnOnce() -> bool) -> CoreResult<Tensor> {
    if !tensor.bytes.is_aligned(tensor.dtype.alignment()) {
        if !is_wanted() {
            return Err(unwanted());
        }
        tensor.bytes = tensor.bytes.aligned_copy()?;
    }
    Ok(tensor)
}

/// Reads a tensor without the interpreter lock.
fn read(py: Python<'_>, read: impl Send + FnOnce() -> CoreResult<Tensor>) -> PyResult<Tensor> {
    let read = lock::without(py, &LockCounts::new(), || aligned(read()?, || true));
    read.map_err(|error| to_python(py, &error))
}

fn unwanted() -> Error {
    Error::new(ErrorKind::LoadFailed, "the load is no longer wanted")
}

/// Runs `work` without the interpreter lock, telling `progress` how far it is, and ends it where that raises or where a
/// signal's handler does, as that of Ctrl-C.
fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl Send + FnOnce(Watch<'_>) -> CoreResult<T>,
) -> PyResult<T> {
    let (done, teller) = lock::without(py, &LockCounts::new(), || {
        let teller = RefCell::new(Teller::new(progress));
        let done = work(&|done, total| teller.borrow_mut().hear(done, total));
        (done, teller.into_inner())
    });
    match teller.failure {
        Some(failure) => Err(failure),
        None => done.map_err(|error| to_python(py, &error)),
    }
}

/// Tells Python how far a load is: after each of [`STEPS`], and from time to time in between.
struct Teller {
    progress: Option<Py<PyAny>>,
    failure: Option<PyErr>,
    step: u64,
    told: Instant,
}

impl Teller {
    fn new(progress: Option<Py<PyAny>>) -> Self {
        Self { progress, failure: None, step: 0, told: Instant::now() }
    }

    /// False where the load is to end.
    fn hear(&mut self, done: u64, total: u64) -> bool {
        let step = done.saturating_mul(STEPS).checked_div(total).unwrap_or(STEPS);
        let due = step > self.step || self.told.elapsed() >= SILENCE;
        let progress = self.progress.as_ref().filter(|_| due);
        let looked = lock::within(|py| {
            py.check_signals()?;
            progress.map_or(Ok(()), |progress| progress.call1(py, (done, total)).map(drop))
        });
        if due {
            self.step = step;
            self.told = Instant::now();
        }
        match looked {
            Some(Ok(())) => true,
            Some(Err(failure)) => {
                self.failure = Some(failure);
                false
            }
            None => false,
        }
    }
}
