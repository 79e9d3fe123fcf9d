//! An inference request, from its body to columns that fit what the model declared.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::envelope::{Envelope, GivenInput, NamedOutput, Object};
use super::fit::{check, common_count, known_input, one_input, refused, unsupported, wanted_output};
use super::{binary, flatten};
use crate::error::Result;
use crate::tensor::{Rows, Spares, Specs, TensorSpec};

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
    /// The outputs that the sender wants, each once, or `None` for all.
    pub outputs: Option<Vec<WantedOutput>>,
    /// True where outputs that are not named in [`outputs`](Self::outputs) are to be sent as binary data.
    pub binary: bool,
    /// The time that it may take, where its parameter `timeout` says so.
    pub timeout: Option<Duration>,
    /// The level that its parameter `priority` names: 1 is the highest, as in Triton's protocol.
    pub priority: Option<u64>,
}

/// The time that so many microseconds are; none stand for no limit.
pub(super) fn timeout_of(microseconds: u64) -> Option<Duration> {
    (microseconds > 0).then(|| Duration::from_micros(microseconds))
}

/// The level that a number stands for; none stands for the usual one.
pub(super) fn level_of(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// The level that a word stands for.
pub(super) fn level_named(name: &str) -> Option<u64> {
    ["high", "normal", "low"].iter().zip(1..).find(|(known, _)| **known == name).map(|(_, level)| level)
}

/// What the parameter `priority` is where it is no level.
pub(super) const NO_LEVEL: &str =
    "the parameter priority is no whole number, and none of 'high', 'normal' and 'low'";

/// An output that the sender wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedOutput {
    /// Which of the model's outputs it is.
    pub index: usize,
    /// True where it is to be sent as binary data, false for JSON.
    pub binary: bool,
}

/// Where the data of an input lies.
#[derive(Clone, Copy)]
enum Data<'a> {
    Json(&'a str),
    Binary(&'a [u8]),
}

/// An input and its data.
type Found<'a, 'b> = (&'b GivenInput<'a>, Data<'a>);

impl InferRequest {
    /// A request for all outputs of so many rows, by nobody in particular.
    pub fn of_rows(specs: Specs, rows: Rows, count: usize) -> Self {
        Self { id: None, count, rows, specs, outputs: None, binary: false, timeout: None, priority: None }
    }

    /// Reads the body of a request for a model with these inputs and outputs; memory comes from `spares`.
    ///
    /// `header_length` is the value of `Inference-Header-Content-Length`: the bytes of the JSON that binary data follows.
    /// `None` means that the body is JSON as a whole. `null` for an optional key is as good as none.
    ///
    /// # Errors
    /// [`ErrorKind::Item`](crate::error::ErrorKind::Item), naming the input and what is wrong with it. Nothing is cast: a
    /// data type other than the declared one is refused.
    pub fn parse(
        body: &[u8],
        header_length: Option<usize>,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        spares: &Arc<Spares>,
    ) -> Result<Self> {
        let (json, binary) = halves(body, header_length)?;
        let Object(envelope) = serde_json::from_slice::<Object<Envelope<'_>>>(json)
            .map_err(|error| refused(format!("the body is no inference request: {error}")))?;
        let given = data_of_inputs(&envelope.inputs, inputs, binary)?;
        let mut specs = Specs::new();
        let mut ordered = SmallVec::<[Found<'_, '_>; 2]>::new();
        for spec in inputs {
            let found = one_input(&given, &spec.name, |(input, _)| &input.name)?;
            check(spec, &found.0.datatype, &found.0.shape)?;
            specs.push(spec.column(found.0.shape.get(1..).unwrap_or_default()));
            ordered.push(*found);
        }
        let count = common_count(ordered.iter().map(|(input, _)| input.shape.as_slice()))?;
        let mut rows = Rows::new(&specs, spares);
        for ((column, spec), (input, data)) in rows.columns_mut().iter_mut().zip(inputs).zip(ordered) {
            let read = match data {
                Data::Json(json) => flatten::read(column, &input.shape, json),
                Data::Binary(bytes) => binary::read(column, spec.elements, &input.shape, bytes, &|| {
                    "binary_data_size is".to_owned()
                }),
            };
            read.map_err(|why| refused(format!("input '{}': {why}", input.name)))?;
        }
        let parameters = envelope.parameters.map(|Object(parameters)| parameters);
        let timeout = parameters.as_ref().and_then(|given| timeout_of(given.timeout?));
        let priority = parameters.as_ref().and_then(|given| given.priority?.0);
        let binary = parameters.and_then(|given| given.binary_data_output).unwrap_or(false);
        let wanted = envelope.outputs.filter(|named| !named.is_empty());
        let wanted = wanted.map(|named| wanted_outputs(&named, outputs, binary)).transpose()?;
        Ok(Self { id: envelope.id, count, rows, specs, outputs: wanted, binary, timeout, priority })
    }
}

/// The JSON of a body, and the binary data after it.
fn halves(body: &[u8], header_length: Option<usize>) -> Result<(&[u8], &[u8])> {
    let Some(length) = header_length else { return Ok((body, &[])) };
    if length == 0 {
        return Err(refused("inference-header-content-length is 0: a body needs its json".to_owned()));
    }
    body.split_at_checked(length).ok_or_else(|| {
        refused(format!("inference-header-content-length is {length}, and the body has {} bytes", body.len()))
    })
}

/// Each input with its data. Binary data lies in the order in which the request names its inputs.
fn data_of_inputs<'a, 'b>(
    given: &'b [Object<GivenInput<'a>>],
    inputs: &[TensorSpec],
    mut binary: &'a [u8],
) -> Result<SmallVec<[Found<'a, 'b>; 2]>> {
    let mut found = SmallVec::new();
    for Object(input) in given {
        known_input(&input.name, inputs)?;
        let refused = |why: &str| refused(format!("input '{}' {why}", input.name));
        let parameters = input.parameters.as_ref().map(|Object(parameters)| parameters);
        if parameters.is_some_and(|given| given.shared_memory_region.is_some()) {
            return Err(unsupported("input", &input.name, "lies in shared memory"));
        }
        let data = match (input.data, parameters.and_then(|given| given.binary_data_size)) {
            (Some(json), None) => Data::Json(json.get()),
            (None, Some(size)) => {
                let cut = usize::try_from(size).ok().and_then(|size| binary.split_at_checked(size));
                let (data, rest) = cut.ok_or_else(|| {
                    let left = binary.len();
                    refused(&format!("has binary_data_size {size}, and {left} bytes of binary data are left"))
                })?;
                binary = rest;
                Data::Binary(data)
            }
            (None, None) => return Err(refused("has neither data nor binary_data_size")),
            (Some(_), Some(_)) => return Err(refused("has both data and binary_data_size")),
        };
        found.push((input, data));
    }
    if binary.is_empty() {
        Ok(found)
    } else {
        Err(refused(format!("{} bytes follow the binary data of the inputs", binary.len())))
    }
}

fn wanted_outputs(
    named: &[Object<NamedOutput<'_>>],
    outputs: &[TensorSpec],
    binary: bool,
) -> Result<Vec<WantedOutput>> {
    let mut wanted = Vec::<WantedOutput>::with_capacity(named.len().min(outputs.len()));
    for Object(output) in named {
        let name = &output.name;
        let index = wanted_output(name, outputs, &wanted)?;
        let mut of_its_own = None;
        if let Some(Object(parameters)) = &output.parameters {
            if parameters.classification.is_some() {
                return Err(unsupported("output", name, "is asked for as classification"));
            }
            if parameters.shared_memory_region.is_some() {
                return Err(unsupported("output", name, "is asked for in shared memory"));
            }
            of_its_own = parameters.binary_data;
        }
        wanted.push(WantedOutput { index, binary: of_its_own.unwrap_or(binary) });
    }
    Ok(wanted)
}
