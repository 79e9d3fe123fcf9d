//! From the arguments of one call to the row that it adds to a batch.
//!
//! The rules are those of PyTorch's `default_collate`, which the field knows: arrays and numbers are gathered into
//! arrays, tuples and dictionaries are gathered by part, everything else comes as a list.

use std::sync::Arc;

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyComplex, PyDict, PyFloat, PyInt, PyModule, PyString, PyTuple};
use smallvec::{SmallVec, smallvec};

use super::arrays;
use super::pricing::Pricing;
use super::results;
use super::structure::{Key, Node, Structures, TypeName};
use crate::batch::GroupKey;
use crate::bindings::errors;
use crate::error::ErrorKind;
use crate::tensor::{Column, ColumnSpec, DType, Rows, Shape, Specs};

/// How deep tuples and dictionaries may nest in an item.
const DEEPEST: usize = 32;

/// One value of a row.
pub(crate) enum Leaf<'py> {
    /// A C-contiguous array of plain numbers.
    Array(Bound<'py, PyUntypedArray>),
    /// One number: its bytes, and how many there are.
    Number([u8; 16], usize),
    /// Anything else; it stays on Python's side.
    Object(Bound<'py, PyAny>),
}

/// A call taken apart: what it may share a batch with, and its row.
pub(crate) struct Item<'py> {
    pub(crate) key: GroupKey<Key>,
    pub(crate) leaves: SmallVec<[Leaf<'py>; 1]>,
}

impl<'py> Item<'py> {
    /// Takes the arguments of a call apart.
    ///
    /// # Errors
    /// `TypeError` for a call without an item or with an unhashable keyword argument; `ItemError` for an item that
    /// cannot be gathered.
    pub(crate) fn new(
        structures: &Structures,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
        pricing: &Pricing,
    ) -> PyResult<Self> {
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        if keywords.is_none() && arguments.len() == 1 && !pricing.has_key() {
            let argument = arguments.get_item(0)?;
            if let Some(array) = arrays::as_exact(&argument)
                && let Some((spec, true)) = arrays::describe(array)
            {
                let key = GroupKey { key: None, specs: smallvec![spec] };
                return Ok(Self { key, leaves: smallvec![Leaf::Array(array.clone())] });
            }
        }
        if arguments.is_empty() {
            return Err(PyTypeError::new_err("a call needs an item: pass at least one positional argument"));
        }
        let given = keywords;
        let keywords = given.map(|keywords| structures.keywords(keywords)).transpose()?;
        let mut parts = Parts::default();
        let nodes = arguments.iter().map(|argument| parts.add(&argument, 0)).collect::<PyResult<Vec<_>>>()?;
        let asked = pricing.key(structures, arguments, given)?;
        let key = GroupKey { key: structures.key(nodes, keywords, asked), specs: parts.specs };
        Ok(Self { key, leaves: parts.leaves })
    }

    /// Takes the arguments of a call as they are, for a function that looks at them one by one: whatever they are, they
    /// share a batch with others. Arrays are copied: whoever sent them may change them meanwhile.
    ///
    /// # Errors
    /// `TypeError` as for [`new`](Self::new).
    pub(crate) fn whole(
        structures: &Structures,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
        pricing: &Pricing,
    ) -> PyResult<Self> {
        if arguments.is_empty() {
            return Err(PyTypeError::new_err("a call needs an item: pass at least one positional argument"));
        }
        let given = keywords.filter(|keywords| !keywords.is_empty());
        let keywords = given.map(|keywords| structures.keywords(keywords)).transpose()?;
        let asked = pricing.key(structures, arguments, given)?;
        let nodes = arguments.iter().map(|_| Node::Leaf).collect();
        let specs = arguments.iter().map(|_| ColumnSpec::Objects).collect();
        let leaves = arguments.iter().map(|argument| results::owned(argument).map(Leaf::Object));
        let leaves = leaves.collect::<PyResult<_>>()?;
        Ok(Self { key: GroupKey { key: structures.key(nodes, keywords, asked), specs }, leaves })
    }
}

/// Adds the row of `leaves` to a batch; `objects` holds the numbers that stand for the objects among them, in order.
pub(crate) fn write_row(rows: &mut Rows, leaves: &[Leaf<'_>], objects: &[u64]) {
    let mut objects = objects.iter();
    for (column, leaf) in rows.columns_mut().iter_mut().zip(leaves) {
        match (column, leaf) {
            (Column::Numbers { memory, .. }, Leaf::Array(array)) => {
                arrays::with_bytes(array, |bytes| memory.extend(bytes));
            }
            (Column::Numbers { memory, .. }, Leaf::Number(bytes, length)) => {
                memory.extend(bytes.get(..*length).unwrap_or_default());
            }
            (Column::Objects(ids), Leaf::Object(_)) => ids.extend(objects.next()),
            _ => debug_assert!(false, "a leaf fits the column that was made for it"),
        }
    }
}

#[derive(Default)]
struct Parts<'py> {
    specs: Specs,
    leaves: SmallVec<[Leaf<'py>; 1]>,
}

impl<'py> Parts<'py> {
    fn add(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> PyResult<Node> {
        if depth > DEEPEST {
            let message = format!("an item nests tuples and dictionaries deeper than {DEEPEST}");
            return Err(errors::raised(value.py(), ErrorKind::Item, &message));
        }
        if let Some(array) = arrays::as_exact(value) {
            return self.add_array(array);
        }
        if let Some((dtype, bytes)) = python_number(value)? {
            return Ok(self.add_number(dtype, bytes));
        }
        if value.is_instance_of::<PyString>() {
            return Ok(self.add_object(value));
        }
        if let Ok(tuple) = value.cast::<PyTuple>() {
            return self.add_tuple(tuple, depth + 1);
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            return self.add_dict(dict, depth + 1);
        }
        match as_array(value)? {
            Some(array) => self.add_array(&array),
            None => Ok(self.add_object(value)),
        }
    }

    fn add_object(&mut self, value: &Bound<'py, PyAny>) -> Node {
        self.specs.push(ColumnSpec::Objects);
        self.leaves.push(Leaf::Object(value.clone()));
        Node::Leaf
    }

    fn add_number(&mut self, dtype: DType, bytes: [u8; 16]) -> Node {
        self.specs.push(ColumnSpec::Numbers { dtype, shape: Shape::new() });
        self.leaves.push(Leaf::Number(bytes, dtype.size()));
        Node::Leaf
    }

    fn add_array(&mut self, array: &Bound<'py, PyUntypedArray>) -> PyResult<Node> {
        let Some((spec, contiguous)) = arrays::describe(array) else {
            let kind = format!("{:?} {:?}", array.dtype(), array.shape());
            // A copy: whoever sent the item may change it before the batch is gathered.
            let copy = array.call_method0(intern!(array.py(), "copy"))?;
            self.add_object(&copy);
            return Ok(Node::Stacked(kind));
        };
        let array = if contiguous { array.clone() } else { contiguous_copy(array)? };
        self.specs.push(spec);
        self.leaves.push(Leaf::Array(array));
        Ok(Node::Leaf)
    }

    fn add_tuple(&mut self, tuple: &Bound<'py, PyTuple>, depth: usize) -> PyResult<Node> {
        let class = tuple.get_type();
        let exact = class.is(tuple.py().get_type::<PyTuple>());
        if tuple.is_empty() || !(exact || class.hasattr(intern!(tuple.py(), "_fields"))?) {
            return Ok(self.add_object(tuple.as_any()));
        }
        let nodes = tuple.iter().map(|part| self.add(&part, depth)).collect::<PyResult<Vec<_>>>()?;
        Ok(if exact { Node::Tuple(nodes) } else { Node::Named(TypeName(Arc::new(class.unbind())), nodes) })
    }

    fn add_dict(&mut self, dict: &Bound<'py, PyDict>, depth: usize) -> PyResult<Node> {
        if dict.is_empty() || !dict.keys().iter().all(|key| key.is_exact_instance_of::<PyString>()) {
            return Ok(self.add_object(dict.as_any()));
        }
        let mut parts: Vec<(String, Bound<'py, PyAny>)> =
            dict.iter().map(|(key, value)| Ok((key.extract()?, value))).collect::<PyResult<_>>()?;
        // Two dictionaries with the same keys are one structure, whatever order they were written in.
        parts.sort_by(|left, right| left.0.cmp(&right.0));
        let nodes = parts
            .into_iter()
            .map(|(key, value)| Ok((key, self.add(&value, depth)?)))
            .collect::<PyResult<Vec<_>>>()?;
        Ok(Node::Dict(nodes))
    }
}

/// The bytes of one of Python's own numbers; a subclass (an enumeration, say) is an object.
fn python_number(value: &Bound<'_, PyAny>) -> PyResult<Option<(DType, [u8; 16])>> {
    let mut bytes = [0; 16];
    let mut put = |from: &[u8]| {
        for (to, from) in bytes.iter_mut().zip(from) {
            *to = *from;
        }
    };
    let dtype = if let Ok(number) = value.cast_exact::<PyFloat>() {
        put(&number.extract::<f64>()?.to_ne_bytes());
        DType::Float64
    } else if let Ok(flag) = value.cast_exact::<PyBool>() {
        put(&[u8::from(flag.is_true())]);
        DType::Bool
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        put(&number.extract::<i64>().map_err(|_| too_large(number))?.to_ne_bytes());
        DType::Int64
    } else if let Ok(number) = value.cast_exact::<PyComplex>() {
        put(&number.getattr("real")?.extract::<f64>()?.to_ne_bytes());
        let imaginary = number.getattr("imag")?.extract::<f64>()?.to_ne_bytes();
        for (to, from) in bytes.iter_mut().skip(8).zip(imaginary) {
            *to = from;
        }
        DType::Complex128
    } else {
        return Ok(None);
    };
    Ok(Some((dtype, bytes)))
}

fn too_large(number: &Bound<'_, PyInt>) -> PyErr {
    let message = format!("the integer {number} does not fit int64; pass it as text or inside a list");
    errors::raised(number.py(), ErrorKind::Item, &message)
}

/// A copy in C order.
pub(crate) fn contiguous_copy<'py>(
    array: &Bound<'py, PyUntypedArray>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let copy = array.call_method1(intern!(array.py(), "copy"), (intern!(array.py(), "C"),))?;
    Ok(copy.cast_into::<PyUntypedArray>()?)
}

struct NumPy {
    asarray: Py<PyAny>,
    from_dlpack: Py<PyAny>,
    generic: Py<PyAny>,
    memmap: Py<PyAny>,
}

static NUMPY: PyOnceLock<NumPy> = PyOnceLock::new();

fn numpy(py: Python<'_>) -> PyResult<&NumPy> {
    NUMPY.get_or_try_init(py, || {
        let module = PyModule::import(py, "numpy")?;
        Ok(NumPy {
            asarray: module.getattr("asarray")?.unbind(),
            from_dlpack: module.getattr("from_dlpack")?.unbind(),
            generic: module.getattr("generic")?.unbind(),
            memmap: module.getattr("memmap")?.unbind(),
        })
    })
}

/// True for NumPy's scalars.
pub(crate) fn is_numpy_scalar(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.is_instance(numpy(value.py())?.generic.bind(value.py()))
}

/// `value` as an array, where it is a NumPy scalar, a memory map or a tensor that speaks DLPack.
fn as_array<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let py = value.py();
    let numpy = numpy(py)?;
    if value.is_instance(numpy.generic.bind(py))? || value.is_instance(numpy.memmap.bind(py))? {
        let array = numpy.asarray.bind(py).call1((value,))?;
        return Ok(arrays::as_exact(&array).cloned());
    }
    let foreign = !value.is_instance_of::<PyUntypedArray>();
    if foreign && value.hasattr(intern!(py, "__dlpack__"))? {
        return from_dlpack(value).map(Some);
    }
    Ok(None)
}

/// A tensor of another library as an array over the same memory.
pub(crate) fn from_dlpack<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = value.py();
    let array = numpy(py)?.from_dlpack.bind(py).call1((value,)).map_err(|cause| {
        let message = format!(
            "a {} could not be read through dlpack: {cause}; move it to the cpu and detach it first",
            value.get_type()
        );
        let cause = cause.into_value(py).into_bound(py).into_any();
        errors::exception(py, ErrorKind::Item, &message, Some(&cause))
            .map_or_else(|error| error, PyErr::from_value)
    })?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}
