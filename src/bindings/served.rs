//! A served model's worker: batches come from a door, and go back to it as columns.

use std::sync::Arc;

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyModule, PyString};

use super::bridge::lock;
use super::convert::arrays;
use super::convert::assemble::Leaves;
use super::core::Counters;
use super::errors;
use super::run::{Call, Form};
use super::waiter::Failure;
use crate::batch::{Batch, Turn};
use crate::error::{Error, ErrorKind, Result as CoreResult};
use crate::pipeline::{AnswerRow, Endpoint, Finished, Reply};
use crate::tensor::{Column, Elements, Shape, Spares, TensorSpec, Texts};

/// What a worker thread of a served model runs.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct ServedWorker {
    endpoint: Arc<Endpoint>,
    function: Py<PyAny>,
    counters: Arc<Counters>,
}

impl ServedWorker {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        function: Py<PyAny>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            endpoint,
            function,
            counters,
        }
    }
}

#[pymethods]
impl ServedWorker {
    /// Runs batches until the endpoint closes.
    fn run(&self, py: Python<'_>) {
        let endpoint = &self.endpoint;
        while lock::without(py, &endpoint.locks, || endpoint.wait()) == Turn::Work {
            if let Some(batch) = endpoint.take() {
                self.run_batch(py, batch);
            }
        }
    }
}

impl ServedWorker {
    fn run_batch(&self, py: Python<'_>, batch: Batch<(), Reply>) {
        let spec = &self.endpoint.spec;
        let count = batch.entries.len();
        let form = Columns {
            outputs: &spec.outputs,
            spares: self.endpoint.spares(),
        };
        let call = Call {
            function: &self.function,
            counters: &self.counters,
            isolate: true,
            form: &form,
        };
        let rows = match inputs(py, &spec.inputs, batch.rows.into_columns(), count) {
            Ok(leaves) => call.batch(py, &None, &leaves, count),
            Err(error) => form.fail(py, error, count),
        };
        self.endpoint.finish(Finished {
            entries: batch.entries,
            rows,
        });
    }
}

/// A batch's columns as what the model is given: one tuple, unpacked on Python's side.
fn inputs<'py>(
    py: Python<'py>,
    specs: &[TensorSpec],
    columns: impl IntoIterator<Item = Column>,
    count: usize,
) -> PyResult<Leaves<'py>> {
    let input = |(spec, column): (&TensorSpec, Column)| match column {
        Column::Numbers {
            dtype,
            shape,
            memory,
            ..
        } => arrays::over_memory(py, dtype, &shape, count, memory),
        Column::Texts { shape, texts } => {
            let mut axes = vec![count];
            axes.extend_from_slice(&shape);
            nested_texts(py, &texts, &axes, &mut 0, spec.elements)
        }
        Column::Objects(_) => Err(errors::raised(
            py,
            ErrorKind::Internal,
            "no objects come through a door",
        )),
    };
    specs.iter().zip(columns).map(input).collect()
}

fn nested_texts<'py>(
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
struct Columns<'a> {
    outputs: &'a [TensorSpec],
    spares: &'a Arc<Spares>,
}

impl Form for Columns<'_> {
    type Answers = Vec<CoreResult<AnswerRow>>;

    fn split(&self, returned: Bound<'_, PyAny>, count: usize) -> PyResult<Self::Answers> {
        let py = returned.py();
        let mut refused: Vec<Option<Error>> = vec![None; count];
        let mut columns = Vec::with_capacity(self.outputs.len());
        for spec in self.outputs {
            let value = self.output(&returned, spec)?;
            let value = without_refusals(value, count, &mut refused)?;
            columns.push((spec, value));
        }
        let good = refused.iter().filter(|refusal| refusal.is_none()).count();
        let columns = columns
            .into_iter()
            .map(|(spec, value)| self.column(py, spec, value, &refused, good))
            .collect::<PyResult<Vec<_>>>()?;
        let columns = Arc::new(columns);
        let mut row = 0;
        let answers = refused.into_iter().map(|refusal| match refusal {
            Some(error) => Err(error),
            None => {
                row += 1;
                Ok(AnswerRow {
                    columns: Arc::clone(&columns),
                    row: row - 1,
                })
            }
        });
        Ok(answers.collect())
    }

    fn fail(&self, py: Python<'_>, error: PyErr, count: usize) -> Self::Answers {
        let failure = Failure::of(py, error);
        if failure.kind != ErrorKind::Item {
            report(py, &failure);
        }
        (0..count)
            .map(|_| Err(Error::new(failure.kind, failure.message.clone())))
            .collect()
    }

    fn join(
        &self,
        _py: Python<'_>,
        mut first: Self::Answers,
        second: Self::Answers,
    ) -> Self::Answers {
        first.extend(second);
        first
    }
}

impl Columns<'_> {
    fn output<'py>(
        &self,
        returned: &Bound<'py, PyAny>,
        spec: &TensorSpec,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = returned.py();
        match returned.cast::<PyDict>() {
            Ok(outputs) => outputs.get_item(&spec.name)?.ok_or_else(|| {
                wrong(
                    py,
                    &format!(
                        "the model returned no output '{}', only {}",
                        spec.name,
                        outputs.keys()
                    ),
                )
            }),
            Err(_) if self.outputs.len() == 1 => Ok(returned.clone()),
            Err(_) => Err(wrong(
                py,
                &format!(
                    "the model returned a {} where a dict of {} outputs was expected",
                    returned.get_type(),
                    self.outputs.len()
                ),
            )),
        }
    }

    fn column(
        &self,
        py: Python<'_>,
        spec: &TensorSpec,
        value: Bound<'_, PyAny>,
        refused: &[Option<Error>],
        good: usize,
    ) -> PyResult<Column> {
        match spec.elements {
            Elements::Numbers(_) => self.numbers(py, spec, value, refused, good),
            Elements::Text | Elements::Bytes => texts(py, spec, &value, refused, good),
        }
    }

    fn numbers(
        &self,
        py: Python<'_>,
        spec: &TensorSpec,
        value: Bound<'_, PyAny>,
        refused: &[Option<Error>],
        good: usize,
    ) -> PyResult<Column> {
        let numpy = PyModule::import(py, intern!(py, "numpy"))?;
        let array = match value.cast::<PyUntypedArray>() {
            Ok(array) => array.clone(),
            Err(_) => rows_to_array(&numpy, spec, &value)?,
        };
        let array = if good < refused.len() && array.shape().first() == Some(&refused.len()) {
            let kept: Vec<bool> = refused.iter().map(Option::is_none).collect();
            array
                .get_item(PyList::new(py, kept)?)?
                .cast_into::<PyUntypedArray>()?
        } else {
            array
        };
        let dtype = arrays::dtype(&array);
        let (rows, row_shape) = array
            .shape()
            .split_first()
            .map_or((None, &[][..]), |(n, row)| (Some(*n), row));
        let expected = match spec.elements {
            Elements::Numbers(dtype) => dtype,
            _ => return Err(wrong(py, "numbers were expected")),
        };
        if dtype != Some(expected) || rows != Some(good) || !spec.fits(row_shape) {
            return Err(wrong(
                py,
                &format!(
                    "output '{}' is {} of shape {:?}; the model declares {} of shape [{good}] and then {:?}",
                    spec.name,
                    array.dtype(),
                    array.shape(),
                    expected.name(),
                    spec.shown_axes()
                ),
            ));
        }
        let shape = Shape::from_slice(row_shape);
        let array = if array.is_c_contiguous() {
            array
        } else {
            numpy
                .call_method1(intern!(py, "ascontiguousarray"), (array,))?
                .cast_into::<PyUntypedArray>()?
        };
        let mut memory = self.spares.memory();
        arrays::with_bytes(&array, |bytes| memory.extend(bytes));
        let row_bytes = shape.iter().product::<usize>() * expected.size();
        Ok(Column::Numbers {
            dtype: expected,
            shape,
            row_bytes,
            memory,
        })
    }
}

/// A list of rows as an array of the declared type; a value that this type cannot hold exactly in kind is refused.
fn rows_to_array<'py>(
    numpy: &Bound<'py, PyModule>,
    spec: &TensorSpec,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = value.py();
    let made = numpy
        .call_method1(intern!(py, "asarray"), (value,))
        .and_then(|array| {
            let options = PyDict::new(py);
            options.set_item("casting", "same_kind")?;
            array.call_method("astype", (spec.elements.name(),), Some(&options))
        });
    let array = made.map_err(|error| {
        wrong(
            py,
            &format!(
                "output '{}' could not become {}: {error}",
                spec.name,
                spec.elements.name()
            ),
        )
    })?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// Takes refusals out of a list of rows and notes whose they are.
fn without_refusals<'py>(
    value: Bound<'py, PyAny>,
    count: usize,
    refused: &mut [Option<Error>],
) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let Ok(list) = value.cast::<PyList>() else {
        return Ok(value);
    };
    let refusal = errors::class(py, ErrorKind::Item)?;
    if list.len() != count {
        return Ok(value);
    }
    let kept = PyList::empty(py);
    for (row, place) in list.iter().zip(refused) {
        if row.is_instance(&refusal)? {
            *place = Some(Error::new(ErrorKind::Item, row.str()?.to_string()));
        } else {
            kept.append(row)?;
        }
    }
    Ok(kept.into_any())
}

fn texts(
    py: Python<'_>,
    spec: &TensorSpec,
    value: &Bound<'_, PyAny>,
    refused: &[Option<Error>],
    good: usize,
) -> PyResult<Column> {
    let mut texts = Texts::default();
    let shape: Shape = spec.axes.iter().map(|axis| axis.unwrap_or(1)).collect();
    let rows = value
        .try_iter()
        .map_err(|_| wrong(py, &format!("output '{}' is no list of rows", spec.name)))?;
    let rows = rows.collect::<PyResult<Vec<_>>>()?;
    if rows.len() != good && rows.len() != refused.len() {
        return Err(wrong(
            py,
            &format!(
                "output '{}' has {} rows for a batch of {good}",
                spec.name,
                rows.len()
            ),
        ));
    }
    let all = rows.len() == refused.len();
    for (at, row) in rows.iter().enumerate() {
        if !all || refused.get(at).is_none_or(Option::is_none) {
            push_texts(spec, row, &shape, &mut texts)?;
        }
    }
    Ok(Column::Texts { shape, texts })
}

fn push_texts(
    spec: &TensorSpec,
    value: &Bound<'_, PyAny>,
    axes: &[usize],
    texts: &mut Texts,
) -> PyResult<()> {
    let py = value.py();
    let misfit = || {
        wrong(
            py,
            &format!(
                "output '{}' does not fit its declared strings and shape",
                spec.name
            ),
        )
    };
    let Some((length, inner)) = axes.split_first() else {
        if let Ok(text) = value.cast::<PyString>() {
            texts.push(text.to_cow()?.as_bytes());
        } else if let Ok(bytes) = value.cast::<PyBytes>() {
            texts.push(bytes.as_bytes());
        } else {
            return Err(misfit());
        }
        return Ok(());
    };
    let parts = value
        .try_iter()
        .map_err(|_| misfit())?
        .collect::<PyResult<Vec<_>>>()?;
    if parts.len() != *length {
        return Err(misfit());
    }
    parts
        .iter()
        .try_for_each(|part| push_texts(spec, part, inner, texts))
}

/// The server's log is where the traceback goes: a caller sees the message only.
fn report(py: Python<'_>, failure: &Failure) {
    let logged = (|| {
        let logger =
            PyModule::import(py, "logging")?.call_method1("getLogger", ("penstock.server",))?;
        let options = PyDict::new(py);
        if let Some(cause) = &failure.cause {
            options.set_item("exc_info", cause)?;
        }
        logger.call_method(
            "error",
            ("a batch failed: %s", &failure.message),
            Some(&options),
        )
    })();
    if let Err(error) = logged {
        error.write_unraisable(py, None);
    }
}

fn wrong(py: Python<'_>, message: &str) -> PyErr {
    errors::raised(py, ErrorKind::Output, message)
}
