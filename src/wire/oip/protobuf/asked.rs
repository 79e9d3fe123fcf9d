//! A client's side of a request: a message, written once, straight from the caller's memory.

use std::ops::Range;

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::response::{field_size, put_bytes, put_message, put_shape};
use crate::tensor::Column;
use crate::wire::grpc::{PREFIX, prefix_of};
use crate::wire::oip::binary;

/// Fields of `ModelInferRequest`.
const MODEL_NAME: u32 = 1;
const MODEL_VERSION: u32 = 2;
const ID: u32 = 3;
const INPUTS: u32 = 5;
const OUTPUTS: u32 = 6;
const RAW_INPUT_CONTENTS: u32 = 7;

/// Fields of its tensors.
const NAME: u32 = 1;
const DATATYPE: u32 = 2;

/// A tensor's fields take about so many bytes besides its name and its data.
const ENVELOPE: usize = 48;

/// A tensor that a model is asked about.
#[derive(Debug, Clone, Copy)]
pub struct AskedTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its elements, by the protocol's name.
    pub datatype: &'a str,
    /// Its axes, batch axis first.
    pub shape: &'a [usize],
    /// Bytes of its data.
    pub size: usize,
}

/// A `ModelInferRequest` in the making, as it goes over the wire: the prefix of gRPC stands before it.
#[derive(Debug)]
pub struct RequestMessage(Vec<u8>);

impl RequestMessage {
    /// All of it but the data. Without names of `outputs`, all are asked for.
    pub fn new(
        model: &str,
        version: Option<&str>,
        id: Option<&str>,
        inputs: &[AskedTensor<'_>],
        outputs: &[impl AsRef<str>],
    ) -> Self {
        let (version, id) = (version.unwrap_or_default(), id.unwrap_or_default());
        let tensor = |tensor: &AskedTensor<'_>| {
            ENVELOPE + tensor.name.len() + field_size(RAW_INPUT_CONTENTS, tensor.size)
        };
        let tensors: usize = inputs.iter().map(tensor).sum();
        let names: usize = outputs.iter().map(|name| ENVELOPE + name.as_ref().len()).sum();
        let ahead = PREFIX + ENVELOPE + model.len() + version.len() + id.len() + tensors + names;
        let mut out = Vec::with_capacity(ahead);
        out.extend_from_slice(&[0; PREFIX]);
        put_bytes(&mut out, MODEL_NAME, model.as_bytes());
        put_bytes(&mut out, MODEL_VERSION, version.as_bytes());
        put_bytes(&mut out, ID, id.as_bytes());
        let mut inner = Vec::with_capacity(ENVELOPE);
        for tensor in inputs {
            inner.clear();
            put_bytes(&mut inner, NAME, tensor.name.as_bytes());
            put_bytes(&mut inner, DATATYPE, tensor.datatype.as_bytes());
            put_shape(&mut inner, tensor.shape.iter().copied());
            put_message(&mut out, INPUTS, &inner);
        }
        for name in outputs {
            inner.clear();
            put_bytes(&mut inner, NAME, name.as_ref().as_bytes());
            put_message(&mut out, OUTPUTS, &inner);
        }
        Self(out)
    }

    /// Adds the data of the next input, raw: little-endian, row by row; texts with their length before them.
    pub fn put_data(&mut self, data: &[u8]) {
        put_message(&mut self.0, RAW_INPUT_CONTENTS, data);
    }

    /// Adds the same from rows of a column.
    pub fn put_rows(&mut self, column: &Column, rows: Range<usize>) {
        encode_key(RAW_INPUT_CONTENTS, WireType::LengthDelimited, &mut self.0);
        encode_varint(binary::size(column, rows.clone()) as u64, &mut self.0);
        binary::write(&mut self.0, column, rows);
    }

    /// The whole.
    pub fn finish(mut self) -> Bytes {
        let prefix = prefix_of(self.0.len() - PREFIX);
        if let Some(place) = self.0.first_chunk_mut() {
            *place = prefix;
        }
        Bytes::from(self.0)
    }
}
