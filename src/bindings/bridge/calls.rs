//! Calls of Python methods without the tuple and the bound method that the general way makes: these run once a request.
#![allow(
    unsafe_code,
    reason = "the C call takes its arguments as they are; every block states what it relies on"
)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// `function(first)`, for a function of a C class: it is found once, not looked up for each object.
pub(crate) fn function1<'py>(function: &Py<PyAny>, first: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both pointers come from live references and the lock is held (`first` is bound); the list of
    // arguments ends with null, as the function wants; it answers with a new reference or null with an exception set.
    unsafe {
        let result = ffi::PyObject_CallFunctionObjArgs(
            function.as_ptr(),
            first.as_ptr(),
            std::ptr::null_mut::<ffi::PyObject>(),
        );
        Bound::from_owned_ptr_or_err(first.py(), result)
    }
}

/// `function(first, second)`, as [`function1`].
pub(crate) fn function2<'py>(
    function: &Py<PyAny>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: as in `function1`, with one argument more.
    unsafe {
        let result = ffi::PyObject_CallFunctionObjArgs(
            function.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            std::ptr::null_mut::<ffi::PyObject>(),
        );
        Bound::from_owned_ptr_or_err(first.py(), result)
    }
}

/// `callable(*arguments, **keywords)` with objects that are made once and used for every call.
pub(crate) fn prepared<'py>(
    py: Python<'py>,
    callable: &Py<PyAny>,
    arguments: &Py<PyTuple>,
    keywords: &Py<PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: all three are alive and the lock is held (`py`); the function borrows them and answers with a new reference
    // or null with an exception set.
    unsafe {
        let result = ffi::PyObject_Call(callable.as_ptr(), arguments.as_ptr(), keywords.as_ptr());
        Bound::from_owned_ptr_or_err(py, result)
    }
}

/// What asyncio keeps in this thread's dictionary while a loop runs in it: a token that another loop, or the same loop run
/// again, never shares while it is alive. `None` where this Python keeps it elsewhere, or no loop ever ran here.
///
/// `asyncio.get_running_loop()` asks the kernel for the process number on Python 3.11, once a request; to compare a token
/// costs nothing. It is an optimisation only: without a token, asyncio is asked.
pub(crate) fn running_token<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: the lock is held (`py`), so this thread has a state; both functions answer with borrowed references or null,
    // and the first reference is only used before anything else can run. An error of the look-up is cleared by nobody
    // else: a string key raises none.
    unsafe {
        let dictionary = ffi::PyThreadState_GetDict();
        if dictionary.is_null() {
            return None;
        }
        Bound::from_borrowed_ptr_or_opt(py, ffi::PyDict_GetItemWithError(dictionary, name.as_ptr()))
    }
}
