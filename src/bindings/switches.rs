//! Which parts of a pipeline are on, as far as the door has to know.

use pyo3::prelude::*;

/// The switches of `penstock.Pipeline`, read by their names.
#[derive(FromPyObject, Clone, Copy)]
pub(crate) struct Switches {
    pub(crate) stream: bool,
}
