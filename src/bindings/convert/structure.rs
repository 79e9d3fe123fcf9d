//! The shape of a call: how its arguments nest, and which keyword arguments it carries. Calls of one structure share
//! batches.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyComplex, PyDict, PyFloat, PyFrozenSet, PyTuple, PyType};

use super::items;

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
    /// What the policy's key said of the item.
    asked: Option<Keywords>,
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
    pub(crate) fn key(
        &self,
        arguments: Vec<Node>,
        keywords: Option<Keywords>,
        asked: Option<Keywords>,
    ) -> Key {
        if keywords.is_none() && asked.is_none() && matches!(arguments.as_slice(), [Node::Leaf]) {
            return None;
        }
        let structure = Structure { arguments, keywords, asked };
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
        let known = self.keywords.lock().numbers.as_ref().map(|numbers| numbers.clone_ref(py));
        // Comparing values may run code of theirs, which may let another thread in: never under the lock.
        let found = match &known {
            Some(numbers) => numbers.bind(py).get_item(&canonical),
            None => canonical.hash().map(|_| None),
        };
        if let Some(number) = found.map_err(|error| unhashable(py, given, &error))?
            && let Some(keywords) = self.keywords.lock().get(number.extract()?)
        {
            return Ok(keywords);
        }
        let (keywords, numbers) = self.keywords.lock().add(py, Arc::new(given.copy()?.unbind()));
        // Two threads may add the same at once: the first number stands, and the other is never used.
        let number = numbers.bind(py).call_method1("setdefault", (canonical, keywords.number))?;
        Ok(self.keywords.lock().get(number.extract()?).unwrap_or(keywords))
    }
}

impl KnownKeywords {
    fn get(&self, number: u64) -> Option<Keywords> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.values.get(at).map(|values| Keywords { number, values: Arc::clone(values) })
    }

    fn add(&mut self, py: Python<'_>, values: Arc<Py<PyDict>>) -> (Keywords, Py<PyDict>) {
        if self.values.len() >= REMEMBERED {
            self.first += self.values.len() as u64;
            self.values.clear();
            self.numbers = None;
        }
        let number = self.first + self.values.len() as u64;
        self.values.push(Arc::clone(&values));
        let numbers = self.numbers.get_or_insert_with(|| PyDict::new(py).unbind()).clone_ref(py);
        (Keywords { number, values }, numbers)
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

/// A value with its type, so that what differs in kind is not equal: 1, 1.0 and True.
pub(crate) fn canonical<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let all = |items: Vec<Bound<'py, PyAny>>| items.iter().map(canonical).collect::<PyResult<Vec<_>>>();
    let inner = if value.is_instance_of::<PyFloat>() {
        // Tells 0.0 from -0.0 and lets a NaN equal itself.
        value.call_method0("hex")?
    } else if value.is_instance_of::<PyComplex>() {
        let parts =
            (value.getattr("real")?.call_method0("hex")?, value.getattr("imag")?.call_method0("hex")?);
        parts.into_pyobject(py)?.into_any()
    } else if items::is_numpy_scalar(value)? {
        value.call_method0("tobytes")?
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        PyTuple::new(py, all(tuple.iter().collect())?)?.into_any()
    } else if let Ok(set) = value.cast::<PyFrozenSet>() {
        PyFrozenSet::new(py, all(set.iter().collect())?)?.into_any()
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
