//! The shape of a call: how its arguments nest, and which keyword arguments it carries. Calls of one structure share
//! batches.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyTuple, PyType};

/// Distinct keyword arguments and structures remembered before all are forgotten and learned again.
const REMEMBERED: usize = 1024;

/// One argument: a leaf that becomes a column, or leaves in a tuple or a dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// A column as it is: an array for numbers, a list for objects.
    Leaf,
    /// A column of arrays that NumPy must stack; the text tells their types and shapes apart.
    Stacked(String),
    Tuple(Vec<Node>),
    /// A named tuple, rebuilt as its own class.
    Named(TypeName, Vec<Node>),
    Dict(Vec<(String, Node)>),
}

/// A class by identity.
#[derive(Debug, Clone)]
pub(crate) struct TypeName(pub(crate) Arc<Py<PyType>>);

impl PartialEq for TypeName {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&*other.0)
    }
}

impl Eq for TypeName {}

impl Hash for TypeName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

/// The keyword arguments of a call: a number that stands for them, and the values to call with.
#[derive(Debug, Clone)]
pub(crate) struct Keywords {
    number: u64,
    pub(crate) values: Arc<Py<PyDict>>,
}

impl PartialEq for Keywords {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Keywords {}

impl Hash for Keywords {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// How a call is put together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Structure {
    pub(crate) arguments: Vec<Node>,
    pub(crate) keywords: Option<Keywords>,
}

/// What tells groups apart beside their columns: `None` is the common case, one leaf and no keyword arguments.
pub(crate) type Key = Option<Arc<Structure>>;

/// Structures and keyword arguments that were seen before.
pub(crate) struct Structures {
    known: Mutex<HashSet<Arc<Structure>>>,
    /// From the canonical form of keyword arguments to a [`Keywords`]' number, in a dictionary of Python's own: the
    /// values' own equality and hash decide.
    keywords: Mutex<KnownKeywords>,
}

#[derive(Default)]
struct KnownKeywords {
    numbers: Option<Py<PyDict>>,
    values: Vec<Arc<Py<PyDict>>>,
    /// The number of `values[0]`: numbers are never used twice.
    first: u64,
}

impl Structures {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::default(), keywords: Mutex::default() }
    }

    /// The key for calls of this structure.
    pub(crate) fn key(&self, arguments: Vec<Node>, keywords: Option<Keywords>) -> Key {
        if keywords.is_none() && matches!(arguments.as_slice(), [Node::Leaf]) {
            return None;
        }
        let structure = Structure { arguments, keywords };
        let mut known = self.known.lock();
        if let Some(found) = known.get(&structure) {
            return Some(Arc::clone(found));
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let structure = Arc::new(structure);
        known.insert(Arc::clone(&structure));
        Some(structure)
    }

    /// The keyword arguments of a call, the same for equal names, types and values.
    pub(crate) fn keywords(&self, given: &Bound<'_, PyDict>) -> PyResult<Keywords> {
        let py = given.py();
        let canonical = canonical_keywords(given)?;
        let (numbers, known, first) = {
            let mut keywords = self.keywords.lock();
            let numbers = keywords.numbers.get_or_insert_with(|| PyDict::new(py).unbind()).clone_ref(py);
            (numbers, keywords.values.len(), keywords.first)
        };
        let numbers = numbers.bind(py);
        let found = numbers.get_item(&canonical).map_err(|error| unhashable(py, given, &error))?;
        if let Some(number) = found {
            let number: u64 = number.extract()?;
            let at = usize::try_from(number - first).unwrap_or(usize::MAX);
            if let Some(values) = self.keywords.lock().values.get(at) {
                return Ok(Keywords { number, values: Arc::clone(values) });
            }
        }
        let number = first + known as u64;
        let values = Arc::new(given.copy()?.unbind());
        let mut keywords = self.keywords.lock();
        if known >= REMEMBERED {
            numbers.clear();
            keywords.first = number;
            keywords.values.clear();
        }
        keywords.values.push(Arc::clone(&values));
        drop(keywords);
        numbers.set_item(canonical, number)?;
        Ok(Keywords { number, values })
    }
}

/// Names, types and values in the order of the names: 1, 1.0 and True are equal in Python and must not share a batch.
fn canonical_keywords<'py>(given: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyTuple>> {
    let mut entries: Vec<(String, Bound<'py, PyAny>)> = Vec::with_capacity(given.len());
    for (name, value) in given {
        entries.push((name.extract()?, canonical(&value)?));
    }
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    PyTuple::new(given.py(), entries)
}

fn canonical<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let inner = if let Ok(number) = value.cast_exact::<PyFloat>() {
        // Tells 0.0 from -0.0 and lets a NaN equal itself.
        number.call_method0("hex")?
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        let items = tuple.iter().map(|item| canonical(&item)).collect::<PyResult<Vec<_>>>()?;
        PyTuple::new(py, items)?.into_any()
    } else {
        value.clone()
    };
    Ok((value.get_type(), inner).into_pyobject(py)?.into_any())
}

fn unhashable(py: Python<'_>, given: &Bound<'_, PyDict>, cause: &PyErr) -> PyErr {
    let culprit = given.iter().find(|(_, value)| value.hash().is_err());
    let name = culprit.and_then(|(name, _)| name.extract::<String>().ok()).unwrap_or_default();
    let error = PyTypeError::new_err(format!(
        "keyword argument '{name}' is not hashable, so calls cannot be grouped by it; pass it as part of the item"
    ));
    error.set_cause(py, Some(cause.clone_ref(py)));
    error
}
