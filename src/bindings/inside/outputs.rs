//! Answers as Python sees them: arrays of their own memory, made in the thread that asked.

use std::sync::Arc;
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::batch::Parts;
use crate::bindings::bridge::port::Reply;
use crate::bindings::convert::arrays;
use crate::bindings::errors::to_python;
use crate::error::{Error, Result as CoreResult};
use crate::pipeline::{AnswerRow, Answered, ModelSpec};
use crate::serve::Timing;
use crate::tensor::{Column, Elements, TensorSpec};

/// What comes of a request.
pub(crate) struct Inferred {
    pub(crate) spec: Arc<ModelSpec>,
    /// What its sender calls it.
    pub(crate) id: Option<Arc<str>>,
    /// The numbers of the outputs that are wanted; none for all.
    pub(crate) wanted: Option<Vec<usize>>,
    pub(crate) answer: CoreResult<(Answered, Timing)>,
}

impl Inferred {
    /// The failure of a request of which nothing else is known.
    pub(crate) fn failed(error: Error) -> Self {
        let spec = ModelSpec {
            name: String::new(),
            version: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            task: crate::pipeline::Task::Tensors,
        };
        Self { spec: Arc::new(spec), id: None, wanted: None, answer: Err(error) }
    }

    /// The model's name, its version, the id, the outputs as [`outputs`] has them, and where the time went.
    pub(crate) fn object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let (answered, timing) = self.answer.map_err(|error| to_python(py, &error))?;
        let outputs = outputs(py, &self.spec, &answered.rows, self.wanted.as_deref())?;
        let timing = Bound::new(py, NativeTiming(timing))?;
        (&self.spec.name, &self.spec.version, self.id.as_deref(), outputs, timing).into_bound_py_any(py)
    }
}

impl Reply for Inferred {
    fn into_python(self: Box<Self>, py: Python<'_>) -> PyResult<Result<Bound<'_, PyAny>, Bound<'_, PyAny>>> {
        Ok(self.object(py).map_err(|error| error.into_value(py).into_bound(py).into_any()))
    }
}

/// Names and tensors: an array of numbers, or the shape and the elements of a tensor of texts.
pub(super) fn outputs<'py>(
    py: Python<'py>,
    spec: &ModelSpec,
    rows: &[AnswerRow],
    wanted: Option<&[usize]>,
) -> PyResult<Bound<'py, PyList>> {
    let outputs = PyList::empty(py);
    let all: Vec<usize> = (0..spec.outputs.len()).collect();
    for index in wanted.unwrap_or(&all) {
        if let Some(output) = spec.outputs.get(*index) {
            outputs.append((&output.name, tensor(py, output, *index, rows)?))?;
        }
    }
    Ok(outputs)
}

fn tensor<'py>(
    py: Python<'py>,
    spec: &TensorSpec,
    index: usize,
    rows: &[AnswerRow],
) -> PyResult<Bound<'py, PyAny>> {
    let column = rows.first().and_then(|row| row.columns.get(index));
    match column {
        Some(Column::Numbers { dtype, shape, .. }) => {
            let bytes = rows.iter().map(|row| bytes_of(row, index));
            arrays::from_rows(py, *dtype, shape, bytes)
        }
        Some(Column::Texts { shape, .. }) => {
            let texts = PyList::empty(py);
            for row in rows {
                push_texts(&texts, row, index, spec.elements)?;
            }
            let axes: Vec<usize> = std::iter::once(rows.len()).chain(shape.iter().copied()).collect();
            (axes, texts).into_bound_py_any(py)
        }
        _ => Ok(py.None().into_bound(py)),
    }
}

fn bytes_of(row: &AnswerRow, index: usize) -> &[u8] {
    match row.columns.get(index) {
        Some(Column::Numbers { row_bytes, memory, .. }) => {
            memory.as_slice().get(row.row * row_bytes..(row.row + 1) * row_bytes).unwrap_or_default()
        }
        _ => &[],
    }
}

fn push_texts(list: &Bound<'_, PyList>, row: &AnswerRow, index: usize, elements: Elements) -> PyResult<()> {
    let Some(Column::Texts { shape, texts }) = row.columns.get(index) else { return Ok(()) };
    let count = shape.iter().product::<usize>();
    for text in texts.range(row.row * count..(row.row + 1) * count) {
        match elements {
            Elements::Bytes => list.append(PyBytes::new(list.py(), text))?,
            _ => list.append(PyString::new(list.py(), &String::from_utf8_lossy(text)))?,
        }
    }
    Ok(())
}

/// Where the time of an answer went, read only where somebody asks.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeTiming(Timing);

#[pymethods]
impl NativeTiming {
    /// Seconds by the name of the part.
    fn seconds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let parts = PyDict::new(py);
        let seconds = |time: Duration| time.as_secs_f64();
        if let Some(load) = self.0.load {
            parts.set_item("load", seconds(load))?;
        }
        for (name, time) in Parts::NAMES.into_iter().zip(self.0.parts.each()) {
            parts.set_item(name, seconds(time))?;
        }
        Ok(parts)
    }
}
