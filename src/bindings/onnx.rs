//! ONNX graphs, from Python: what they take and give, sessions to call, sessions to serve.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};
use smallvec::SmallVec;

use super::bridge::lifecycle::generation;
use super::bridge::lock;
use super::convert::{arrays, items};
use super::errors::{raised, to_python};
use super::served::{nested_texts, push_texts};
use super::waiter::SIGNAL_CHECK;
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::formats::onnx::{
    Canceler, Declared, Graph, Interface, Library, Opening, Optimization, Provider, SessionSettings, Sessions,
};
use crate::metrics::LockCounts;
use crate::tensor::{Column, ColumnSpec, Elements, Shape, Spares, TensorSpec, Texts};

/// Bytes of unused memory for rows that sessions keep, which are called and not served.
const SPARE_BYTES: usize = 16 << 20;

/// Most rows that a warm-up runs.
const MOST_ROWS: usize = 1 << 20;

/// A name, an element type and the axes of one row; nothing stands for what the graph says.
#[derive(FromPyObject)]
struct Declaration(String, Option<String>, Option<Vec<i64>>);

/// How a graph is opened, as attributes of any object.
#[derive(FromPyObject)]
pub(crate) struct Settings {
    threads: usize,
    inter_threads: usize,
    providers: Vec<(String, Vec<(String, String)>)>,
    optimization: String,
    spin: bool,
    arena: bool,
    row_by_row: bool,
    inputs: Option<Vec<Declaration>>,
    outputs: Option<Vec<Declaration>>,
    sha256: Option<String>,
    sessions: usize,
}

impl Settings {
    fn interface(&self) -> Interface {
        let declared = |all: &Option<Vec<Declaration>>| {
            let one = |Declaration(name, elements, axes): &Declaration| Declared {
                name: name.clone(),
                elements: elements.clone(),
                axes: axes.clone(),
            };
            all.as_ref().map(|all| all.iter().map(one).collect())
        };
        Interface {
            inputs: declared(&self.inputs),
            outputs: declared(&self.outputs),
            row_by_row: self.row_by_row,
        }
    }

    fn read(&self, path: &std::path::Path) -> CoreResult<Graph> {
        Graph::read(path, &self.interface(), self.sha256.as_deref())
    }

    fn session(&self) -> CoreResult<SessionSettings> {
        let providers = self.providers.iter();
        let providers =
            providers.map(|(name, options)| Provider { name: name.clone(), options: options.clone() });
        Ok(SessionSettings {
            threads: self.threads,
            inter_threads: self.inter_threads,
            providers: providers.collect(),
            optimization: Optimization::from_name(&self.optimization)?,
            spin: self.spin,
            arena: self.arena,
        })
    }
}

/// A name, an element type and the axes of one row.
type Shown = (String, &'static str, Vec<i64>);

fn shown(specs: &[TensorSpec]) -> Vec<Shown> {
    specs.iter().map(|spec| (spec.name.clone(), spec.elements.name(), spec.shown_axes())).collect()
}

/// The inputs and outputs of the graph in a file, which the library is not needed for.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, reason = "what comes from Python comes by value")]
pub(crate) fn onnx_signature(
    py: Python<'_>,
    path: PathBuf,
    settings: Settings,
) -> PyResult<(Vec<Shown>, Vec<Shown>)> {
    let read = lock::without(py, &LockCounts::new(), || settings.read(&path));
    let graph = read.map_err(|error| to_python(py, &error))?;
    let graph = graph.signature();
    Ok((shown(graph.inputs()), shown(graph.outputs())))
}

/// What the onnxruntime library's makers say of the one that is loaded.
#[pyfunction]
pub(crate) fn onnx_build_info() -> Option<&'static str> {
    Library::build_info()
}

/// Sessions of one graph.
#[pyclass(frozen, module = "penstock._native", weakref)]
pub(crate) struct NativeOnnx {
    sessions: Arc<Sessions>,
    spares: Arc<Spares>,
    born: u64,
}

impl Drop for NativeOnnx {
    fn drop(&mut self) {
        if self.born != generation() {
            // A forked child has none of the threads that the library would wait for here.
            std::mem::forget(Arc::clone(&self.sessions));
        }
    }
}

#[pymethods]
impl NativeOnnx {
    /// Opens the graph at `path` with the library at `library`, without the interpreter lock; `check` is called meanwhile,
    /// and what it raises ends the load.
    #[new]
    #[pyo3(signature = (library, path, settings, check=None))]
    fn new(
        py: Python<'_>,
        library: PathBuf,
        path: PathBuf,
        settings: Settings,
        check: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let load = Arc::<Load>::default();
        let (tell, mut told) = channel();
        let loading = Arc::clone(&load);
        let spawned = std::thread::Builder::new()
            .name("penstock-onnx-load".to_owned())
            .spawn(move || loading.run(&library, &path, &settings, &tell));
        spawned.map_err(|error| {
            let message = "no thread could be made to load a graph";
            to_python(py, &Error::with_source(ErrorKind::Internal, message, error))
        })?;
        let opened = loop {
            // Exclusive, because a receiver is for one thread at a time.
            let told = &mut told;
            match lock::without(py, &LockCounts::new(), move || told.recv_timeout(SIGNAL_CHECK)) {
                Ok(opened) => break opened,
                Err(RecvTimeoutError::Timeout) => {
                    let asked = check.map_or(Ok(()), |check| check.call0().map(drop));
                    py.check_signals().and(asked).inspect_err(|_| load.stop())?;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(raised(py, ErrorKind::Internal, "penstock panicked while it loaded a graph"));
                }
            }
        };
        let sessions = Arc::new(opened.map_err(|error| to_python(py, &error))?);
        Ok(Self { sessions, spares: Spares::new(SPARE_BYTES), born: generation() })
    }

    /// Its inputs.
    #[getter]
    fn inputs(&self) -> Vec<Shown> {
        shown(self.sessions.graph().inputs())
    }

    /// Its outputs.
    #[getter]
    fn outputs(&self) -> Vec<Shown> {
        shown(self.sessions.graph().outputs())
    }

    /// Runs that are possible at a time.
    #[getter]
    fn sessions(&self) -> usize {
        self.sessions.count()
    }

    /// About how many bytes they take: the graph's files, for each session.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.sessions.graph().size().saturating_mul(self.sessions.count() as u64)
    }

    /// Runs a batch, an array or a list of rows for each input, without the interpreter lock; gives an array for each output.
    fn run<'py>(&self, py: Python<'py>, inputs: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        self.check_generation(py)?;
        let graph = self.sessions.graph();
        for name in inputs.keys() {
            let name = name.extract::<String>()?;
            if graph.inputs().iter().all(|input| input.name != name) {
                return Err(raised(py, ErrorKind::Item, &format!("the graph has no input '{name}'")));
            }
        }
        let (mut columns, mut count) = (Vec::with_capacity(graph.inputs().len()), None);
        for spec in graph.inputs() {
            let value = inputs.get_item(&spec.name)?;
            let value = value
                .ok_or_else(|| raised(py, ErrorKind::Item, &format!("input '{}' is missing", spec.name)))?;
            let (column, rows) = self.column(spec, &value)?;
            if *count.get_or_insert(rows) != rows {
                let message = format!(
                    "input '{}' has {rows} rows, where others have {}",
                    spec.name,
                    count.unwrap_or(0)
                );
                return Err(raised(py, ErrorKind::Item, &message));
            }
            columns.push(column);
        }
        let count = count.unwrap_or(0);
        let ran = lock::without(py, &LockCounts::new(), || self.compute(&columns, count));
        self.outputs_of(py, ran.map_err(|error| to_python(py, &error))?, count)
    }

    /// Runs so many rows of zeros, or of empty texts, in every session; an open axis has the length 1.
    fn warm_up(&self, py: Python<'_>, rows: usize) -> PyResult<()> {
        self.check_generation(py)?;
        if !(1..=MOST_ROWS).contains(&rows) {
            let message = format!("a warm-up has between 1 and {MOST_ROWS} rows, not {rows}");
            return Err(raised(py, ErrorKind::Config, &message));
        }
        let warmed = lock::without(py, &LockCounts::new(), || {
            let columns: Vec<_> =
                self.sessions.graph().inputs().iter().map(|spec| self.zeros(spec, rows)).collect();
            self.sessions.run_each(&columns.iter().collect::<Vec<_>>(), 0..rows, &self.spares)
        });
        warmed.map_err(|fault| to_python(py, &fault.error))
    }

    /// Gives the sessions' memory back. Safe to call twice.
    fn close(&self, py: Python<'_>) {
        if self.born == generation() {
            lock::without(py, &LockCounts::new(), || self.sessions.close());
        }
    }
}

impl NativeOnnx {
    /// The sessions, to be served.
    ///
    /// # Errors
    /// `Closed` in a forked child.
    pub(crate) fn served(&self, py: Python<'_>) -> PyResult<Arc<Sessions>> {
        self.check_generation(py)?;
        Ok(Arc::clone(&self.sessions))
    }

    fn check_generation(&self, py: Python<'_>) -> PyResult<()> {
        if self.born == generation() {
            return Ok(());
        }
        Err(raised(py, ErrorKind::Closed, "this graph was loaded before a fork: load it again"))
    }

    fn compute(&self, columns: &[Column], count: usize) -> CoreResult<Vec<Column>> {
        let columns: Vec<_> = columns.iter().collect();
        self.sessions.run(&columns, 0..count, &self.spares).map_err(|fault| fault.error)
    }

    fn zeros(&self, spec: &TensorSpec, rows: usize) -> Column {
        let row: Shape = spec.axes.iter().map(|axis| axis.unwrap_or(1)).collect();
        let own = spec.column(&row);
        let mut column = Column::new(&own, &self.spares);
        match &mut column {
            Column::Numbers { memory, row_bytes, .. } => drop(memory.grow(rows * *row_bytes)),
            Column::Texts { texts, .. } => (0..rows * own.elements()).for_each(|_| texts.push(b"")),
            Column::Objects(_) => {}
        }
        column
    }

    /// A batch of one input as a column, and how many rows it has.
    fn column(&self, spec: &TensorSpec, value: &Bound<'_, PyAny>) -> PyResult<(Column, usize)> {
        let py = value.py();
        let Elements::Numbers(dtype) = spec.elements else { return texts(spec, value) };
        let array =
            PyModule::import(py, intern!(py, "numpy"))?.call_method1(intern!(py, "asarray"), (value,))?;
        let array = array.cast_into::<PyUntypedArray>()?;
        let fits = arrays::dtype(&array) == Some(dtype)
            && array.shape().split_first().is_some_and(|(_, row)| spec.fits(row));
        if !fits {
            return Err(misfit(py, spec, &format!("{} of shape {:?}", array.dtype(), array.shape())));
        }
        let (rows, row) = array.shape().split_first().map_or((0, [].as_slice()), |(rows, row)| (*rows, row));
        let mut column =
            Column::new(&ColumnSpec::Numbers { dtype, shape: Shape::from_slice(row) }, &self.spares);
        let array = if array.is_c_contiguous() { array.clone() } else { items::contiguous_copy(&array)? };
        if let Column::Numbers { memory, .. } = &mut column {
            arrays::with_bytes(&array, |bytes| memory.extend(bytes));
        }
        Ok((column, rows))
    }

    fn outputs_of<'py>(
        &self,
        py: Python<'py>,
        columns: Vec<Column>,
        count: usize,
    ) -> PyResult<Bound<'py, PyDict>> {
        let outputs = PyDict::new(py);
        for (spec, column) in self.sessions.graph().outputs().iter().zip(columns) {
            let array = match column {
                Column::Numbers { dtype, shape, memory, .. } => {
                    arrays::over_memory(py, dtype, &shape, count, memory)?
                }
                Column::Texts { shape, texts } => text_array(py, &texts, count, &shape)?,
                Column::Objects(_) => continue,
            };
            outputs.set_item(&spec.name, array)?;
        }
        Ok(outputs)
    }
}

/// Texts as NumPy keeps them: an array of objects.
fn text_array<'py>(
    py: Python<'py>,
    texts: &Texts,
    count: usize,
    row: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let axes: SmallVec<[usize; 5]> = std::iter::once(count).chain(row.iter().copied()).collect();
    let nested = nested_texts(py, texts, &[texts.len()], &mut 0, Elements::Text)?;
    let numpy = PyModule::import(py, intern!(py, "numpy"))?;
    let array = numpy.call_method1(intern!(py, "array"), (nested, intern!(py, "object")))?;
    array.call_method1(intern!(py, "reshape"), (axes.to_vec(),))
}

/// A batch of texts: a list of rows, or an array of texts.
fn texts(spec: &TensorSpec, value: &Bound<'_, PyAny>) -> PyResult<(Column, usize)> {
    let py = value.py();
    let numpy = PyModule::import(py, intern!(py, "numpy"))?;
    let array = numpy.call_method1(intern!(py, "array"), (value, intern!(py, "object")))?;
    let array = array.cast_into::<PyUntypedArray>()?;
    let Some((rows, row)) = array.shape().split_first().filter(|(_, row)| spec.fits(row)) else {
        return Err(misfit(py, spec, &format!("texts of shape {:?}", array.shape())));
    };
    let mut texts = Texts::default();
    let flat = array.call_method0(intern!(py, "ravel"))?;
    push_texts(spec, &flat, &[array.len()], &mut texts).map_err(|_| misfit(py, spec, "something else"))?;
    Ok((Column::Texts { shape: Shape::from_slice(row), texts }, *rows))
}

fn misfit(py: Python<'_>, spec: &TensorSpec, found: &str) -> PyErr {
    let message = format!(
        "input '{}' is {found}; the graph takes {} of shape [rows] and then {:?}",
        spec.name,
        spec.elements.name(),
        spec.shown_axes()
    );
    raised(py, ErrorKind::Item, &message)
}

/// A load on its way.
#[derive(Default)]
struct Load {
    unwanted: AtomicBool,
    canceler: OnceLock<Canceler>,
}

impl Load {
    /// Has it end as soon as it can.
    fn stop(&self) {
        self.unwanted.store(true, Ordering::SeqCst);
        self.canceler.get().map(Canceler::cancel);
    }

    fn run(
        &self,
        library: &std::path::Path,
        path: &std::path::Path,
        settings: &Settings,
        tell: &Sender<CoreResult<Sessions>>,
    ) {
        // Whoever asked may have left.
        let _ = tell.send(self.open(library, path, settings));
    }

    fn open(
        &self,
        library: &std::path::Path,
        path: &std::path::Path,
        settings: &Settings,
    ) -> CoreResult<Sessions> {
        let library = Library::load(library)?;
        let graph = Arc::new(settings.read(path)?);
        let mut opening = Opening::new(&library, &graph, &settings.session()?, settings.row_by_row)?;
        self.canceler.get_or_init(|| opening.canceler());
        let mut sessions = Vec::with_capacity(settings.sessions);
        while sessions.len() < settings.sessions.max(1) {
            if self.unwanted.load(Ordering::SeqCst) {
                let message = format!("'{}' was not wanted any more", path.display());
                return Err(Error::new(ErrorKind::LoadFailed, message));
            }
            sessions.push(opening.open()?);
        }
        Ok(Sessions::new(graph.signature(), sessions))
    }
}
