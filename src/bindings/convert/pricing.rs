//! What an item costs, and which others it may share a batch with beyond its shape: as the policy's functions say.

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple};

use super::arrays;
use super::items::Leaf;
use super::structure::{Keywords, Structures};
use crate::bindings::errors;
use crate::error::ErrorKind;

/// The functions of a policy that are asked about each item.
#[derive(Default)]
pub(crate) struct Pricing {
    key: Option<Py<PyAny>>,
    cost: Cost,
}

#[derive(Default)]
enum Cost {
    /// Every item costs the same.
    #[default]
    One,
    /// The longest of its parts.
    Length,
    Function(Py<PyAny>),
}

impl Pricing {
    pub(crate) fn new(key: Option<Py<PyAny>>, costed: bool, cost: Option<Py<PyAny>>) -> Self {
        let cost = match cost {
            Some(function) => Cost::Function(function),
            None if costed => Cost::Length,
            None => Cost::One,
        };
        Self { key, cost }
    }

    /// True where items are asked for a key.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The key of an item, the same for equal ones.
    ///
    /// # Errors
    /// `ItemError` where the function raises; `TypeError` for a key that is not hashable.
    pub(crate) fn key(
        &self,
        structures: &Structures,
        arguments: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<Keywords>> {
        let Some(function) = &self.key else { return Ok(None) };
        let py = arguments.py();
        let key = function.bind(py).call(arguments, keywords).map_err(|error| refused(py, "key", error))?;
        let named = PyDict::new(py);
        named.set_item("key", key)?;
        structures.keywords(&named).map(Some)
    }

    /// What an item costs: at least 1.
    ///
    /// # Errors
    /// `ItemError` where the function raises, or answers with no whole number from 0 to 2^32.
    pub(crate) fn cost(
        &self,
        leaves: &[Leaf<'_>],
        arguments: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<u32> {
        match &self.cost {
            Cost::One => Ok(1),
            Cost::Length => {
                let longest = leaves.iter().map(length).max().unwrap_or(1);
                Ok(u32::try_from(longest).unwrap_or(u32::MAX).max(1))
            }
            Cost::Function(function) => {
                let py = arguments.py();
                let cost = function
                    .bind(py)
                    .call(arguments, keywords)
                    .map_err(|error| refused(py, "cost", error))?;
                cost.extract::<u32>().map(|cost| cost.max(1)).map_err(|_| {
                    let shown = cost.repr().map(|shown| shown.to_string()).unwrap_or_default();
                    let message = format!("cost returned {shown}, which is no whole number from 0 to 2**32");
                    errors::raised(py, ErrorKind::Item, &message)
                })
            }
        }
    }
}

fn refused(py: Python<'_>, which: &str, error: PyErr) -> PyErr {
    let message = format!("{which} raised {error}");
    let cause = error.into_value(py).into_bound(py).into_any();
    errors::exception(py, ErrorKind::Item, &message, Some(&cause))
        .map_or_else(|error| error, PyErr::from_value)
}

fn length(leaf: &Leaf<'_>) -> usize {
    match leaf {
        Leaf::Array(array) => length_of_array(array),
        Leaf::Number(..) => 1,
        Leaf::Object(object) => {
            if let Some(array) = arrays::as_exact(object) {
                return length_of_array(array);
            }
            let counted = object.is_instance_of::<PyString>()
                || object.is_instance_of::<PyBytes>()
                || object.is_instance_of::<PyByteArray>()
                || object.is_instance_of::<PyList>()
                || object.is_instance_of::<PyTuple>();
            if counted { object.len().unwrap_or(1) } else { 1 }
        }
    }
}

fn length_of_array(array: &Bound<'_, PyUntypedArray>) -> usize {
    array.shape().first().copied().unwrap_or(1)
}
