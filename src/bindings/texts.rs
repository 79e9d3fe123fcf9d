//! What a text model yields, taken to those who wait for it: no Python runs for a request.

use std::task::Waker;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::errors;
use crate::batch::Place;
use crate::error::ErrorKind;
use crate::pipeline::{Piece, Speaker};

/// A value of a step and the request that it is for.
pub(crate) type For<'py> = (Place, Bound<'py, PyAny>);

/// The values of a step by request: a list or a tuple has one for each that is live, a dictionary some by index.
///
/// # Errors
/// `OutputError` where it is neither, has another number of values, or names one that is not live.
pub(crate) fn values_of<'py>(yielded: &Bound<'py, PyAny>, live: &[Place]) -> PyResult<Vec<For<'py>>> {
    let py = yielded.py();
    if let Ok(list) = yielded.cast::<PyList>() {
        check_count(py, list.len(), live.len())?;
        return Ok(live.iter().copied().zip(list.iter()).collect());
    }
    if let Ok(tuple) = yielded.cast::<PyTuple>() {
        check_count(py, tuple.len(), live.len())?;
        return Ok(live.iter().copied().zip(tuple.iter()).collect());
    }
    let Ok(values) = yielded.cast::<PyDict>() else {
        let what = yielded.get_type().name()?;
        let message = format!("a step is a list with a text for each live request, or a dict, not a {what}");
        return Err(errors::raised(py, ErrorKind::Output, &message));
    };
    values.iter().map(|(index, value)| Ok((place_of(&index, live)?, value))).collect()
}

/// The place of a live request.
///
/// # Errors
/// `OutputError` where none has that index.
pub(crate) fn place_of(index: &Bound<'_, PyAny>, live: &[Place]) -> PyResult<Place> {
    let at = index.extract::<usize>().ok();
    let at = at.and_then(|index| live.binary_search_by_key(&index, |place| place.index).ok());
    if let Some(place) = at.and_then(|at| live.get(at)) {
        return Ok(*place);
    }
    let live: Vec<_> = live.iter().map(|place| place.index).collect();
    let message = format!("a step has a value for {}, which is not live; live are {live:?}", index.repr()?);
    Err(errors::raised(index.py(), ErrorKind::Output, &message))
}

/// Says a text, which is `str` or `bytes`, to a request; `None` says nothing. Whom to wake.
///
/// # Errors
/// `OutputError` for anything else.
pub(crate) fn say(speaker: &Speaker, text: &Bound<'_, PyAny>) -> PyResult<Option<Waker>> {
    if let Ok(text) = text.cast::<PyString>() {
        let text = text.to_str().map_err(|error| {
            errors::raised(text.py(), ErrorKind::Output, &format!("a text that is no utf-8: {error}"))
        })?;
        return Ok(speaker.say(Piece::Text(Bytes::copy_from_slice(text.as_bytes()))));
    }
    if let Ok(bytes) = text.cast::<PyBytes>() {
        return Ok(speaker.say_bytes(bytes.as_bytes()));
    }
    if text.is_none() {
        return Ok(None);
    }
    let what = text.get_type().name()?;
    Err(errors::raised(text.py(), ErrorKind::Output, &format!("a text is str or bytes, not {what}")))
}

fn check_count(py: Python<'_>, count: usize, live: usize) -> PyResult<()> {
    if count == live {
        return Ok(());
    }
    let message = format!("the function's step has {count} texts for {live} live requests");
    Err(errors::raised(py, ErrorKind::Output, &message))
}
