//! Exceptions that loaders raised, kept for as long as the core remembers the failures.

use std::fmt;

use parking_lot::Mutex;
use pyo3::prelude::*;
use slab::Slab;

static KEPT: Mutex<Slab<Py<PyAny>>> = Mutex::new(Slab::new());
/// Numbers that nobody refers to any more; the objects are dropped by the next thread that is attached anyway.
static GONE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// What a loader raised, as the core carries it: its text, and the number of the exception.
pub(crate) struct Raised {
    text: String,
    number: usize,
}

impl Raised {
    /// Keeps an exception.
    pub(crate) fn keep(exception: &Bound<'_, PyAny>, text: String) -> Self {
        sweep(exception.py());
        Self { text, number: KEPT.lock().insert(exception.clone().unbind()) }
    }

    /// The exception.
    pub(crate) fn exception<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        KEPT.lock().get(self.number).map(|kept| kept.bind(py).clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        GONE.lock().push(self.number);
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Debug for Raised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Raised({:?})", self.text)
    }
}

impl std::error::Error for Raised {}

/// Drops exceptions that nobody refers to any more.
pub(super) fn sweep(_attached: Python<'_>) {
    let gone = std::mem::take(&mut *GONE.lock());
    let dropped: Vec<_> = {
        let mut kept = KEPT.lock();
        gone.into_iter().filter_map(|number| kept.try_remove(number)).collect()
    };
    // Not under the lock: an exception may end other objects, and those may run Python.
    drop(dropped);
}
