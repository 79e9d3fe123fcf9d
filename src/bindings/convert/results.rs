//! From what the function returned to one answer for each request.
//!
//! Answers never share memory with what the function may still change, and a small answer never keeps a large batch
//! alive: an array that nobody else holds is cut into views while it is small, and copied row by row where it is not.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyDictMethods, PyList, PyTuple, PyTupleMethods};

use super::{arrays, items};
use crate::bindings::errors;
use crate::bindings::waiter::{Outcome, Results};
use crate::error::ErrorKind;

/// Bytes that a kept answer may hold on to beyond its own.
const SHARED_BYTES: usize = 64 << 10;

/// Takes what the function returned for `count` requests apart.
///
/// # Errors
/// `OutputError`, saying what came and what was expected.
pub(crate) fn split(returned: &Bound<'_, PyAny>, count: usize) -> PyResult<Results> {
    let py = returned.py();
    let rows = rows_of(returned, count, "the function")?;
    let refusal = errors::class(py, ErrorKind::Item)?;
    let may_refuse = match &rows {
        Split::Plain(_) => false,
        Split::Checked(list) => contains(list, &refusal)?,
    };
    let list = rows.into_list();
    if !may_refuse {
        return Ok(Results::Rows(list.unbind()));
    }
    let outcomes = list.iter().map(|row| outcome(row, &refusal)).collect::<PyResult<Vec<_>>>()?;
    Ok(Results::Each(outcomes))
}

/// The rows of what `who` returned for `count` requests, nobody else's any more; refusals stand among them.
///
/// # Errors
/// As [`split`].
pub(crate) fn rows<'py>(
    returned: &Bound<'py, PyAny>,
    count: usize,
    who: &str,
) -> PyResult<Bound<'py, PyList>> {
    rows_of(returned, count, who).map(Split::into_list)
}

/// Rows of an array, which cannot be refusals, or of anything else.
enum Split<'py> {
    Plain(Bound<'py, PyList>),
    Checked(Bound<'py, PyList>),
}

impl<'py> Split<'py> {
    fn into_list(self) -> Bound<'py, PyList> {
        match self {
            Self::Plain(list) | Self::Checked(list) => list,
        }
    }
}

fn rows_of<'py>(returned: &Bound<'py, PyAny>, count: usize, who: &str) -> PyResult<Split<'py>> {
    let py = returned.py();
    if let Ok(array) = returned.cast::<PyUntypedArray>() {
        return array_rows(array, count, who);
    }
    if let Ok(list) = returned.cast::<PyList>() {
        return list_rows(list, count, who).map(Split::Checked);
    }
    let parts = returned.cast::<PyDict>().map(PyDictMethods::len);
    let parts = parts.or_else(|_| returned.cast::<PyTuple>().map(PyTupleMethods::len));
    if matches!(parts, Ok(0)) {
        return Err(refused(
            py,
            &format!("{who} returned an empty {} for a batch of {count}", returned.get_type().name()?),
        ));
    }
    if let Ok(dict) = returned.cast::<PyDict>() {
        return dict_rows(dict, count).map(Split::Checked);
    }
    if let Ok(tuple) = returned.cast::<PyTuple>() {
        return tuple_rows(tuple, count).map(Split::Checked);
    }
    if returned.hasattr(intern!(py, "__dlpack__"))? {
        return array_rows(&items::from_dlpack(returned)?, count, who);
    }
    let what =
        if returned.is_none() { "None".to_owned() } else { format!("a {}", returned.get_type().name()?) };
    Err(refused(
        py,
        &format!(
            "{who} returned {what} for a batch of {count}; expected an array or a list with one row for each request, \
         or a dict or tuple of them"
        ),
    ))
}

fn array_rows<'py>(array: &Bound<'py, PyUntypedArray>, count: usize, who: &str) -> PyResult<Split<'py>> {
    let py = array.py();
    if array.shape().first() != Some(&count) {
        return Err(refused(
            py,
            &format!(
                "{who} returned an array of shape {:?} for a batch of {count}; expected {count} rows along the first axis",
                array.shape()
            ),
        ));
    }
    let whole = array.as_any();
    if arrays::holds_objects(array) {
        let rows = to_list(whole)?.iter().map(|row| own(row, true, 0)).collect::<PyResult<Vec<_>>>()?;
        return Ok(Split::Checked(PyList::new(py, rows)?));
    }
    let list = if array.ndim() == 1 && arrays::dtype(array).is_some() {
        // Scalars: they hold on to nothing.
        to_list(whole)?
    } else if array.len() * array.dtype().itemsize() <= SHARED_BYTES {
        if arrays::is_exclusive(array) { to_list(whole)? } else { to_list(&copied(whole)?)? }
    } else {
        let rows = to_list(whole)?.iter().map(|row| copied(&row)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rows)?
    };
    Ok(Split::Plain(list))
}

fn list_rows<'py>(list: &Bound<'py, PyList>, count: usize, who: &str) -> PyResult<Bound<'py, PyList>> {
    let py = list.py();
    if list.len() != count {
        return Err(refused(py, &format!("{who} returned a list of {} for a batch of {count}", list.len())));
    }
    // A list that somebody else holds, and could change, has arrays that somebody else holds.
    let shared = !arrays::is_held_once(list.as_any());
    let rows = list.iter().map(|row| own(row, shared, 0)).collect::<PyResult<Vec<_>>>()?;
    PyList::new(py, rows)
}

/// A value whose arrays, inside tuples, lists and dictionaries too, are copies that nobody else knows of.
pub(crate) fn owned(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    own(value, true, 0)
}

/// How deep in tuples, lists and dictionaries arrays are looked for.
const DEEPEST: usize = 16;

/// A row that nothing will change behind its back: an array that looks at somebody else's memory (the batch, or a buffer
/// that the function will use again) or that somebody else holds is copied, also inside tuples, lists and dictionaries.
fn own(value: Bound<'_, PyAny>, shared: bool, depth: usize) -> PyResult<Bound<'_, PyAny>> {
    let py = value.py();
    // One reference is the container's, one is ours.
    let shared = shared || !arrays::is_held_twice(&value);
    if let Ok(array) = value.cast::<PyUntypedArray>() {
        return if shared || arrays::is_view(array) { copied(&value) } else { Ok(value) };
    }
    if depth > DEEPEST {
        return Ok(value);
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        let (keys, items): (Vec<_>, Vec<_>) = dict.iter().unzip();
        return Ok(match own_all(items, shared, depth)? {
            None => value,
            Some(owned) => {
                let changed = PyDict::new(py);
                for (key, item) in keys.into_iter().zip(owned) {
                    changed.set_item(key, item)?;
                }
                changed.into_any()
            }
        });
    }
    let items = match (value.cast::<PyTuple>(), value.cast_exact::<PyList>()) {
        (Ok(tuple), _) => tuple.iter().collect::<Vec<_>>(),
        (_, Ok(list)) => list.iter().collect(),
        _ => return Ok(value),
    };
    let Some(owned) = own_all(items, shared, depth)? else { return Ok(value) };
    if value.is_instance_of::<PyList>() {
        return Ok(PyList::new(py, owned)?.into_any());
    }
    let class = value.get_type();
    if class.hasattr(intern!(py, "_fields"))? {
        class.call1(PyTuple::new(py, owned)?)
    } else {
        Ok(PyTuple::new(py, owned)?.into_any())
    }
}

/// The items, owned; `None` where all of them were.
fn own_all(
    items: Vec<Bound<'_, PyAny>>,
    shared: bool,
    depth: usize,
) -> PyResult<Option<Vec<Bound<'_, PyAny>>>> {
    let mut changed = false;
    let mut owned = Vec::with_capacity(items.len());
    for item in items {
        let before = item.as_ptr();
        let item = own(item, shared, depth + 1)?;
        changed |= item.as_ptr() != before;
        owned.push(item);
    }
    Ok(changed.then_some(owned))
}

fn dict_rows<'py>(dict: &Bound<'py, PyDict>, count: usize) -> PyResult<Bound<'py, PyList>> {
    let py = dict.py();
    let refusal = errors::class(py, ErrorKind::Item)?;
    let mut columns = Vec::with_capacity(dict.len());
    for (key, value) in dict {
        let who = format!("output {} of the function", key.repr()?);
        columns.push((key, rows_of(&value, count, &who)?.into_list()));
    }
    let rows = (0..count).map(|at| {
        let row = PyDict::new(py);
        for (key, column) in &columns {
            let value = column.get_item(at)?;
            if value.is_instance(&refusal)? {
                return Ok(value);
            }
            row.set_item(key, value)?;
        }
        Ok(row.into_any())
    });
    PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)
}

fn tuple_rows<'py>(tuple: &Bound<'py, PyTuple>, count: usize) -> PyResult<Bound<'py, PyList>> {
    let py = tuple.py();
    let refusal = errors::class(py, ErrorKind::Item)?;
    let mut columns = Vec::with_capacity(tuple.len());
    for (at, value) in tuple.iter().enumerate() {
        let who = format!("output {at} of the function's tuple (return a list for one result per request)");
        columns.push(rows_of(&value, count, &who)?.into_list());
    }
    let class = tuple.get_type();
    let named = class.hasattr(intern!(py, "_fields"))?;
    let rows = (0..count).map(|at| {
        let parts = columns.iter().map(|column| column.get_item(at)).collect::<PyResult<Vec<_>>>()?;
        for part in &parts {
            if part.is_instance(&refusal)? {
                return Ok(part.clone());
            }
        }
        let row = PyTuple::new(py, parts)?;
        if named { class.call1(row) } else { Ok(row.into_any()) }
    });
    PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)
}

fn outcome(row: Bound<'_, PyAny>, refusal: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    if row.is_instance(refusal)? {
        // Never the function's own object: returned twice, it would collect the tracebacks of all who raise it.
        Ok(Outcome::Refused(copy_exception(&row).unwrap_or(row).unbind()))
    } else {
        Ok(Outcome::Value(row.unbind()))
    }
}

/// A copy of an exception: same class, arguments, attributes and cause, no traceback. Its constructor is not run: it may
/// want other arguments.
pub(crate) fn copy_exception<'py>(exception: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let class = exception.get_type();
    let arguments = exception.getattr("args")?.cast_into::<PyTuple>()?;
    let with_class: Vec<_> = std::iter::once(class.clone().into_any()).chain(arguments.iter()).collect();
    let copy = class.call_method1("__new__", PyTuple::new(exception.py(), with_class)?)?;
    copy.getattr("__dict__")?.call_method1("update", (exception.getattr("__dict__")?,))?;
    copy.setattr("__cause__", exception.getattr("__cause__")?)?;
    Ok(copy)
}

fn contains(list: &Bound<'_, PyList>, class: &Bound<'_, PyAny>) -> PyResult<bool> {
    for row in list {
        if row.is_instance(class)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn copied<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    array.call_method0(intern!(array.py(), "copy"))
}

fn to_list<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    static LIST: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = array.py();
    let list = LIST.get_or_init(py, || py.get_type::<PyList>().into_any().unbind());
    list.bind(py)
        .call1((array,))?
        .cast_into::<PyList>()
        .map_err(|_| PyTypeError::new_err("list() made no list"))
}

fn refused(py: Python<'_>, message: &str) -> PyErr {
    errors::raised(py, ErrorKind::Output, message)
}
