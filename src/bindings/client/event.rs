//! A server-sent event, as Python has it.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyModule, PyString, PyTuple};

use crate::stream::Event;

/// One event of a stream of server-sent events (WHATWG HTML, section 9.2).
#[pyclass(frozen, name = "Event", module = "penstock._native")]
pub(crate) struct NativeEvent {
    /// Its type: `"message"` where it names none.
    #[pyo3(get)]
    event: Py<PyString>,
    /// Its data: the lines of it, joined.
    #[pyo3(get)]
    data: Py<PyString>,
    /// The id of the last event that named one, this one included; empty where none did.
    #[pyo3(get)]
    id: Py<PyString>,
}

impl NativeEvent {
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let fields = [&self.event, &self.data, &self.id];
        PyTuple::new(py, fields.map(|field| field.bind(py)))
    }
}

#[pymethods]
impl NativeEvent {
    #[new]
    #[pyo3(signature = (event, data, id=None))]
    fn new(py: Python<'_>, event: Py<PyString>, data: Py<PyString>, id: Option<Py<PyString>>) -> Self {
        Self { event, data, id: id.unwrap_or_else(|| PyString::intern(py, "").unbind()) }
    }

    /// The data, parsed as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let loads = LOADS
            .get_or_try_init(py, || PyModule::import(py, "json")?.getattr("loads").map(Bound::unbind))?;
        loads.bind(py).call1((&self.data,))
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else { return Ok(false) };
        self.fields(py)?.eq(other.get().fields(py)?)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.fields(py)?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let [event, data, id] = [&self.event, &self.data, &self.id].map(|field| field.bind(py).repr());
        Ok(format!("Event(event={}, data={}, id={})", event?, data?, id?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        Ok((slf.get_type().into_any(), slf.get().fields(slf.py())?))
    }
}

/// Makes events of one stream. Their types and ids are mostly those of the last: one object serves all.
pub(super) struct EventMaker {
    event: Shared,
    id: Shared,
}

/// A text that events share, and the string that it is in Python.
struct Shared(Arc<str>, Py<PyString>);

impl Shared {
    fn of(&mut self, py: Python<'_>, text: Arc<str>) -> Py<PyString> {
        if !Arc::ptr_eq(&text, &self.0) {
            if text != self.0 {
                self.1 = PyString::new(py, &text).unbind();
            }
            self.0 = text;
        }
        self.1.clone_ref(py)
    }
}

impl EventMaker {
    pub(super) fn new(py: Python<'_>) -> Self {
        let shared = |text: &str| Shared(Arc::from(text), PyString::intern(py, text).unbind());
        Self { event: shared("message"), id: shared("") }
    }

    pub(super) fn make<'py>(&mut self, py: Python<'py>, event: Event) -> PyResult<Bound<'py, NativeEvent>> {
        let Event { event, data, id } = event;
        let data = PyString::new(py, &data).unbind();
        Bound::new(py, NativeEvent { event: self.event.of(py, event), data, id: self.id.of(py, id) })
    }
}
