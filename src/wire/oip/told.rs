//! A client's side of an answer: its tensors as columns, which must be what the model declares.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use smallvec::SmallVec;

use super::envelope::{GivenInput, Object};
use super::protobuf::InferAnswer;
use super::{binary, flatten};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Column, Shape, Spares, TensorSpec};

/// An answer of HTTP. Keys that are not here are passed over.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    outputs: SmallVec<[Object<GivenInput<'a>>; 2]>,
}

/// Where the data of an output lies.
enum Data<'a> {
    Json(&'a str),
    Binary(&'a [u8]),
}

/// What an answer must be to be understood.
#[derive(Debug, Clone, Copy)]
pub struct ToldRows<'a> {
    /// The outputs that were asked for.
    pub outputs: &'a [TensorSpec],
    /// The rows that were asked about.
    pub count: usize,
    /// Where memory comes from.
    pub spares: &'a Arc<Spares>,
}

impl ToldRows<'_> {
    /// Reads the body of an answer over HTTP; `header_length` says how many bytes of JSON binary data follows. `null` is
    /// what JSON has for a number that is none.
    ///
    /// # Errors
    /// [`ErrorKind::ProtocolError`] where it is no answer of the protocol, [`ErrorKind::Output`] where it is none that was
    /// asked for.
    pub fn of_body(&self, body: &[u8], header_length: Option<usize>) -> Result<Vec<Column>> {
        let (json, mut binary) = match header_length {
            None => (body, [].as_slice()),
            Some(length) => body.split_at_checked(length).ok_or_else(|| {
                let has = body.len();
                broken(&format!("inference-header-content-length is {length}, and the body has {has} bytes"))
            })?,
        };
        let Object(answer) = serde_json::from_slice::<Object<Answer<'_>>>(json).map_err(|error| {
            broken(&format!("the answer is none of the open inference protocol: {error}"))
        })?;
        let mut found = SmallVec::<[(&GivenInput<'_>, Data<'_>); 2]>::new();
        for Object(output) in &answer.outputs {
            let size = output.parameters.as_ref().and_then(|Object(given)| given.binary_data_size);
            let data = match (output.data, size) {
                (_, Some(size)) => {
                    let cut = usize::try_from(size).ok().and_then(|size| binary.split_at_checked(size));
                    let (data, rest) = cut.ok_or_else(|| {
                        broken(&format!(
                            "output '{}' ends before its binary_data_size of {size}",
                            output.name
                        ))
                    })?;
                    binary = rest;
                    Data::Binary(data)
                }
                (Some(json), None) => Data::Json(json.get()),
                (None, None) => return Err(broken(&format!("output '{}' has no data", output.name))),
            };
            found.push((output, data));
        }
        let column = |spec: &TensorSpec| {
            let output = found.iter().find(|(output, _)| output.name == spec.name);
            let (output, data) = output.ok_or_else(|| missing(spec))?;
            let mut column = self.column(spec, &output.datatype, &output.shape)?;
            let read = match data {
                Data::Json(json) => flatten::read_answer(&mut column, &output.shape, json),
                Data::Binary(bytes) => read_binary(&mut column, spec, &output.shape, bytes),
            };
            read.map_err(|why| wrong(spec, &why)).map(|()| column)
        };
        self.outputs.iter().map(column).collect()
    }

    /// Reads a `ModelInferResponse`.
    ///
    /// # Errors
    /// As [`of_body`](Self::of_body).
    pub fn of_message(&self, message: Bytes) -> Result<Vec<Column>> {
        let answer = InferAnswer::parse(message)?;
        let column = |spec: &TensorSpec| {
            let tensor = answer.tensors.iter().find(|tensor| tensor.name == spec.name);
            let tensor = tensor.ok_or_else(|| missing(spec))?;
            let datatype = tensor.elements.oip_name().unwrap_or_default();
            let mut column = self.column(spec, datatype, &tensor.shape)?;
            let read = read_binary(&mut column, spec, &tensor.shape, &tensor.data);
            read.map_err(|why| wrong(spec, &why)).map(|()| column)
        };
        self.outputs.iter().map(column).collect()
    }

    /// An empty column for an output of that type and shape, if it is the one that was asked for.
    fn column(&self, spec: &TensorSpec, datatype: &str, shape: &[usize]) -> Result<Column> {
        let declared = spec.elements.oip_name().unwrap_or_default();
        if datatype != declared {
            return Err(wrong(spec, &format!("it has datatype {datatype}, and {declared} was declared")));
        }
        match shape.split_first() {
            Some((count, row)) if *count == self.count && spec.fits(row) => {
                Ok(Column::new(&spec.column(&Shape::from_slice(row)), self.spares))
            }
            _ => {
                let (count, axes) = (self.count, spec.shown_axes());
                Err(wrong(spec, &format!("it has shape {shape:?}, for {count} rows of {axes:?}")))
            }
        }
    }
}

fn read_binary(
    column: &mut Column,
    spec: &TensorSpec,
    shape: &[usize],
    data: &[u8],
) -> std::result::Result<(), String> {
    binary::read(column, spec.elements, shape, data, &|| "the length of its data is".to_owned())
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::ProtocolError, message)
}

fn missing(spec: &TensorSpec) -> Error {
    Error::new(ErrorKind::Output, format!("the answer has no output '{}'", spec.name))
}

fn wrong(spec: &TensorSpec, why: &str) -> Error {
    Error::new(ErrorKind::Output, format!("the answer's output '{}': {why}", spec.name))
}
