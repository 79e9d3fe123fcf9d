//! An answer whose body still comes, as Python takes it: bytes, lines and events, many in one call.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyString};

use super::event::EventMaker;
use super::inflow::Inflow;
use super::reply::NativeResponse;
use crate::bindings::bridge::port::Port;
use crate::bindings::errors::{raised, to_python};
use crate::client::{Form, Response, Taken};
use crate::error::ErrorKind;
use crate::stream::Event;

/// An answer whose body still comes. Dropping it gives it up, and the upstream is told to stop.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeStream {
    #[pyo3(get)]
    response: Py<NativeResponse>,
    inflow: Arc<Inflow>,
    recent: Mutex<Option<Py<Port>>>,
    taking: Mutex<Taking>,
}

/// Room that is used again for each burst.
#[derive(Default)]
struct Taking {
    events: Vec<Event>,
    lines: Vec<Vec<u8>>,
    maker: Option<EventMaker>,
}

impl NativeStream {
    pub(crate) fn new(py: Python<'_>, response: Response, inflow: Arc<Inflow>) -> PyResult<Bound<'_, Self>> {
        let response = NativeResponse::new(py, response)?.unbind();
        let (recent, taking) = (Mutex::new(None), Mutex::default());
        Bound::new(py, Self { response, inflow, recent, taking })
    }

    /// What was taken; `None` at the end, and `False` where nothing has come yet.
    fn taken<'py>(
        &self,
        py: Python<'py>,
        taken: Taken<impl IntoPyObjectExt<'py>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match taken {
            None => Ok(PyBool::new(py, false).to_owned().into_any()),
            Some(Ok(None)) => Ok(py.None().into_bound(py)),
            Some(Ok(Some(taken))) => taken.into_bound_py_any(py),
            Some(Err(error)) => Err(self.inflow.failure(py, &error)),
        }
    }

    fn events<'py>(&self, py: Python<'py>) -> PyResult<Taken<Bound<'py, PyList>>> {
        let mut taking = self.taking.lock();
        let Taking { events, maker, .. } = &mut *taking;
        let taken = self.inflow.take_events(events);
        if !matches!(taken, Some(Ok(Some(())))) {
            return Ok(taken.map(|taken| taken.map(|_| None)));
        }
        let maker = maker.get_or_insert_with(|| EventMaker::new(py));
        // The first stands last: whoever hands them out takes them from there.
        let made: Vec<_> =
            events.drain(..).rev().map(|event| maker.make(py, event)).collect::<PyResult<_>>()?;
        Ok(Some(Ok(Some(PyList::new(py, made)?))))
    }

    fn lines<'py>(&self, py: Python<'py>) -> PyResult<Taken<Bound<'py, PyList>>> {
        let mut taking = self.taking.lock();
        let Taking { lines, .. } = &mut *taking;
        let taken = self.inflow.take_lines(lines);
        if !matches!(taken, Some(Ok(Some(())))) {
            return Ok(taken.map(|taken| taken.map(|_| None)));
        }
        let text = |line: Vec<u8>| PyString::new(py, &String::from_utf8_lossy(&line));
        let made: Vec<_> = lines.drain(..).rev().map(text).collect();
        Ok(Some(Ok(Some(PyList::new(py, made)?))))
    }

    fn chunks<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Taken<Bound<'py, PyList>>> {
        Ok(match self.inflow.take_bytes(py, most) {
            Some(Ok(Some(chunk))) => Some(Ok(Some(PyList::new(py, [chunk])?))),
            Some(Ok(None)) => Some(Ok(None)),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }
}

#[pymethods]
impl NativeStream {
    /// The next bytes, at most so many, if any have come; `None` at the end, and `False` where nothing has come yet.
    #[pyo3(signature = (most=65536))]
    fn take<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyAny>> {
        let taken = self.inflow.take_bytes(py, most);
        self.taken(py, taken)
    }

    /// What has come, in the form that is decoded, as a list whose first stands last; `None` and `False` as `take`.
    #[pyo3(signature = (most=65536))]
    fn take_many<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyAny>> {
        let taken = match self.inflow.form() {
            Form::Events => self.events(py)?,
            Form::Lines => self.lines(py)?,
            Form::Chunks | Form::Messages => self.chunks(py, most)?,
        };
        self.taken(py, taken)
    }

    /// Takes the body as `"chunks"`, `"lines"` or `"events"` from here on, each of at most so many bytes.
    fn decode(&self, py: Python<'_>, form: &str, most: usize) -> PyResult<()> {
        let form = match form {
            "chunks" => Form::Chunks,
            "lines" => Form::Lines,
            "events" => Form::Events,
            _ => return Err(raised(py, ErrorKind::Config, "there are chunks, lines and events")),
        };
        self.inflow.decode(form, most).map_err(|error| to_python(py, &error))
    }

    /// A future of the running loop that is done when there is something to take. One reader at a time.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inflow.wait(py, &Port::current(py, &self.recent)?)
    }

    /// Blocks until there is something to take, with the lock given back.
    fn wait_blocking(&self, py: Python<'_>) -> PyResult<()> {
        self.inflow.wait_blocking(py)
    }

    /// Gives up the rest: the connection is closed, or its stream reset. Where `[DONE]` was the last that came, its end is
    /// read, and the connection goes on.
    fn close(&self) {
        self.inflow.close();
    }

    /// What it has come to; times in seconds.
    fn figures<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = self.inflow.figures();
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let dict = PyDict::new(py);
        dict.set_item("first", seconds(figures.first))?;
        dict.set_item("gap_p50", seconds(figures.gap_p50))?;
        dict.set_item("gap_p99", seconds(figures.gap_p99))?;
        dict.set_item("stalls", figures.stalls)?;
        dict.set_item("stalled", figures.stalled.as_secs_f64())?;
        dict.set_item("bytes", figures.bytes)?;
        dict.set_item("events", figures.events)?;
        dict.set_item("comments", figures.comments)?;
        Ok(dict)
    }

    /// The id of the last event that came, where events are taken; and the seconds that the server asks to wait before the
    /// next connection, where it has.
    fn resumption(&self) -> (Option<String>, Option<f64>) {
        let (id, retry) = self.inflow.resumption();
        (id.map(|id| id.to_string()), retry.map(|retry| retry.as_secs_f64()))
    }
}

impl Drop for NativeStream {
    fn drop(&mut self) {
        self.inflow.close();
    }
}
