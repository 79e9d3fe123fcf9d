//! An inference request, from its JSON to columns that fit what the model declared.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::flatten::{Flatten, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Column, Rows, Spares, Specs, TensorSpec};

/// Elements in one input at most; more than any body within a sane limit can hold.
const MOST_ELEMENTS: usize = 1 << 32;

/// A request that fits its model.
#[derive(Debug)]
pub struct InferRequest {
    /// What the sender calls it; echoed.
    pub id: Option<String>,
    /// Rows in it: the length of the batch axis of every input.
    pub count: usize,
    /// One column for each input that the model declares, in that order.
    pub rows: Rows,
    /// What the columns hold.
    pub specs: Specs,
    /// The outputs that the sender wants, or `None` for all.
    pub outputs: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    inputs: SmallVec<[Input<'a>; 2]>,
    #[serde(borrow, default)]
    outputs: Option<Vec<Output<'a>>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: SmallVec<[usize; 4]>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl InferRequest {
    /// Reads the body of a request for a model with these inputs and outputs; memory comes from `spares`.
    ///
    /// # Errors
    /// [`ErrorKind::Item`], naming the input and what is wrong with it. Nothing is cast: a data type other than the
    /// declared one is refused.
    pub fn parse(
        body: &[u8],
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        spares: &Arc<Spares>,
    ) -> Result<Self> {
        let body: Body<'_> = serde_json::from_slice(body)
            .map_err(|error| refused(format!("the body is no inference request: {error}")))?;
        for given in &body.inputs {
            if !inputs.iter().any(|spec| spec.name == given.name) {
                let known: Vec<_> = inputs.iter().map(|spec| spec.name.as_str()).collect();
                return Err(refused(format!("there is no input '{}'; the model has {known:?}", given.name)));
            }
        }
        let mut specs = Specs::new();
        let mut given = SmallVec::<[&Input<'_>; 2]>::new();
        for spec in inputs {
            let input = one_input(&body.inputs, &spec.name)?;
            check(spec, input)?;
            specs.push(spec.column(input.shape.get(1..).unwrap_or_default()));
            given.push(input);
        }
        let count = common_count(&given)?;
        let mut rows = Rows::new(&specs, spares);
        for (column, input) in rows.columns_mut().iter_mut().zip(&given) {
            read_data(column, input)?;
        }
        let wanted = body.outputs.map(|wanted| wanted_outputs(&wanted, outputs)).transpose()?;
        Ok(Self { id: body.id.map(Cow::into_owned), count, rows, specs, outputs: wanted })
    }
}

fn one_input<'a, 'b>(inputs: &'b [Input<'a>], name: &str) -> Result<&'b Input<'a>> {
    let mut found = inputs.iter().filter(|input| input.name == name);
    match (found.next(), found.next()) {
        (Some(input), None) => Ok(input),
        (None, _) => Err(refused(format!("input '{name}' is missing"))),
        _ => Err(refused(format!("input '{name}' is given twice"))),
    }
}

fn check(spec: &TensorSpec, input: &Input<'_>) -> Result<()> {
    let declared = spec.elements.oip_name().unwrap_or("none");
    if input.datatype != declared {
        return Err(refused(format!(
            "input '{}' has datatype {}; the model wants {declared}",
            spec.name, input.datatype
        )));
    }
    // An axis of length 0 counts as 1: rows without elements are rows, too.
    let elements = input.shape.iter().try_fold(1_usize, |product, axis| product.checked_mul((*axis).max(1)));
    match input.shape.split_first() {
        _ if elements.is_none_or(|elements| elements > MOST_ELEMENTS) => Err(refused(format!(
            "input '{}' of shape {:?} has more than {MOST_ELEMENTS} elements",
            spec.name, input.shape
        ))),
        Some((0, _)) => Err(refused(format!("input '{}' has no rows", spec.name))),
        Some((_, row)) if spec.fits(row) => Ok(()),
        _ => Err(refused(format!(
            "input '{}' has shape {:?}; the model wants [rows] and then {:?}",
            spec.name,
            input.shape,
            spec.shown_axes()
        ))),
    }
}

fn common_count(given: &[&Input<'_>]) -> Result<usize> {
    let mut counts = given.iter().filter_map(|input| input.shape.first().copied());
    let first = counts.next().ok_or_else(|| refused("the model has no inputs".to_owned()))?;
    if counts.all(|count| count == first) {
        Ok(first)
    } else {
        Err(refused("the inputs have different numbers of rows".to_owned()))
    }
}

fn read_data(column: &mut Column, input: &Input<'_>) -> Result<()> {
    let mut json = serde_json::Deserializer::from_str(input.data.get());
    let seed = Flatten { column, axes: &input.shape, depth: 0 };
    match seed.deserialize(&mut json) {
        Ok(Found::List) => Ok(()),
        Ok(Found::Element) => Err(refused(format!("input '{}': data must be a list", input.name))),
        Err(error) => Err(refused(format!("input '{}': {error}", input.name))),
    }
}

fn wanted_outputs(wanted: &[Output<'_>], outputs: &[TensorSpec]) -> Result<Vec<String>> {
    let check = |output: &Output<'_>| {
        if outputs.iter().any(|spec| spec.name == output.name) {
            Ok(output.name.clone().into_owned())
        } else {
            let known: Vec<_> = outputs.iter().map(|spec| spec.name.as_str()).collect();
            Err(refused(format!("there is no output '{}'; the model has {known:?}", output.name)))
        }
    };
    wanted.iter().map(check).collect()
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Item, message)
}
