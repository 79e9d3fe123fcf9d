//! From the rows of a batch to the arguments that the function is called with.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule, PySlice, PyTuple};
use smallvec::SmallVec;

use super::arrays;
use super::structure::{Key, Node};
use crate::bindings::errors;
use crate::error::ErrorKind;
use crate::tensor::{Column, DType, Memory, Rows, Shape, Spares, Texts};

/// The columns of a batch as Python objects: arrays for numbers, lists for the rest.
pub(crate) type Leaves<'py> = SmallVec<[Bound<'py, PyAny>; 1]>;

/// Bytes of a batch that are kept as they came, in case that it must be run again. A larger one is looked at in places.
const KEPT_BYTES: usize = 16 << 20;

/// A batch that can be given to a function more than once, whatever the function does to what it is given.
pub(crate) struct Input {
    sources: SmallVec<[Source; 1]>,
    spares: Arc<Spares>,
}

enum Source {
    Numbers {
        dtype: DType,
        shape: Shape,
        row_bytes: usize,
        array: Py<PyAny>,
        before: Before,
    },
    Objects(Vec<Py<PyAny>>),
    /// Lists of texts, which came through a door: nobody else holds them.
    List(Py<PyAny>),
}

/// What is known of numbers as they came.
enum Before {
    /// Nothing: the batch is run once.
    Unknown,
    /// All of them.
    Kept(Memory),
    /// A hash of samples: enough to see that a function worked in place.
    Sampled(u64),
}

impl Input {
    /// Makes the columns of a batch of `count` rows. `repeatable` keeps what it takes to run parts of it again; `object`
    /// gives the object that a number stands for, and lets go of it; `texts` makes a list of texts.
    pub(crate) fn new(
        py: Python<'_>,
        rows: Rows,
        count: usize,
        spares: &Arc<Spares>,
        repeatable: bool,
        mut object: impl FnMut(u64) -> Option<Py<PyAny>>,
        mut texts: impl FnMut(usize, &Texts, &[usize]) -> PyResult<Py<PyAny>>,
    ) -> PyResult<Self> {
        let source = |(at, column): (usize, Column)| match column {
            Column::Numbers { dtype, shape, row_bytes, memory } => {
                let before = if repeatable && count > 1 {
                    Before::of(memory.as_slice(), row_bytes, spares)
                } else {
                    Before::Unknown
                };
                let array = arrays::over_memory(py, dtype, &shape, count, memory)?.unbind();
                Ok(Source::Numbers { dtype, shape, row_bytes, array, before })
            }
            Column::Objects(ids) => Ok(Source::Objects(ids.into_iter().filter_map(&mut object).collect())),
            Column::Texts { shape, texts: strings } => texts(at, &strings, &shape).map(Source::List),
        };
        let sources = rows.into_columns().into_iter().enumerate().map(source);
        Ok(Self { sources: sources.collect::<PyResult<_>>()?, spares: Arc::clone(spares) })
    }

    /// Where the memory of parts comes from.
    pub(crate) fn spares(&self) -> &Arc<Spares> {
        &self.spares
    }

    /// The whole batch, for the first call.
    pub(crate) fn whole<'py>(&self, py: Python<'py>) -> PyResult<Leaves<'py>> {
        let leaf = |source: &Source| match source {
            Source::Numbers { array, .. } => Ok(array.bind(py).clone()),
            // A list of its own: the function may change it.
            Source::List(list) => {
                let list = list.bind(py);
                slice(list, 0, list.len()?)
            }
            Source::Objects(objects) => Ok(PyList::new(py, objects)?.into_any()),
        };
        self.sources.iter().map(leaf).collect()
    }

    /// Rows `from..to` as they came; `None` where the function has changed them and they were too large to keep.
    pub(crate) fn part<'py>(&self, py: Python<'py>, from: usize, to: usize) -> PyResult<Option<Leaves<'py>>> {
        let mut leaves = Leaves::with_capacity(self.sources.len());
        for source in &self.sources {
            let leaf = match source {
                Source::Objects(objects) => {
                    PyList::new(py, objects.get(from..to).unwrap_or_default())?.into_any()
                }
                Source::List(list) => slice(list.bind(py), from, to)?,
                Source::Numbers { dtype, shape, row_bytes, array, before } => match before {
                    Before::Kept(bytes) => {
                        let mut memory = self.spares.memory();
                        let rows = bytes.as_slice().get(from * row_bytes..to * row_bytes);
                        memory.extend(rows.unwrap_or_default());
                        arrays::over_memory(py, *dtype, shape, to - from, memory)?
                    }
                    Before::Sampled(hash) => {
                        let array = array.bind(py);
                        if arrays::with_view_bytes(array, |now| sample(now, *row_bytes)) != *hash {
                            return Ok(None);
                        }
                        slice(array, from, to)?
                    }
                    Before::Unknown => slice(array.bind(py), from, to)?,
                },
            };
            leaves.push(leaf);
        }
        Ok(Some(leaves))
    }
}

fn slice<'py>(rows: &Bound<'py, PyAny>, from: usize, to: usize) -> PyResult<Bound<'py, PyAny>> {
    rows.get_item(PySlice::new(rows.py(), isize::try_from(from)?, isize::try_from(to)?, 1))
}

impl Before {
    fn of(bytes: &[u8], row_bytes: usize, spares: &Arc<Spares>) -> Self {
        if bytes.len() > KEPT_BYTES {
            return Self::Sampled(sample(bytes, row_bytes));
        }
        let mut kept = spares.memory();
        kept.extend(bytes);
        Self::Kept(kept)
    }
}

/// A hash of the first, middle and last bytes of every row.
fn sample(bytes: &[u8], row_bytes: usize) -> u64 {
    const LOOKED_AT: usize = 64;
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    for row in bytes.chunks(row_bytes.max(1)) {
        for from in [0, row.len() / 2, row.len().saturating_sub(LOOKED_AT)] {
            let until = row.len().min(from + LOOKED_AT);
            hasher.write(row.get(from..until).unwrap_or_default());
        }
    }
    hasher.finish()
}

/// What the function is called with.
pub(crate) type Arguments<'py> = (Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>);

/// A function, and what it is called with.
pub(crate) type NextCall<'py> = (Py<PyAny>, Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>);

/// Puts columns together as the callers' arguments were.
pub(crate) fn arguments<'py>(py: Python<'py>, key: &Key, leaves: &Leaves<'py>) -> PyResult<Arguments<'py>> {
    let Some(structure) = key else { return Ok((PyTuple::new(py, leaves)?, None)) };
    let mut next = leaves.iter();
    let arguments =
        structure.arguments.iter().map(|node| build(py, node, &mut next)).collect::<PyResult<Vec<_>>>()?;
    // A copy: a function with **options may keep or change what it is given.
    let keywords = structure.keywords.as_ref().map(|keywords| keywords.values.bind(py).copy()).transpose()?;
    Ok((PyTuple::new(py, arguments)?, keywords))
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
            let options = PyDict::new(py);
            // Their own type, byte order included: stacking would choose one.
            options.set_item("dtype", arrays.get_item(0)?.getattr("dtype")?)?;
            PyModule::import(py, "numpy")?.call_method(intern!(py, "stack"), (arrays,), Some(&options))
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
