//! From the arrays of a caller to the rows of a request: numbers are copied as they lie, texts one by one.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyModule, PyString};

use crate::bindings::convert::arrays;
use crate::bindings::errors::{raised, to_python};
use crate::error::ErrorKind;
use crate::pipeline::Endpoint;
use crate::tensor::{Column, Elements, Rows, Specs, TensorSpec};
use crate::wire::oip::{Given, arranged};

/// Whatever stands for the texts of an array: strings, bytes, objects.
const TEXT: &str = "BYTES";

/// The rows of what a model is given by name, and how many there are.
///
/// # Errors
/// `ItemError` for what does not fit the model's inputs; `ConfigError` for an array that no model has a type for.
pub(super) fn read(
    py: Python<'_>,
    model: &Endpoint,
    inputs: &Bound<'_, PyDict>,
) -> PyResult<((Specs, Rows), usize)> {
    let declared = &model.spec.inputs;
    let mut given = Vec::with_capacity(inputs.len());
    let mut values = Vec::with_capacity(inputs.len());
    for (name, value) in inputs {
        let name = name.extract::<String>().map_err(|_| raised(py, ErrorKind::Item, "inputs have names"))?;
        let spec = declared.iter().find(|spec| spec.name == name);
        let array = as_array(&value, &name, spec)?;
        let datatype = datatype(py, &name, &array)?;
        given.push(Given { name, datatype, shape: array.shape().to_vec() });
        values.push(array);
    }
    let arranged = arranged(&given, declared).inspect_err(|_| model.count_invalid());
    let (order, count) = arranged.map_err(|error| to_python(py, &error))?;
    let in_order = || order.iter().filter_map(|at| values.get(*at));
    let pairs = declared.iter().zip(in_order());
    let specs: Specs =
        pairs.map(|(spec, array)| spec.column(array.shape().get(1..).unwrap_or_default())).collect();
    let mut rows = Rows::new(&specs, model.spares());
    for ((spec, column), array) in declared.iter().zip(rows.columns_mut()).zip(in_order()) {
        fill(py, spec, column, array).inspect_err(|_| model.count_invalid())?;
    }
    Ok(((specs, rows), count))
}

/// An array as it is, in one piece and in the machine's byte order; anything else becomes one of the declared type.
fn as_array<'py>(
    value: &Bound<'py, PyAny>,
    name: &str,
    spec: Option<&TensorSpec>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    if let Some(array) = arrays::as_exact(value)
        && array.is_c_contiguous()
        && array.dtype().is_native_byteorder() != Some(false)
    {
        return Ok(array.clone());
    }
    let py = value.py();
    let numpy = PyModule::import(py, intern!(py, "numpy"))?;
    let is_array = value.hasattr(intern!(py, "__array__"))?;
    let made = match spec.map(|spec| spec.elements) {
        Some(Elements::Text | Elements::Bytes) if !is_array => {
            numpy.call_method1(intern!(py, "asarray"), (value, intern!(py, "object")))
        }
        Some(Elements::Numbers(dtype)) if !is_array => arrays::descr(py, dtype)
            .and_then(|descr| numpy.call_method1(intern!(py, "asarray"), (value, descr))),
        _ => numpy.call_method1(intern!(py, "asarray"), (value,)),
    };
    let array = made.map_err(|error| {
        raised(py, ErrorKind::Item, &format!("input '{name}' is no array of the declared type: {error}"))
    })?;
    let array = array.cast_into::<PyUntypedArray>()?;
    let array = if array.dtype().is_native_byteorder() == Some(false) {
        let native = array.dtype().call_method1(intern!(py, "newbyteorder"), (intern!(py, "="),))?;
        array.call_method1(intern!(py, "astype"), (native,))?.cast_into::<PyUntypedArray>()?
    } else {
        array
    };
    // Not `ascontiguousarray`, which gives a scalar an axis.
    let options = PyDict::new(py);
    options.set_item(intern!(py, "order"), intern!(py, "C"))?;
    let array = array.call_method(intern!(py, "astype"), (array.dtype(),), Some(&options))?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// The protocol's name for the type of an array.
fn datatype(py: Python<'_>, name: &str, array: &Bound<'_, PyUntypedArray>) -> PyResult<&'static str> {
    if matches!(array.dtype().kind(), b'O' | b'S' | b'U') {
        return Ok(TEXT);
    }
    arrays::dtype(array).and_then(|dtype| Elements::Numbers(dtype).oip_name()).ok_or_else(|| {
        let message = format!("input '{name}': no model has a type for {}", array.dtype());
        raised(py, ErrorKind::Config, &message)
    })
}

fn fill(
    py: Python<'_>,
    spec: &TensorSpec,
    column: &mut Column,
    array: &Bound<'_, PyUntypedArray>,
) -> PyResult<()> {
    match column {
        Column::Numbers { memory, .. } => {
            arrays::with_bytes(array, |bytes| memory.extend(bytes));
            Ok(())
        }
        Column::Texts { texts, .. } => {
            let flat = array.call_method0(intern!(py, "ravel"))?.call_method0(intern!(py, "tolist"))?;
            for (at, text) in flat.try_iter()?.enumerate() {
                let text = text?;
                if let Ok(text) = text.cast::<PyString>() {
                    texts.push(text.to_cow()?.as_bytes());
                } else if let Ok(bytes) = text.cast::<PyBytes>() {
                    check_text(py, spec, at, bytes.as_bytes())?;
                    texts.push(bytes.as_bytes());
                } else {
                    let what = text.get_type().name()?;
                    let message =
                        format!("input '{}' holds a {what} where str or bytes are expected", spec.name);
                    return Err(raised(py, ErrorKind::Item, &message));
                }
            }
            Ok(())
        }
        Column::Objects(_) => Err(raised(py, ErrorKind::Internal, "no model that is served takes objects")),
    }
}

fn check_text(py: Python<'_>, spec: &TensorSpec, at: usize, text: &[u8]) -> PyResult<()> {
    if spec.elements == Elements::Text && std::str::from_utf8(text).is_err() {
        let message = format!("input '{}': element {at} is no utf-8, and the model wants strings", spec.name);
        return Err(raised(py, ErrorKind::Item, &message));
    }
    Ok(())
}
