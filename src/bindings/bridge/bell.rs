//! Who waits for a stream: a future of a loop, one at a time.

use std::sync::Arc;

use pyo3::prelude::*;

use super::port::{Port, Shared, settle};
use super::ringer::{Ready, Ringer};
use crate::bindings::errors::raised;
use crate::error::ErrorKind;

/// Rung when what somebody waits for has come.
#[derive(Default)]
pub(crate) struct Bell(Option<(Arc<Shared>, usize)>);

impl Bell {
    /// Tells whoever waits.
    pub(crate) fn ring(&mut self, ringer: &Ringer) {
        if let Some((port, slot)) = self.0.take() {
            ringer.reply(port, slot, Box::new(Ready));
        }
    }

    /// A future of the running loop that is done at the next ring, or that is done already where it `is_there`.
    ///
    /// # Errors
    /// `StreamClosed` where somebody else waits.
    pub(crate) fn hang<'py>(
        &mut self,
        py: Python<'py>,
        port: &Bound<'py, Port>,
        is_there: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (future, slot) = port.get().new_future(py)?;
        let shared = &port.get().shared;
        if let Some((other, slot_of_other)) = self.0.take() {
            if !other.is_done(py, slot_of_other) {
                self.0 = Some((other, slot_of_other));
                shared.forget(slot);
                return Err(raised(py, ErrorKind::StreamClosed, "two tasks wait for the same stream"));
            }
            other.forget(slot_of_other);
        }
        if is_there {
            shared.forget(slot);
            settle(&future, Ok(py.None().into_bound(py)))?;
        } else {
            self.0 = Some((Arc::clone(shared), slot));
        }
        Ok(future)
    }
}
