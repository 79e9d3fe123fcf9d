//! The thin class: what callers of this process ask of a server.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::desk::{Desk, Errand, Waits};
use super::inputs;
use super::pieces::NativePieces;
use crate::batch::Priority;
use crate::bindings::bridge::lifecycle::generation;
use crate::bindings::bridge::port::Port;
use crate::bindings::errors::{raised, to_python};
use crate::bindings::waiter::{Parked, Place, trace_of};
use crate::error::ErrorKind;
use crate::pipeline::RequestTerms;
use crate::serve::{Deadline, Door, Found};
use crate::wire::oip::outputs_of;
use crate::wire::openai::{Form, Generation};

/// What is asked for: a model, its version, inputs by name, and the names of the outputs that are wanted, none for all.
type Asked<'py> = (String, Option<String>, Bound<'py, PyDict>, Option<Vec<String>>);

/// On which terms: seconds that it may take, who goes first, on whose behalf, what it is called, and as part of what.
type Terms = (Option<f64>, Option<String>, Option<String>, Option<String>, Option<Place>);

/// The way in for callers of the process that a server runs in; `penstock.Pipeline` documents it.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativePipeline {
    desk: Arc<Desk>,
    recent: Mutex<Option<Py<Port>>>,
    born: u64,
}

#[pymethods]
impl NativePipeline {
    /// A future of the running loop for the outputs of a model.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn infer<'py>(&self, py: Python<'py>, asked: Asked<'py>, terms: Terms) -> PyResult<Bound<'py, PyAny>> {
        let port = Port::current(py, &self.recent)?;
        let (future, slot) = port.get().new_future(py)?;
        let waits = Waits::Future { port: Arc::clone(&port.get().shared), slot };
        match self.errand(py, &asked, terms, waits) {
            Ok(errand) => self.desk.put(errand),
            Err(error) => {
                port.get().shared.forget(slot);
                return Err(error);
            }
        }
        port.get().touch(py, &self.desk)?;
        Ok(future)
    }

    /// As `infer`, blocking, with the lock given back; Ctrl-C gives the request up.
    #[allow(clippy::needless_pass_by_value, reason = "as above")]
    fn infer_blocking<'py>(
        &self,
        py: Python<'py>,
        asked: Asked<'py>,
        terms: Terms,
    ) -> PyResult<Bound<'py, PyAny>> {
        let parked = Arc::new(Parked::default());
        let waits = Waits::Thread(Arc::clone(&parked));
        let address = waits.address();
        self.desk.put(self.errand(py, &asked, terms, waits)?);
        self.desk.send();
        let answered = parked.wait_for(py, None).inspect_err(|_| self.desk.cancel(address))?;
        let nothing = || raised(py, ErrorKind::Internal, "a wait without an end has ended");
        answered.ok_or_else(nothing)?.object(py)
    }

    /// Gives up the request of that future of the running loop.
    fn cancel(&self, py: Python<'_>, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let port = Port::current(py, &self.recent)?;
        let shared = &port.get().shared;
        if let Some(slot) = shared.slot_of(future) {
            // The slot is free when the request has said that it came to nothing: until then its number is its own.
            self.desk.cancel(Waits::Future { port: Arc::clone(shared), slot }.address());
        }
        Ok(())
    }

    /// What every step of a model says for one row.
    #[allow(clippy::needless_pass_by_value, reason = "as above")]
    fn steps<'py>(&self, py: Python<'py>, asked: Asked<'py>, terms: Terms) -> PyResult<NativePieces> {
        let (model, terms) = self.found(py, &asked.0, asked.1.as_deref(), terms)?;
        let (rows, count) = inputs::read(py, &model, &asked.2)?;
        let _runtime = self.desk.handle.enter();
        let steps = self.desk.door.step_rows(&model, terms, rows, count);
        let steps = steps.map_err(|error| to_python(py, &error))?;
        Ok(NativePieces::new(steps, Arc::clone(&model.spec), &self.desk))
    }

    /// The text of a model, as it comes, for a request of OpenAI's API: of a chat, or of a prompt.
    #[allow(clippy::needless_pass_by_value, reason = "as above")]
    fn text(
        &self,
        py: Python<'_>,
        asked: (String, Option<String>, Vec<u8>, bool),
        terms: Terms,
    ) -> PyResult<NativePieces> {
        let (name, version, body, chat) = asked;
        let (model, terms) = self.found(py, &name, version.as_deref(), terms)?;
        let form = if chat { Form::Chat } else { Form::Completion };
        let generation = Generation::parse(&body, form).inspect_err(|_| model.count_invalid());
        let generation = generation.map_err(|error| to_python(py, &error))?;
        let _runtime = self.desk.handle.enter();
        let steps = self.desk.door.step_text(&model, terms, &generation);
        let steps = steps.map_err(|error| to_python(py, &error))?;
        Ok(NativePieces::new(steps, Arc::clone(&model.spec), &self.desk))
    }
}

impl NativePipeline {
    /// # Errors
    /// Where the runtime does not run.
    pub(crate) fn new(door: &Arc<Door>) -> crate::error::Result<Self> {
        let desk = Desk::start(Arc::clone(door))?;
        Ok(Self { desk, recent: Mutex::new(None), born: generation() })
    }

    fn errand(&self, py: Python<'_>, asked: &Asked<'_>, terms: Terms, waits: Waits) -> PyResult<Errand> {
        let (name, version, given, wanted) = asked;
        let (model, terms) = self.found(py, name, version.as_deref(), terms)?;
        let wanted = wanted.as_ref().map(|names| outputs_of(names, &model.spec.outputs)).transpose();
        let wanted = wanted.inspect_err(|_| model.count_invalid()).map_err(|error| to_python(py, &error))?;
        let (rows, count) = inputs::read(py, &model, given)?;
        Ok(Errand { model, terms, rows, count, wanted, waits })
    }

    fn found(
        &self,
        py: Python<'_>,
        name: &str,
        version: Option<&str>,
        (timeout, priority, tenant, id, trace): Terms,
    ) -> PyResult<(Found, (RequestTerms, Option<Deadline>))> {
        if self.born != generation() {
            let message = "this pipeline was made before the process forked: make another one";
            return Err(raised(py, ErrorKind::Closed, message));
        }
        // Python has refused what is no time and no priority.
        let limit = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let deadline = limit.and_then(|limit| Deadline::after(limit, "timeout"));
        let terms = RequestTerms {
            priority: priority.as_deref().and_then(Priority::from_name).unwrap_or_default(),
            tenant: tenant.map(Into::into),
            id: id.map(Into::into),
            trace: trace_of(trace),
            deadline: None,
        };
        let model = self.desk.door.find(name, version).map_err(|error| to_python(py, &error))?;
        Ok((model, (terms, deadline)))
    }
}

impl Drop for NativePipeline {
    fn drop(&mut self) {
        if self.born == generation() {
            self.desk.stop();
        }
    }
}
