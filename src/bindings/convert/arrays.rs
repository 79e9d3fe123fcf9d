//! NumPy arrays by their memory: the one file that reads and makes them through NumPy's C interface.
#![allow(unsafe_code, reason = "NumPy's C interface; every block states what it relies on")]

use std::ffi::c_int;
use std::sync::Arc;

use numpy::npyffi::{self, NPY_TYPES, PY_ARRAY_API, npy_intp};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::type_object::PyTypeInfo;
use smallvec::SmallVec;

use crate::bindings::weights::TensorMemory;
use crate::formats::safetensors::Span;
use crate::tensor::{ColumnSpec, DType, Memory, Shape};

/// Memory of a batch, kept alive by every array that looks at it. When the last one goes, the memory serves again.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct BatchMemory {
    /// Read by NumPy alone, through the pointer that an array was made with.
    _memory: Memory,
}

/// What `ml_dtypes` adds to NumPy: a data type of its own, whose number is known once it is imported.
struct BFloat16 {
    descr: Py<PyArrayDescr>,
    number: c_int,
}

static BFLOAT16: PyOnceLock<BFloat16> = PyOnceLock::new();

/// # Errors
/// `ImportError` where `ml_dtypes` is not installed.
fn bfloat16(py: Python<'_>) -> PyResult<&BFloat16> {
    BFLOAT16.get_or_try_init(py, || {
        let scalar = PyModule::import(py, intern!(py, "ml_dtypes"))?.getattr(intern!(py, "bfloat16"))?;
        let descr = PyArrayDescr::new(py, scalar)?;
        Ok(BFloat16 { number: descr.num(), descr: descr.unbind() })
    })
}

/// The type of a descriptor, where Penstock gathers it. Byte order is looked at elsewhere.
fn dtype_of(descr: &Bound<'_, PyArrayDescr>) -> Option<DType> {
    let number = descr.num();
    if number < NPY_TYPES::NPY_USERDEF as c_int {
        return dtype_of_number(number);
    }
    // Other packages have types of that name, too: the number decides.
    let may_be = descr.typeobj().name().is_ok_and(|name| name == DType::BFloat16.name());
    (may_be && bfloat16(descr.py()).is_ok_and(|known| known.number == number)).then_some(DType::BFloat16)
}

/// NumPy's own types.
fn dtype_of_number(number: c_int) -> Option<DType> {
    // C's `long` and `long long` are different numbers of the same width; the width is what counts here.
    const LONG_IS_64: bool = std::mem::size_of::<std::ffi::c_long>() == 8;
    let (long, ulong) =
        if LONG_IS_64 { (DType::Int64, DType::UInt64) } else { (DType::Int32, DType::UInt32) };
    Some(match number {
        n if n == NPY_TYPES::NPY_BOOL as c_int => DType::Bool,
        n if n == NPY_TYPES::NPY_BYTE as c_int => DType::Int8,
        n if n == NPY_TYPES::NPY_UBYTE as c_int => DType::UInt8,
        n if n == NPY_TYPES::NPY_SHORT as c_int => DType::Int16,
        n if n == NPY_TYPES::NPY_USHORT as c_int => DType::UInt16,
        n if n == NPY_TYPES::NPY_INT as c_int => DType::Int32,
        n if n == NPY_TYPES::NPY_UINT as c_int => DType::UInt32,
        n if n == NPY_TYPES::NPY_LONG as c_int => long,
        n if n == NPY_TYPES::NPY_ULONG as c_int => ulong,
        n if n == NPY_TYPES::NPY_LONGLONG as c_int => DType::Int64,
        n if n == NPY_TYPES::NPY_ULONGLONG as c_int => DType::UInt64,
        n if n == NPY_TYPES::NPY_HALF as c_int => DType::Float16,
        n if n == NPY_TYPES::NPY_FLOAT as c_int => DType::Float32,
        n if n == NPY_TYPES::NPY_DOUBLE as c_int => DType::Float64,
        n if n == NPY_TYPES::NPY_CFLOAT as c_int => DType::Complex64,
        n if n == NPY_TYPES::NPY_CDOUBLE as c_int => DType::Complex128,
        _ => return None,
    })
}

/// NumPy's descriptor of a type.
///
/// # Errors
/// `ImportError` for bfloat16 where `ml_dtypes` is not installed.
fn descr_of(py: Python<'_>, dtype: DType) -> PyResult<Bound<'_, PyArrayDescr>> {
    let number = match dtype {
        DType::Bool => NPY_TYPES::NPY_BOOL,
        DType::Int8 => NPY_TYPES::NPY_BYTE,
        DType::Int16 => NPY_TYPES::NPY_SHORT,
        DType::Int32 => NPY_TYPES::NPY_INT,
        DType::Int64 if std::mem::size_of::<std::ffi::c_long>() == 8 => NPY_TYPES::NPY_LONG,
        DType::Int64 => NPY_TYPES::NPY_LONGLONG,
        DType::UInt8 => NPY_TYPES::NPY_UBYTE,
        DType::UInt16 => NPY_TYPES::NPY_USHORT,
        DType::UInt32 => NPY_TYPES::NPY_UINT,
        DType::UInt64 if std::mem::size_of::<std::ffi::c_long>() == 8 => NPY_TYPES::NPY_ULONG,
        DType::UInt64 => NPY_TYPES::NPY_ULONGLONG,
        DType::Float16 => NPY_TYPES::NPY_HALF,
        DType::Float32 => NPY_TYPES::NPY_FLOAT,
        DType::Float64 => NPY_TYPES::NPY_DOUBLE,
        DType::Complex64 => NPY_TYPES::NPY_CFLOAT,
        DType::Complex128 => NPY_TYPES::NPY_CDOUBLE,
        DType::BFloat16 => return Ok(bfloat16(py)?.descr.bind(py).clone()),
    };
    // SAFETY: the lock is held, and the number is one of NumPy's own types: it gives a new reference to a descriptor.
    unsafe {
        let descr = PY_ARRAY_API.PyArray_DescrFromType(py, number as c_int);
        Ok(Bound::from_owned_ptr_or_err(py, descr.cast())?.cast_into_unchecked())
    }
}

/// True where `object` is an array and not of a subclass, whose rows would lose what the subclass adds.
pub(crate) fn as_exact<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyUntypedArray>> {
    let ndarray = PyUntypedArray::type_object_raw(object.py());
    if object.get_type_ptr() == ndarray { object.cast::<PyUntypedArray>().ok() } else { None }
}

/// What a row of this array would be in a batch, and whether its memory can be copied as it is; `None` where NumPy
/// alone can gather it (dates, fixed-width text, records, foreign byte order, objects).
pub(crate) fn describe(array: &Bound<'_, PyUntypedArray>) -> Option<(ColumnSpec, bool)> {
    let descr = array.dtype();
    let dtype = dtype_of(&descr)?;
    if descr.is_native_byteorder() == Some(false) {
        return None;
    }
    let spec = ColumnSpec::Numbers { dtype, shape: Shape::from_slice(array.shape()) };
    Some((spec, array.is_c_contiguous()))
}

/// The type of the array's elements, where Penstock gathers it.
pub(crate) fn dtype(array: &Bound<'_, PyUntypedArray>) -> Option<DType> {
    let descr = array.dtype();
    if descr.is_native_byteorder() == Some(false) { None } else { dtype_of(&descr) }
}

/// Hands the bytes of a C-contiguous array of plain numbers to `copy`, which must not call into Python.
pub(crate) fn with_bytes<T>(array: &Bound<'_, PyUntypedArray>, copy: impl FnOnce(&[u8]) -> T) -> T {
    debug_assert!(array.is_c_contiguous());
    let length = array.len() * array.dtype().itemsize();
    // SAFETY: `array` is bound, so it is alive and the lock is held; its memory is `length` bytes from `data`, because it
    // is C-contiguous, and initialised, because NumPy arrays of plain numbers always are. `copy` cannot keep the slice
    // and does not call into Python, so nothing under the lock writes to it meanwhile.
    let bytes = unsafe {
        let data = (*array.as_array_ptr()).fields.data.cast::<u8>();
        std::slice::from_raw_parts(if length == 0 { std::ptr::dangling() } else { data }, length)
    };
    copy(bytes)
}

/// NumPy's descriptor of a type, for whoever makes arrays through NumPy.
///
/// # Errors
/// As [`descr_of`].
pub(crate) fn descr(py: Python<'_>, dtype: DType) -> PyResult<Bound<'_, PyArrayDescr>> {
    descr_of(py, dtype)
}

/// As [`with_bytes`], for an array that [`over_memory`] made.
pub(crate) fn with_view_bytes<T: Default>(array: &Bound<'_, PyAny>, look: impl FnOnce(&[u8]) -> T) -> T {
    array.cast::<PyUntypedArray>().map_or_else(|_| T::default(), |array| with_bytes(array, look))
}

/// An array of `rows` rows over `memory`, writable, which keeps the memory alive.
pub(crate) fn over_memory<'py>(
    py: Python<'py>,
    dtype: DType,
    shape: &[usize],
    rows: usize,
    mut memory: Memory,
) -> PyResult<Bound<'py, PyAny>> {
    debug_assert_eq!(memory.as_slice().len(), rows * shape.iter().product::<usize>() * dtype.size());
    let descr = descr_of(py, dtype)?;
    let data = memory.as_mut_slice().as_mut_ptr();
    let owner = Bound::new(py, BatchMemory { _memory: memory })?;
    let mut axes: SmallVec<[npy_intp; 5]> =
        std::iter::once(&rows).chain(shape).map(|axis| npy_intp::try_from(*axis).unwrap_or(0)).collect();
    // SAFETY: `data` points at `rows * shape` elements (asserted above, kept by the batcher's columns) which live as long
    // as `owner`: moving `Memory` moves its pointer, not its allocation. Nobody else touches them: the core has handed
    // the memory over. `PyArray_SetBaseObject` steals the reference to `owner`, also where it fails; `NewFromDescr`
    // steals the one to the descriptor.
    unsafe {
        let subtype = PyUntypedArray::type_object_raw(py);
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            subtype,
            descr.into_ptr().cast(),
            c_int::try_from(axes.len()).unwrap_or(0),
            axes.as_mut_ptr(),
            std::ptr::null_mut(),
            data.cast(),
            npyffi::NPY_ARRAY_CARRAY,
            std::ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        if PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), owner.into_ptr()) < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(array)
    }
}

/// A read-only array over bytes of `owner`, which it keeps alive.
///
/// # Errors
/// `ValueError` where the bytes do not belong to `owner`, are not as many as elements of this type and shape take, or lie
/// where such elements may not; where elements are more than plain numbers; where NumPy can have no such shape.
pub(crate) fn over_weights<'py>(
    owner: &Bound<'py, TensorMemory>,
    bytes: &Span,
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let py = owner.py();
    let needed = shape.iter().try_fold(descr.itemsize(), |size, axis| size.checked_mul(*axis));
    let plain = !descr.has_object() && !descr.has_subarray() && descr.is_native_byteorder() != Some(false);
    let own = Arc::ptr_eq(owner.get().region(), bytes.region());
    if !own || !plain || needed != Some(bytes.len()) || !bytes.is_aligned(descr.alignment()) {
        return Err(PyValueError::new_err("these bytes are no such array"));
    }
    let mut axes: SmallVec<[npy_intp; 5]> =
        shape.iter().map(|axis| npy_intp::try_from(*axis).unwrap_or(npy_intp::MAX)).collect();
    let data = bytes.as_slice().as_ptr().cast_mut();
    // SAFETY: the lock is held. `data` points at as many bytes as the elements take (checked above), of plain numbers that
    // any bits are good for, in a region that `owner` holds and that neither moves nor changes; the array holds `owner`.
    // Without the flag that it is writable NumPy does not write through the pointer, and cannot be told to: the base is no
    // buffer. `NewFromDescr` steals the reference to the descriptor, `SetBaseObject` the one to the owner, also where
    // they fail.
    unsafe {
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            PyUntypedArray::type_object_raw(py),
            descr.clone().into_ptr().cast(),
            c_int::try_from(axes.len()).unwrap_or(c_int::MAX),
            axes.as_mut_ptr(),
            std::ptr::null_mut(),
            data.cast(),
            0,
            std::ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        if PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), owner.clone().into_ptr()) < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(array)
    }
}

/// An array of its own memory, and where its bytes are and how many: nobody has written them yet.
fn unwritten<'py>(
    py: Python<'py>,
    dtype: DType,
    shape: &[usize],
) -> PyResult<(Bound<'py, PyAny>, *mut u8, usize)> {
    let descr = descr_of(py, dtype)?;
    let mut axes: SmallVec<[npy_intp; 5]> =
        shape.iter().map(|axis| npy_intp::try_from(*axis).unwrap_or(npy_intp::MAX)).collect();
    // SAFETY: the lock is held; NumPy makes the memory, or fails for a shape that no memory has. It steals the reference to
    // the descriptor.
    let array = unsafe {
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            PyUntypedArray::type_object_raw(py),
            descr.into_ptr().cast(),
            c_int::try_from(axes.len()).unwrap_or(c_int::MAX),
            axes.as_mut_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(py, array)?
    };
    let known = array.cast::<PyUntypedArray>()?;
    let room = known.len() * dtype.size();
    // SAFETY: the array is alive; the field is a plain pointer, to `room` bytes that NumPy has just made, C-contiguous.
    let place = unsafe { (*known.as_array_ptr()).fields.data.cast::<u8>() };
    Ok((array, place, room))
}

/// An array of its own memory with the elements of a tensor as the wire has them: little-endian, row by row. `data` has
/// the length that the shape says.
pub(crate) fn from_wire<'py>(
    py: Python<'py>,
    dtype: DType,
    shape: &[usize],
    data: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    debug_assert_eq!(data.len(), shape.iter().product::<usize>() * dtype.size());
    let (array, place, room) = unwritten(py, dtype, shape)?;
    // SAFETY: there are `room` bytes at `place`, of which nobody else knows; `data` is apart from them, and no more than
    // what fits is copied.
    unsafe {
        std::ptr::copy_nonoverlapping(data.as_ptr(), place, room.min(data.len()));
        if cfg!(target_endian = "big") {
            let bytes = std::slice::from_raw_parts_mut(place, room);
            bytes.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
        }
    }
    Ok(array)
}

/// An array of its own memory of rows of that shape, in the machine's byte order; what they lack is zero.
pub(crate) fn from_rows<'py, 'a>(
    py: Python<'py>,
    dtype: DType,
    row: &[usize],
    rows: impl ExactSizeIterator<Item = &'a [u8]>,
) -> PyResult<Bound<'py, PyAny>> {
    let shape: Shape = std::iter::once(rows.len()).chain(row.iter().copied()).collect();
    let (array, place, room) = unwritten(py, dtype, &shape)?;
    let mut written = 0;
    for row in rows {
        let length = row.len().min(room - written);
        // SAFETY: there are `room` bytes at `place`, of which nobody else knows; the row is apart from them, and no more is
        // copied than fits behind what was written.
        unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), place.add(written), length) };
        written += length;
    }
    // SAFETY: as above, for the bytes that are left.
    unsafe { std::ptr::write_bytes(place.add(written), 0, room - written) };
    Ok(array)
}

/// True where `array` owns its memory and the caller holds the only reference: nobody else can change it later.
pub(crate) fn is_exclusive(array: &Bound<'_, PyUntypedArray>) -> bool {
    // SAFETY: the lock is held and `array` is alive; the fields are plain values.
    let (owns, base) = unsafe {
        let fields = &(*array.as_array_ptr()).fields;
        (fields.flags & npyffi::NPY_ARRAY_OWNDATA != 0, fields.base)
    };
    owns && base.is_null() && is_held_once(array.as_any())
}

/// True where the array looks at memory that something else owns.
pub(crate) fn is_view(array: &Bound<'_, PyUntypedArray>) -> bool {
    // SAFETY: the lock is held and `array` is alive; the field is a plain pointer that is only compared.
    unsafe { !(*array.as_array_ptr()).fields.base.is_null() }
}

/// True where the caller's reference is the only one.
pub(crate) fn is_held_once(object: &Bound<'_, PyAny>) -> bool {
    references(object) <= 1
}

/// True where a container and the caller hold the only references.
pub(crate) fn is_held_twice(object: &Bound<'_, PyAny>) -> bool {
    references(object) <= 2
}

fn references(object: &Bound<'_, PyAny>) -> isize {
    // SAFETY: the lock is held and `object` is alive; the count is a plain value.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// True where the array's elements are Python objects, or records that hold some.
pub(crate) fn holds_objects(array: &Bound<'_, PyUntypedArray>) -> bool {
    array.dtype().has_object()
}
