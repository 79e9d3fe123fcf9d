//! A server's side of a request: from the message to columns that fit what the model declared.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::contents;
use crate::error::Result;
use crate::tensor::{Rows, Shape, Spares, Specs, TensorSpec};
use crate::wire::grpc::proto::inference::infer_parameter::ParameterChoice;
use crate::wire::grpc::proto::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use crate::wire::grpc::proto::inference::{InferParameter, ModelInferRequest};
use crate::wire::oip::fit::{
    check, common_count, known_input, one_input, refused, unsupported, wanted_output,
};
use crate::wire::oip::request::{NO_LEVEL, level_named, level_of, timeout_of};
use crate::wire::oip::{InferRequest, WantedOutput, binary};

/// An input, its shape as lengths, and its data where it came raw: its place among such, and its bytes.
struct Found<'a> {
    input: &'a InferInputTensor,
    shape: Shape,
    raw: Option<(usize, &'a Bytes)>,
}

impl InferRequest {
    /// Reads a message for a model with these inputs and outputs; memory comes from `spares`. The request is `binary`
    /// where its tensors came in `raw_input_contents`.
    ///
    /// # Errors
    /// [`ErrorKind::Item`](crate::error::ErrorKind::Item), naming the input, the field and what is wrong with it.
    /// Nothing is cast.
    pub fn from_message(
        message: &ModelInferRequest,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        spares: &Arc<Spares>,
    ) -> Result<Self> {
        let given = data_of_inputs(message, inputs)?;
        let mut specs = Specs::new();
        let mut ordered = SmallVec::<[&Found<'_>; 2]>::new();
        for spec in inputs {
            let found = one_input(&given, &spec.name, |found| &found.input.name)?;
            check(spec, &found.input.datatype, &found.shape)?;
            specs.push(spec.column(found.shape.get(1..).unwrap_or_default()));
            ordered.push(found);
        }
        let count = common_count(ordered.iter().map(|found| found.shape.as_slice()))?;
        let mut rows = Rows::new(&specs, spares);
        for ((column, spec), found) in rows.columns_mut().iter_mut().zip(inputs).zip(ordered) {
            let read = match found.raw {
                None => contents::read(column, spec.elements, &found.shape, found.input.contents.as_ref()),
                Some((at, bytes)) => {
                    let length_is = || format!("the length of raw_input_contents[{at}] is");
                    binary::read(column, spec.elements, &found.shape, bytes, &length_is)
                }
            };
            read.map_err(|why| refused(format!("input '{}': {why}", spec.name)))?;
        }
        let outputs = wanted_outputs(&message.outputs, outputs)?;
        let id = (!message.id.is_empty()).then(|| message.id.clone());
        let timeout = timeout(&message.parameters)?;
        let priority = priority(&message.parameters)?;
        let binary = !message.raw_input_contents.is_empty();
        Ok(Self { id, count, rows, specs, outputs, binary, timeout, priority })
    }
}

/// Each input with its data. Raw data lies in the order in which the request names its inputs.
fn data_of_inputs<'a>(
    message: &'a ModelInferRequest,
    inputs: &[TensorSpec],
) -> Result<SmallVec<[Found<'a>; 2]>> {
    let (named, raw) = (message.inputs.len(), message.raw_input_contents.len());
    if raw > 0 && raw != named {
        let message = format!("raw_input_contents has {raw} entries, and the request has {named} inputs");
        return Err(refused(message));
    }
    let mut found = SmallVec::with_capacity(named.min(inputs.len()));
    for (at, input) in message.inputs.iter().enumerate() {
        known_input(&input.name, inputs)?;
        if has(&input.parameters, SHARED_MEMORY) {
            return Err(unsupported("input", &input.name, "lies in shared memory"));
        }
        let raw = message.raw_input_contents.get(at);
        let typed = input.contents.as_ref().and_then(contents::first_field);
        if let (Some(field), Some(_)) = (typed, raw) {
            let name = &input.name;
            return Err(refused(format!(
                "input '{name}' has both {field} and raw_input_contents[{at}]: give its data once"
            )));
        }
        found.push(Found { input, shape: lengths(input)?, raw: raw.map(|bytes| (at, bytes)) });
    }
    Ok(found)
}

fn lengths(input: &InferInputTensor) -> Result<Shape> {
    let length = |axis: &i64| {
        usize::try_from(*axis).map_err(|_| {
            refused(format!("input '{}' has shape {:?}: an axis is negative", input.name, input.shape))
        })
    };
    input.shape.iter().map(length).collect()
}

fn wanted_outputs(
    named: &[InferRequestedOutputTensor],
    outputs: &[TensorSpec],
) -> Result<Option<Vec<WantedOutput>>> {
    if named.is_empty() {
        return Ok(None);
    }
    let mut wanted = Vec::<WantedOutput>::with_capacity(named.len().min(outputs.len()));
    for output in named {
        let index = wanted_output(&output.name, outputs, &wanted)?;
        if has(&output.parameters, "classification") {
            return Err(unsupported("output", &output.name, "is asked for as classification"));
        }
        if has(&output.parameters, SHARED_MEMORY) {
            return Err(unsupported("output", &output.name, "is asked for in shared memory"));
        }
        wanted.push(WantedOutput { index, binary: true });
    }
    Ok(Some(wanted))
}

/// The parameter `timeout` of a request, in microseconds.
fn timeout(parameters: &HashMap<String, InferParameter>) -> Result<Option<Duration>> {
    let given = parameters.get("timeout").and_then(|given| given.parameter_choice.as_ref());
    let microseconds = match given {
        None => return Ok(None),
        Some(ParameterChoice::Int64Param(given)) => u64::try_from(*given).ok(),
        Some(ParameterChoice::Uint64Param(given)) => Some(*given),
        Some(_) => None,
    };
    let wrong = || refused("the parameter timeout is no number of microseconds".to_owned());
    Ok(timeout_of(microseconds.ok_or_else(wrong)?))
}

/// The parameter `priority` of a request: a level, or its word.
fn priority(parameters: &HashMap<String, InferParameter>) -> Result<Option<u64>> {
    let given = parameters.get("priority").and_then(|given| given.parameter_choice.as_ref());
    let level = match given {
        None => return Ok(None),
        Some(ParameterChoice::Int64Param(given)) => u64::try_from(*given).ok().map(level_of),
        Some(ParameterChoice::Uint64Param(given)) => Some(level_of(*given)),
        Some(ParameterChoice::StringParam(name)) => level_named(name).map(Some),
        Some(_) => None,
    };
    level.ok_or_else(|| refused(NO_LEVEL.to_owned()))
}

const SHARED_MEMORY: &str = "shared_memory_region";

fn has(parameters: &HashMap<String, InferParameter>, name: &str) -> bool {
    !parameters.is_empty() && parameters.contains_key(name)
}
