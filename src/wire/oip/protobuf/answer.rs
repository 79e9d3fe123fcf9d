//! A client's side of an answer: the tensors of a message, their data where it lies.

use bytes::Bytes;
use prost::Message;

use super::super::binary;
use super::contents;
use super::response::elements_of;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Elements;
use crate::wire::grpc::proto::inference::model_infer_response::InferOutputTensor;
use crate::wire::grpc::proto::inference::{ModelInferResponse, ModelStreamInferResponse};

/// A tensor that a model answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub elements: Elements,
    /// Its axes, batch axis first.
    pub shape: Vec<usize>,
    /// Its data, raw, in whichever form it came: little-endian, row by row; texts with their length before them. Numbers
    /// have the length that the shape says.
    pub data: Bytes,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferAnswer {
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: String,
    /// The id of the request; empty for none.
    pub id: String,
    /// The outputs.
    pub tensors: Vec<AnswerTensor>,
}

/// An answer of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAnswer {
    /// The answer; where there is an error, no more than the id of the request.
    pub answer: InferAnswer,
    /// What went wrong.
    pub error: Option<String>,
}

impl InferAnswer {
    /// Reads a `ModelInferResponse`. Raw tensors are not copied: they keep the message alive.
    ///
    /// # Errors
    /// [`ErrorKind::ProtocolError`], naming the output and the field.
    pub fn parse(message: Bytes) -> Result<Self> {
        let answer = ModelInferResponse::decode(message)
            .map_err(|error| broken(&format!("the answer is no ModelInferResponse: {error}")))?;
        Self::of(answer)
    }

    fn of(answer: ModelInferResponse) -> Result<Self> {
        let (named, raw) = (answer.outputs.len(), answer.raw_output_contents.len());
        if raw > 0 && raw != named {
            let message =
                format!("raw_output_contents has {raw} entries, and the answer has {named} outputs");
            return Err(broken(&message));
        }
        let mut raw = answer.raw_output_contents.into_iter();
        let tensors = answer.outputs.into_iter().map(|output| tensor(output, raw.next()));
        let tensors = tensors.collect::<Result<_>>()?;
        Ok(Self { model: answer.model_name, version: answer.model_version, id: answer.id, tensors })
    }
}

impl AnswerTensor {
    /// The elements of a tensor of texts.
    ///
    /// # Errors
    /// [`ErrorKind::ProtocolError`] where they are not as many as the shape says, or where the lengths before them lie.
    pub fn texts(&self) -> Result<Vec<&[u8]>> {
        let mut rest = self.data.as_ref();
        let mut texts = Vec::new();
        while !rest.is_empty() {
            let (text, after) = binary::text_of(rest).ok_or_else(|| {
                broken(&format!("output '{}' ends within element {}", self.name, texts.len()))
            })?;
            texts.push(text);
            rest = after;
        }
        let wanted = self.shape.iter().try_fold(1_usize, |count, axis| count.checked_mul(*axis));
        if wanted == Some(texts.len()) {
            return Ok(texts);
        }
        let (name, count, shape) = (&self.name, texts.len(), &self.shape);
        Err(broken(&format!("output '{name}' has {count} elements, which are none of shape {shape:?}")))
    }
}

impl StreamAnswer {
    /// Reads a `ModelStreamInferResponse`.
    ///
    /// # Errors
    /// As [`InferAnswer::parse`].
    pub fn parse(message: Bytes) -> Result<Self> {
        let answer = ModelStreamInferResponse::decode(message)
            .map_err(|error| broken(&format!("the answer is no ModelStreamInferResponse: {error}")))?;
        let error = (!answer.error_message.is_empty()).then_some(answer.error_message);
        Ok(Self { answer: InferAnswer::of(answer.infer_response.unwrap_or_default())?, error })
    }
}

fn tensor(output: InferOutputTensor, raw: Option<Bytes>) -> Result<AnswerTensor> {
    let InferOutputTensor { name, datatype, shape, contents, .. } = output;
    let refused = |why: &str| broken(&format!("output '{name}': {why}"));
    let elements = elements_of(&datatype)
        .ok_or_else(|| refused(&format!("'{datatype}' is no datatype of the protocol")))?;
    let lengths: Option<Vec<usize>> = shape.iter().map(|axis| usize::try_from(*axis).ok()).collect();
    let shape = lengths.ok_or_else(|| refused(&format!("an axis of shape {shape:?} is negative")))?;
    let data = match raw {
        Some(raw) => raw,
        None => {
            contents::to_raw(elements, &contents.unwrap_or_default()).map_err(|why| refused(&why))?.into()
        }
    };
    if let Elements::Numbers(dtype) = elements {
        let wanted = shape.iter().try_fold(dtype.size(), |bytes, axis| bytes.checked_mul(*axis));
        if wanted != Some(data.len()) {
            let length = data.len();
            return Err(refused(&format!("{length} bytes are none of shape {shape:?} of {datatype}")));
        }
    }
    Ok(AnswerTensor { name, elements, shape, data })
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::ProtocolError, message)
}
