//! A served model's worker: batches come from a door, and go back to it as columns.

use std::sync::Arc;

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyModule, PyString};

use super::bridge::lock;
use super::convert::assemble::{Input, NextCall};
use super::convert::{arrays, items};
use super::core::Counters;
use super::deadline::BatchDeadline;
use super::errors;
use super::records;
use super::run::{Filled, Fillers, Form, Job};
use super::scope::BatchScope;
use super::steps::{Answering, Run};
use super::visitors::Visitors;
use super::waiter::Failure;
use crate::batch::{Entry, Ran, Shift, Turn};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::pipeline::{self, AnswerRow, BatchAccount, Endpoint, Finished, ModelSpec, Reply, Said};
use crate::tensor::{Column, DType, Elements, Rows, Shape, Spares, TensorSpec, Texts};

/// One worker thread's side of a served model; as `Worker`.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct ServedWorker {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    function: Py<PyAny>,
    counters: Arc<Counters>,
    isolate: bool,
    fillers: Fillers,
    /// Requests that a batch may have at a time, where the model is a generator and they come and go.
    largest_live: Option<usize>,
    taken: Mutex<Option<Taken>>,
}

struct Taken {
    job: Job<Answering<Columns>>,
    entries: Vec<Entry<Reply>>,
    account: BatchAccount,
}

impl ServedWorker {
    pub(crate) fn new(
        (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
        function: Py<PyAny>,
        counters: Arc<Counters>,
        isolate: bool,
        fillers: Fillers,
        largest_live: Option<usize>,
    ) -> Self {
        Self { endpoint, shift, function, counters, isolate, fillers, largest_live, taken: Mutex::new(None) }
    }

    fn take(&self, py: Python<'_>) -> Option<Taken> {
        let endpoint = &self.endpoint;
        if self.shift.is_over() {
            // It waited for the lock meanwhile: the batch is the next load's.
            return None;
        }
        let (batch, mut account) = endpoint.take()?;
        if self.largest_live.is_some() {
            account.trace.open();
        }
        let count = batch.entries.len();
        let columns = Columns::new(&endpoint.spec, endpoint.spares());
        let input = columns.input(py, batch.rows, count, self.isolate);
        let (form, entries) = match self.largest_live {
            None => (Answering::Whole(columns), batch.entries),
            Some(largest) => {
                let ends = (Arc::clone(endpoint), Arc::clone(&self.shift));
                let visitors = Visitors::new(ends, columns, batch.group, batch.entries, account.clone());
                let lengths = account.cut.lengths.clone();
                (Answering::Steps(Run::new(Box::new(visitors), largest, lengths)), Vec::new())
            }
        };
        let filled = Filled::of(&account.cut, self.fillers);
        let job = Job::new(form, None, input, filled, self.isolate, count);
        Some(Taken { job, entries, account })
    }
}

#[pymethods]
impl ServedWorker {
    /// Gives the interpreter lock back until there is a batch; false where none will come any more.
    fn wait(&self, py: Python<'_>) -> bool {
        let endpoint = &self.endpoint;
        while lock::without(py, &endpoint.locks, || endpoint.wait_in(&self.shift)) == Turn::Work {
            let taken = self.take(py);
            if taken.is_some() {
                *self.taken.lock() = taken;
                return true;
            }
        }
        false
    }

    /// As `Worker.deadline`.
    fn deadline(&self) -> Option<BatchDeadline> {
        let at = self.taken.lock().as_ref()?.account.deadline;
        BatchDeadline::of(self.endpoint.clock(), at)
    }

    /// Whose batch it is, where there is anything to say.
    fn scope(&self) -> Option<BatchScope> {
        BatchScope::of(&self.taken.lock().as_ref()?.account)
    }

    /// The function and the arguments of its next call, or `None` where the batch is done and its answers are on their way.
    fn next<'py>(&self, py: Python<'py>) -> Option<NextCall<'py>> {
        let mut taken = self.taken.lock().take()?;
        let next = taken.job.next(py, &self.counters);
        if next.is_some() {
            taken.account.call();
            *self.taken.lock() = Some(taken);
        } else {
            records::close(&mut taken.account, taken.job.busy(), taken.job.reruns());
            let ran = taken.job.ran();
            // As long as its requests wanted it to take: that says nothing of the next batch.
            let (rows, ran) = taken.job.into_answers(py).map_or((Vec::new(), Ran::Unknown), |rows| {
                (rows.into_iter().map(|row| row.map(Said::Row)).collect(), ran)
            });
            self.endpoint.finish(Finished { entries: taken.entries, rows, account: taken.account, ran });
        }
        next.map(|(arguments, keywords)| (self.function.clone_ref(py), arguments, keywords))
    }

    /// Takes what the model returned.
    fn returned(&self, value: &Bound<'_, PyAny>) {
        let taken = self.taken.lock().take();
        if let Some(mut taken) = taken {
            taken.job.returned(value, &self.counters);
            *self.taken.lock() = Some(taken);
        }
    }

    /// Takes what the model raised.
    fn raised(&self, error: Bound<'_, PyAny>) {
        let taken = self.taken.lock().take();
        if let Some(mut taken) = taken {
            let py = error.py();
            taken.job.raised(py, PyErr::from_value(error), &self.counters);
            *self.taken.lock() = Some(taken);
        }
    }
}

pub(super) fn nested_texts<'py>(
    py: Python<'py>,
    texts: &Texts,
    axes: &[usize],
    next: &mut usize,
    elements: Elements,
) -> PyResult<Bound<'py, PyAny>> {
    let Some((length, inner)) = axes.split_first() else {
        let bytes = texts.get(*next).unwrap_or_default();
        *next += 1;
        return Ok(match elements {
            Elements::Bytes => PyBytes::new(py, bytes).into_any(),
            _ => PyString::new(py, &String::from_utf8_lossy(bytes)).into_any(),
        });
    };
    let parts = (0..*length).map(|_| nested_texts(py, texts, inner, next, elements));
    Ok(PyList::new(py, parts.collect::<PyResult<Vec<_>>>()?)?.into_any())
}

/// Answers for a door: columns in the core's own memory.
pub(crate) struct Columns {
    spec: Arc<ModelSpec>,
    spares: Arc<Spares>,
}

impl Form for Columns {
    type Answers = Vec<CoreResult<AnswerRow>>;

    fn split(&self, returned: &Bound<'_, PyAny>, count: usize) -> PyResult<Self::Answers> {
        let mut refusals = Refusals { of_row: vec![None; count], kept: count };
        let outputs = &self.spec.outputs;
        let mut values = Vec::with_capacity(outputs.len());
        for spec in outputs {
            let value = self.output(returned, spec)?;
            refusals.note(&value)?;
            values.push(value);
        }
        if refusals.kept == 0 {
            // No row is left that outputs could be made of.
            return Ok(refusals.of_row.into_iter().flatten().map(Err).collect());
        }
        let columns = outputs.iter().zip(values).map(|(spec, value)| match spec.elements {
            Elements::Numbers(dtype) => self.numbers(spec, dtype, &value, &refusals),
            Elements::Text | Elements::Bytes => texts(spec, &value, &refusals),
        });
        let columns = Arc::new(columns.collect::<PyResult<Vec<_>>>()?);
        let mut rows = 0..;
        let answer = |refusal: Option<Error>| match (refusal, &mut rows) {
            (Some(error), _) => Err(error),
            (None, rows) => Ok(AnswerRow::new(Arc::clone(&columns), rows.next().unwrap_or_default())),
        };
        Ok(refusals.of_row.into_iter().map(answer).collect())
    }

    fn cut_back(&self, mut answers: Self::Answers, lengths: &[u32], longest: usize) -> Self::Answers {
        pipeline::cut_back(&self.spec, &mut answers, lengths, longest, &self.spares);
        answers
    }

    fn fail(&self, py: Python<'_>, error: PyErr, count: usize) -> Self::Answers {
        let failure = Failure::of(py, error);
        // What was refused, or ended because its server closes, is no failure of the model.
        if !matches!(failure.kind, ErrorKind::Item | ErrorKind::Closed) {
            report(py, &failure);
        }
        (0..count).map(|_| Err(Error::new(failure.kind, failure.message.clone()))).collect()
    }

    fn join(&self, _py: Python<'_>, mut first: Self::Answers, second: Self::Answers) -> Self::Answers {
        first.extend(second);
        first
    }
}

impl Columns {
    pub(crate) fn new(spec: &Arc<ModelSpec>, spares: &Arc<Spares>) -> Self {
        Self { spec: Arc::clone(spec), spares: Arc::clone(spares) }
    }

    /// The columns of a batch that came through a door; `repeatable` keeps what it takes to run parts of it again.
    pub(crate) fn input(
        &self,
        py: Python<'_>,
        rows: Rows,
        count: usize,
        repeatable: bool,
    ) -> PyResult<Input> {
        let no_objects = |_| None;
        let texts = |at: usize, texts: &Texts, row: &[usize]| {
            let elements = self.spec.inputs.get(at).map_or(Elements::Bytes, |input| input.elements);
            let axes: Shape = std::iter::once(&count).chain(row).copied().collect();
            nested_texts(py, texts, &axes, &mut 0, elements).map(Bound::unbind)
        };
        Input::new(py, rows, count, &self.spares, repeatable, no_objects, texts)
    }

    /// A job for `count` rows that came through a door.
    pub(crate) fn job(
        self,
        py: Python<'_>,
        rows: Rows,
        count: usize,
        filled: Filled,
        isolate: bool,
    ) -> Job<Self> {
        let input = self.input(py, rows, count, isolate);
        Job::new(self, None, input, filled, isolate, count)
    }

    fn output<'py>(&self, returned: &Bound<'py, PyAny>, spec: &TensorSpec) -> PyResult<Bound<'py, PyAny>> {
        let py = returned.py();
        match returned.cast::<PyDict>() {
            Ok(outputs) => outputs.get_item(&spec.name)?.ok_or_else(|| {
                wrong(py, &format!("the model returned no output '{}', only {}", spec.name, outputs.keys()))
            }),
            Err(_) if self.spec.outputs.len() == 1 => Ok(returned.clone()),
            Err(_) => Err(wrong(
                py,
                &format!(
                    "the model returned a {} where a dict of {} outputs was expected",
                    returned.get_type(),
                    self.spec.outputs.len()
                ),
            )),
        }
    }

    fn numbers(
        &self,
        spec: &TensorSpec,
        dtype: DType,
        value: &Bound<'_, PyAny>,
        refusals: &Refusals,
    ) -> PyResult<Column> {
        let py = value.py();
        let array = match value.cast::<PyUntypedArray>() {
            Ok(array) => refusals.without_rows(array)?,
            Err(_) => rows_to_array(spec, &refusals.without_items(value)?)?,
        };
        let row = array.shape().get(1..).unwrap_or_default();
        let counted = array.shape().first() == Some(&refusals.kept);
        if arrays::dtype(&array) != Some(dtype) || !counted || !spec.fits(row) {
            return Err(wrong(
                py,
                &format!(
                    "output '{}' is {} of shape {:?}; the model declares {} of shape [{}] and then {:?}",
                    spec.name,
                    array.dtype(),
                    array.shape(),
                    dtype.name(),
                    refusals.kept,
                    spec.shown_axes()
                ),
            ));
        }
        let shape = Shape::from_slice(row);
        let array = if array.is_c_contiguous() { array } else { items::contiguous_copy(&array)? };
        let mut memory = self.spares.memory();
        arrays::with_bytes(&array, |bytes| memory.extend(bytes));
        let row_bytes = shape.iter().product::<usize>() * dtype.size();
        Ok(Column::Numbers { dtype, shape, row_bytes, memory })
    }
}

/// Requests of a batch that the model refused one by one.
struct Refusals {
    of_row: Vec<Option<Error>>,
    /// Requests that were not refused.
    kept: usize,
}

impl Refusals {
    /// Notes every `ItemError` in a list of rows.
    fn note(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(list) = value.cast::<PyList>() else { return Ok(()) };
        let refusal = errors::class(value.py(), ErrorKind::Item)?;
        if list.len() != self.of_row.len() {
            return Ok(());
        }
        for (row, place) in list.iter().zip(&mut self.of_row) {
            if row.is_instance(&refusal)? {
                self.kept -= usize::from(place.is_none());
                *place = Some(Error::new(ErrorKind::Item, row.str()?.to_string()));
            }
        }
        Ok(())
    }

    /// The rows of a list whose requests were not refused.
    fn without_items<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match value.cast::<PyList>() {
            Ok(list) if self.kept < self.of_row.len() && list.len() == self.of_row.len() => {
                let rows = list.iter().zip(&self.of_row).filter(|(_, place)| place.is_none());
                let kept = rows.map(|(row, _)| row).collect::<Vec<_>>();
                Ok(PyList::new(value.py(), kept)?.into_any())
            }
            _ => Ok(value.clone()),
        }
    }

    /// The rows of an array whose requests were not refused.
    fn without_rows<'py>(&self, array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyUntypedArray>> {
        if self.kept == self.of_row.len() || array.shape().first() != Some(&self.of_row.len()) {
            return Ok(array.clone());
        }
        let kept: Vec<usize> =
            self.of_row.iter().enumerate().filter(|(_, place)| place.is_none()).map(|(at, _)| at).collect();
        Ok(array.get_item(PyList::new(array.py(), kept)?)?.cast_into::<PyUntypedArray>()?)
    }
}

/// A list of rows as an array of the declared type; a value that this type cannot hold exactly in kind is refused.
fn rows_to_array<'py>(spec: &TensorSpec, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = value.py();
    let numpy = PyModule::import(py, intern!(py, "numpy"))?;
    let made = numpy.call_method1(intern!(py, "asarray"), (value,)).and_then(|array| {
        let options = PyDict::new(py);
        options.set_item("casting", "same_kind")?;
        array.call_method("astype", (spec.elements.name(),), Some(&options))
    });
    let array = made.map_err(|error| {
        wrong(py, &format!("output '{}' could not become {}: {error}", spec.name, spec.elements.name()))
    })?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

fn texts(spec: &TensorSpec, value: &Bound<'_, PyAny>, refusals: &Refusals) -> PyResult<Column> {
    let py = value.py();
    let mut texts = Texts::default();
    let value = refusals.without_items(value)?;
    let rows =
        value.try_iter().map_err(|_| wrong(py, &format!("output '{}' is no list of rows", spec.name)))?;
    let mut rows = rows.collect::<PyResult<Vec<_>>>()?;
    if rows.len() == refusals.of_row.len() {
        let mut places = refusals.of_row.iter();
        rows.retain(|_| places.next().is_none_or(Option::is_none));
    }
    if rows.len() != refusals.kept {
        let message =
            format!("output '{}' has {} rows for a batch of {}", spec.name, rows.len(), refusals.kept);
        return Err(wrong(py, &message));
    }
    let shape = rows.first().map_or_else(|| Ok(Shape::new()), |row| shape_of(spec, row))?;
    for row in &rows {
        push_texts(spec, row, &shape, &mut texts)?;
    }
    Ok(Column::Texts { shape, texts })
}

/// The axes of a row: as declared, and where any length is, as this row has it.
fn shape_of(spec: &TensorSpec, row: &Bound<'_, PyAny>) -> PyResult<Shape> {
    let mut shape = Shape::new();
    let mut inner = row.clone();
    for axis in &spec.axes {
        let length = inner.len().unwrap_or(0);
        shape.push(axis.unwrap_or(length));
        if length > 0 {
            inner = inner.get_item(0)?;
        }
    }
    Ok(shape)
}

pub(super) fn push_texts(
    spec: &TensorSpec,
    value: &Bound<'_, PyAny>,
    axes: &[usize],
    texts: &mut Texts,
) -> PyResult<()> {
    let py = value.py();
    let misfit = || wrong(py, &format!("output '{}' does not fit its declared strings and shape", spec.name));
    let Some((length, inner)) = axes.split_first() else {
        if let Ok(text) = value.cast::<PyString>() {
            texts.push(text.to_cow()?.as_bytes());
        } else if let Ok(bytes) = value.cast::<PyBytes>() {
            if spec.elements == Elements::Text && std::str::from_utf8(bytes.as_bytes()).is_err() {
                let message = format!(
                    "output '{}' is declared as strings and holds bytes that are not utf-8",
                    spec.name
                );
                return Err(wrong(py, &message));
            }
            texts.push(bytes.as_bytes());
        } else {
            return Err(misfit());
        }
        return Ok(());
    };
    let parts = value.try_iter().map_err(|_| misfit())?.collect::<PyResult<Vec<_>>>()?;
    if parts.len() != *length {
        return Err(misfit());
    }
    parts.iter().try_for_each(|part| push_texts(spec, part, inner, texts))
}

/// The server's log is where the traceback goes: a caller sees the message only.
fn report(py: Python<'_>, failure: &Failure) {
    let logged = (|| {
        let logger = PyModule::import(py, "logging")?.call_method1("getLogger", ("penstock.server",))?;
        let options = PyDict::new(py);
        if let Some(cause) = &failure.cause {
            options.set_item("exc_info", cause)?;
        }
        logger.call_method("error", ("a batch failed: %s", &failure.message), Some(&options))
    })();
    if let Err(error) = logged {
        error.write_unraisable(py, None);
    }
}

fn wrong(py: Python<'_>, message: &str) -> PyErr {
    errors::raised(py, ErrorKind::Output, message)
}
