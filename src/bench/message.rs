//! Whether the answer to a call is an inference response of the Open Inference Protocol, version 2.

use prost::Message;

use super::check::datatype_bytes;
use crate::wire::grpc::proto::inference::model_infer_response::InferOutputTensor;
use crate::wire::grpc::proto::inference::{InferTensorContents, ModelInferResponse};
use crate::wire::grpc::{Code, PREFIX};

/// Looks at a message with its prefix; the text of the error says what is wrong with it.
pub(super) fn inference(code: Code, framed: &[u8]) -> Result<(), String> {
    if code != Code::Ok {
        return Err(format!("its status is {}", code.name()));
    }
    let message = framed.get(PREFIX..).unwrap_or_default();
    let response = ModelInferResponse::decode(message)
        .map_err(|error| format!("it is no inference response: {error}"))?;
    if response.model_name.is_empty() || response.outputs.is_empty() {
        return Err("it names no model or no output".to_owned());
    }
    let (outputs, raw) = (response.outputs.len(), response.raw_output_contents.len());
    if raw != 0 && raw != outputs {
        return Err(format!("it has raw contents for {raw} outputs, of {outputs}"));
    }
    for (index, output) in response.outputs.iter().enumerate() {
        check(output, response.raw_output_contents.get(index).map(|raw| raw.len() as u64))?;
    }
    Ok(())
}

fn check(output: &InferOutputTensor, raw: Option<u64>) -> Result<(), String> {
    let InferOutputTensor { name, datatype, shape, contents, .. } = output;
    let axes = shape.iter().map(|axis| u64::try_from(*axis).ok());
    let count = axes.into_iter().try_fold(1_u64, |product, axis| product.checked_mul(axis?));
    let count = count.ok_or_else(|| format!("the shape of output {name:?} is none"))?;
    let Some(bytes) = datatype_bytes(datatype) else {
        return Err(format!("output {name:?} has datatype {datatype:?}, which does not exist"));
    };
    match (contents, raw) {
        (None, Some(size)) if bytes == 0 || Some(size) == count.checked_mul(bytes) => Ok(()),
        (None, Some(size)) => {
            Err(format!("output {name:?} has {size} bytes for {count} values of {bytes} bytes"))
        }
        (Some(contents), None) if values(contents) == count => Ok(()),
        (None, None) if count == 0 => Ok(()),
        (Some(contents), None) => {
            Err(format!("output {name:?} has {} values for a shape of {count}", values(contents)))
        }
        _ => Err(format!("output {name:?} has no data, or has them twice")),
    }
}

fn values(contents: &InferTensorContents) -> u64 {
    let lists = [
        contents.bool_contents.len(),
        contents.int_contents.len(),
        contents.int64_contents.len(),
        contents.uint_contents.len(),
        contents.uint64_contents.len(),
        contents.fp32_contents.len(),
        contents.fp64_contents.len(),
        contents.bytes_contents.len(),
    ];
    lists.iter().sum::<usize>() as u64
}
