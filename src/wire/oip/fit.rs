//! Whether what a request names is what the model declared, in whichever form the request came.

use super::WantedOutput;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::TensorSpec;

/// Elements in one input at most; more than any body within a sane limit can hold.
const MOST_ELEMENTS: usize = 1 << 32;

/// The one input of that name.
pub(super) fn one_input<'a, T>(given: &'a [T], name: &str, name_of: impl Fn(&T) -> &str) -> Result<&'a T> {
    let mut found = given.iter().filter(|input| name_of(input) == name);
    match (found.next(), found.next()) {
        (Some(input), None) => Ok(input),
        (None, _) => Err(refused(format!("input '{name}' is missing"))),
        _ => Err(refused(format!("input '{name}' is given twice"))),
    }
}

/// Makes sure that an input of this data type and shape is the one that was declared. Nothing is cast.
pub(super) fn check(spec: &TensorSpec, datatype: &str, shape: &[usize]) -> Result<()> {
    let declared = spec.elements.oip_name().unwrap_or("none");
    if datatype != declared {
        return Err(refused(format!(
            "input '{}' has datatype {datatype}; the model wants {declared}",
            spec.name
        )));
    }
    // An axis of length 0 counts as 1: rows without elements are rows, too.
    let elements = shape.iter().try_fold(1_usize, |product, axis| product.checked_mul((*axis).max(1)));
    match shape.split_first() {
        _ if elements.is_none_or(|elements| elements > MOST_ELEMENTS) => Err(refused(format!(
            "input '{}' of shape {shape:?} has more than {MOST_ELEMENTS} elements",
            spec.name
        ))),
        Some((0, _)) => Err(refused(format!("input '{}' has no rows", spec.name))),
        Some((_, row)) if spec.fits(row) => Ok(()),
        _ => Err(refused(format!(
            "input '{}' has shape {shape:?}; the model wants [rows] and then {:?}",
            spec.name,
            spec.shown_axes()
        ))),
    }
}

/// The rows that all inputs have, by their shapes.
pub(super) fn common_count<'a>(shapes: impl Iterator<Item = &'a [usize]>) -> Result<usize> {
    let mut counts = shapes.filter_map(|shape| shape.first().copied());
    let first = counts.next().ok_or_else(|| refused("the model has no inputs".to_owned()))?;
    if counts.all(|count| count == first) {
        Ok(first)
    } else {
        Err(refused("the inputs have different numbers of rows".to_owned()))
    }
}

/// Makes sure that an input is one of the model's.
pub(super) fn known_input(name: &str, inputs: &[TensorSpec]) -> Result<()> {
    if inputs.iter().any(|spec| spec.name == name) {
        return Ok(());
    }
    Err(refused(unknown("input", name, inputs)))
}

/// Which of the model's outputs is asked for, next to those that are asked for already.
pub(super) fn wanted_output(name: &str, outputs: &[TensorSpec], wanted: &[WantedOutput]) -> Result<usize> {
    let Some(index) = outputs.iter().position(|spec| spec.name == name) else {
        return Err(refused(unknown("output", name, outputs)));
    };
    if wanted.iter().any(|other| other.index == index) {
        return Err(refused(format!("output '{name}' is asked for twice")));
    }
    Ok(index)
}

/// The refusal of an extension that is not spoken here.
pub(super) fn unsupported(what: &str, name: &str, extension: &str) -> Error {
    refused(format!("{what} '{name}' {extension}: that extension is not supported"))
}

pub(super) fn refused(message: String) -> Error {
    Error::new(ErrorKind::Item, message)
}

fn unknown(what: &str, name: &str, specs: &[TensorSpec]) -> String {
    let known: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
    format!("there is no {what} '{name}'; the model has {known:?}")
}
