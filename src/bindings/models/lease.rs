//! The right to use a model: while it lasts, the model is neither evicted nor unloaded.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::desk::{Desk, Named};
use crate::bindings::errors::raised;
use crate::error::ErrorKind;
use crate::models::{Claim, ModelId};

/// A claim on a model, and what is known of it after it was given up.
#[derive(Default)]
pub(super) struct Hold(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    New,
    Held(Claim),
    Released,
}

impl Hold {
    /// True once it was asked for.
    pub(super) fn is_used(&self) -> bool {
        !matches!(*self.0.lock(), State::New)
    }

    pub(super) fn put(&self, claim: Claim) {
        let before = std::mem::replace(&mut *self.0.lock(), State::Held(claim));
        drop(before);
    }

    /// Gives the claim up.
    pub(super) fn release(&self) {
        let before = std::mem::replace(&mut *self.0.lock(), State::Released);
        // Not under the lock: giving up a claim may set off others.
        drop(before);
    }

    fn read<T>(&self, read: impl FnOnce(&Claim) -> T) -> Option<T> {
        match &*self.0.lock() {
            State::Held(claim) => Some(read(claim)),
            State::New | State::Released => None,
        }
    }
}

/// A model that may be used until `release()`, or until the `with` block ends that it was given to.
#[pyclass(frozen, module = "penstock.models")]
pub(crate) struct Lease {
    hold: Arc<Hold>,
    value: Mutex<Option<Py<PyAny>>>,
    desk: Arc<Desk>,
    model: ModelId,
    cold: bool,
    waited: f64,
    fallback: bool,
}

impl Lease {
    pub(super) fn new<'py>(
        py: Python<'py>,
        desk: &Arc<Desk>,
        hold: &Arc<Hold>,
        value: Py<PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        let read = hold.read(|claim| (claim.model(), claim.cold(), claim.waited(), claim.asked()));
        let Some((model, cold, waited, asked)) = read else {
            return Err(raised(py, ErrorKind::Internal, "a lease was given up before it was there"));
        };
        let lease = Self {
            hold: Arc::clone(hold),
            value: Mutex::new(Some(value)),
            desk: Arc::clone(desk),
            model,
            cold,
            waited: waited.as_secs_f64(),
            fallback: model != asked,
        };
        Bound::new(py, lease)
    }

    fn named(&self) -> Named {
        self.desk.named(self.model).unwrap_or_default()
    }
}

#[pymethods]
impl Lease {
    /// What the loader returned.
    ///
    /// Raises `Closed` once the lease was released.
    #[getter]
    fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let value = self.value.lock().as_ref().map(|value| value.clone_ref(py));
        value.ok_or_else(|| raised(py, ErrorKind::Closed, "the lease on this model was released"))
    }

    /// Name of the model.
    #[getter]
    fn name(&self) -> String {
        self.named().0.to_string()
    }

    /// Version of the model.
    #[getter]
    fn version(&self) -> String {
        self.named().1.to_string()
    }

    /// True where the model was not loaded when it was asked for.
    #[getter]
    fn cold(&self) -> bool {
        self.cold
    }

    /// Seconds from asking until the model was there.
    #[getter]
    fn waited(&self) -> f64 {
        self.waited
    }

    /// True where this is the fallback of the model that was asked for.
    #[getter]
    fn fallback(&self) -> bool {
        self.fallback
    }

    /// True once it was released.
    #[getter]
    fn released(&self) -> bool {
        self.value.lock().is_none()
    }

    /// Gives the model back. Safe to call twice.
    fn release(&self) {
        let value = self.value.lock().take();
        drop(value);
        self.hold.release();
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.value(py)
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _at: &Bound<'_, PyAny>) {
        self.release();
    }

    fn __repr__(&self) -> String {
        let (name, version) = self.named();
        let state = if self.released() { " released" } else { "" };
        format!("<penstock.models.Lease {name}@{version}{state}>")
    }
}
