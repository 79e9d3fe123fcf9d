//! From the rows of a batch to the arguments that the function is called with.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule, PySlice, PyTuple};
use smallvec::SmallVec;

use super::arrays;
use super::structure::{Key, Node};
use crate::bindings::errors;
use crate::error::ErrorKind;
use crate::tensor::{Column, Rows};

/// The columns of a batch as Python objects: arrays for numbers, lists for the rest.
pub(crate) type Leaves<'py> = SmallVec<[Bound<'py, PyAny>; 1]>;

/// Makes the columns of a batch of `count` rows; `object` gives the object that a number stands for, and lets go of it.
pub(crate) fn leaves(
    py: Python<'_>,
    rows: Rows,
    count: usize,
    mut object: impl FnMut(u64) -> Option<Py<PyAny>>,
) -> PyResult<Leaves<'_>> {
    rows.into_columns()
        .into_iter()
        .map(|column| match column {
            Column::Numbers { dtype, shape, memory, .. } => {
                arrays::over_memory(py, dtype, &shape, count, memory)
            }
            Column::Objects(ids) => {
                let objects: Vec<Py<PyAny>> = ids.into_iter().filter_map(&mut object).collect();
                Ok(PyList::new(py, objects)?.into_any())
            }
            Column::Texts { .. } => {
                Err(errors::raised(py, ErrorKind::Internal, "texts come through the doors alone"))
            }
        })
        .collect()
}

/// Rows `from..to` of every column.
pub(crate) fn part<'py>(leaves: &Leaves<'py>, from: usize, to: usize) -> PyResult<Leaves<'py>> {
    leaves
        .iter()
        .map(|leaf| {
            let py = leaf.py();
            let range = PySlice::new(py, isize::try_from(from)?, isize::try_from(to)?, 1);
            leaf.get_item(range)
        })
        .collect()
}

/// Calls `function` with columns put together as the callers' arguments were.
pub(crate) fn call<'py>(
    function: &Bound<'py, PyAny>,
    key: &Key,
    leaves: &Leaves<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    let Some(structure) = key else {
        return match leaves.as_slice() {
            [leaf] => function.call1((leaf,)),
            _ => Err(errors::raised(py, ErrorKind::Internal, "a plain call has one column")),
        };
    };
    let mut next = leaves.iter();
    let arguments =
        structure.arguments.iter().map(|node| build(py, node, &mut next)).collect::<PyResult<Vec<_>>>()?;
    let arguments = PyTuple::new(py, arguments)?;
    match &structure.keywords {
        // A copy: a function with **options may keep or change what it is given.
        Some(keywords) => function.call(arguments, Some(&keywords.values.bind(py).copy()?)),
        None => function.call1(arguments),
    }
}

fn build<'a, 'py: 'a>(
    py: Python<'py>,
    node: &Node,
    leaves: &mut impl Iterator<Item = &'a Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    match node {
        Node::Leaf => leaves
            .next()
            .cloned()
            .ok_or_else(|| errors::raised(py, ErrorKind::Internal, "a leaf has no column")),
        Node::Stacked(_) => {
            let arrays = build(py, &Node::Leaf, leaves)?;
            PyModule::import(py, "numpy")?.call_method1(intern!(py, "stack"), (arrays,))
        }
        Node::Tuple(nodes) => Ok(tuple(py, nodes, leaves)?.into_any()),
        Node::Named(class, nodes) => class.0.bind(py).call1(tuple(py, nodes, leaves)?),
        Node::Dict(nodes) => {
            let dict = PyDict::new(py);
            for (key, node) in nodes {
                dict.set_item(key, build(py, node, leaves)?)?;
            }
            Ok(dict.into_any())
        }
    }
}

fn tuple<'a, 'py: 'a>(
    py: Python<'py>,
    nodes: &[Node],
    leaves: &mut impl Iterator<Item = &'a Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let parts = nodes.iter().map(|node| build(py, node, leaves)).collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, parts)
}
