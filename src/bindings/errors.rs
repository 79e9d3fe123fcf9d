//! From the one table of errors to the classes in `penstock.errors`, and from Rust failures to Python exceptions.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyModule, PyType};

use super::models::causes::Raised;
use crate::error::{Error, ErrorKind};
use crate::gateway::Refusal;

static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// The table of errors: (class, parent, HTTP status, gRPC code, retryable) for each kind.
#[pyfunction]
pub(crate) fn error_table() -> Vec<(&'static str, &'static str, u16, &'static str, bool)> {
    ErrorKind::ALL
        .iter()
        .map(|kind| kind.meaning())
        .map(|row| (row.class, row.parent, row.http_status, row.grpc_code, row.retryable))
        .collect()
}

/// Takes the exception classes from `penstock.errors`, once, and gives the ones that are in use: after a reload those are
/// still the first, which `except` clauses hold. A class that is missing fails the import, not a later call.
#[pyfunction]
pub(crate) fn bind_errors(module: &Bound<'_, PyModule>) -> PyResult<Py<PyDict>> {
    let py = module.py();
    let classes = CLASSES.get_or_try_init(py, || {
        let classes = PyDict::new(py);
        classes.set_item("PenstockError", module.getattr("PenstockError")?)?;
        for kind in ErrorKind::ALL {
            let name = kind.meaning().class;
            classes.set_item(name, module.getattr(name)?.cast::<PyType>()?)?;
        }
        Ok::<_, PyErr>(classes.unbind())
    })?;
    Ok(classes.clone_ref(py))
}

/// The class for a kind.
pub(crate) fn class(py: Python<'_>, kind: ErrorKind) -> PyResult<Bound<'_, PyAny>> {
    let classes =
        CLASSES.get(py).ok_or_else(|| PyRuntimeError::new_err("penstock.errors was not imported"))?;
    classes.bind(py).as_any().get_item(kind.meaning().class)
}

/// A new exception of `kind`, with the exception that caused it.
pub(crate) fn exception<'py>(
    py: Python<'py>,
    kind: ErrorKind,
    message: &str,
    cause: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let exception = class(py, kind)?.call1((message,))?;
    if let Some(cause) = cause {
        exception.setattr("__cause__", cause)?;
    }
    Ok(exception)
}

/// A `PyErr` of `kind`.
pub(crate) fn raised(py: Python<'_>, kind: ErrorKind, message: &str) -> PyErr {
    exception(py, kind, message, None).map_or_else(|error| error, PyErr::from_value)
}

/// The Python exception for a failure of the core. A cause of Penstock's own and one that Python raised become its
/// `__cause__`, any other the text of that.
pub(crate) fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let build = || {
        let source = std::error::Error::source(error);
        let refusal = source.and_then(|source| source.downcast_ref::<Refusal>());
        let exception = if let Some(refusal) = refusal {
            refused(py, error, refusal)?
        } else {
            let cause = source.map(|source| cause_of(py, source));
            exception(py, error.kind(), error.message(), cause.as_ref())?
        };
        if let Some(wait) = error.wait_before_retry() {
            exception.setattr("retry_after", wait.as_secs_f64())?;
        }
        Ok(exception)
    };
    build().map_or_else(|error: PyErr| error, PyErr::from_value)
}

/// The exception for what another server refused: of the class of its kind, and a `RemoteError`, too.
fn refused<'py>(py: Python<'py>, error: &Error, refusal: &Refusal) -> PyResult<Bound<'py, PyAny>> {
    let known =
        PyModule::import(py, intern!(py, "penstock._remote_errors"))?.getattr(intern!(py, "OF_CLASSES"))?;
    let class = match known.cast_into::<PyDict>()?.get_item(error.kind().meaning().class)? {
        Some(class) => class,
        None => class(py, ErrorKind::Remote)?,
    };
    let exception = class.call1((error.message(),))?;
    exception.setattr(intern!(py, "status"), refusal.status)?;
    exception.setattr(intern!(py, "code"), refusal.code)?;
    exception.setattr(intern!(py, "body"), PyBytes::new(py, &refusal.body))?;
    Ok(exception)
}

/// The exception for what caused a failure: the very one that Python raised, where it did.
fn cause_of<'py>(py: Python<'py>, source: &(dyn std::error::Error + 'static)) -> Bound<'py, PyAny> {
    // Between what is told and what was raised stands the core's word for it, which says nothing more.
    for source in [Some(source), source.source()].into_iter().flatten() {
        if let Some(raised) = source.downcast_ref::<Raised>().and_then(|raised| raised.exception(py)) {
            return raised;
        }
    }
    let error = match source.downcast_ref::<Error>() {
        Some(error) => to_python(py, error),
        None => PyRuntimeError::new_err(source.to_string()),
    };
    error.into_value(py).into_bound(py).into_any()
}

/// The kind whose class (or a class above it) this exception is of, where it is one of Penstock's.
pub(crate) fn kind_of(exception: &Bound<'_, PyAny>) -> Option<ErrorKind> {
    let py = exception.py();
    // Deeper classes stand later in the table: the last that fits is the closest.
    ErrorKind::ALL
        .iter()
        .rev()
        .copied()
        .find(|kind| class(py, *kind).is_ok_and(|class| exception.is_instance(&class).unwrap_or(false)))
}
