//! A server's side of an answer: a message, written once, straight from the columns.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::contents;
use crate::tensor::Elements;
use crate::wire::grpc::proto::inference::InferTensorContents;
use crate::wire::grpc::{PREFIX, prefix_of};
use crate::wire::oip::InferResponse;
use crate::wire::oip::response::{Part, shape_of};

/// Fields of `ModelInferResponse`.
const MODEL_NAME: u32 = 1;
const MODEL_VERSION: u32 = 2;
const ID: u32 = 3;
const OUTPUTS: u32 = 5;
const RAW_OUTPUT_CONTENTS: u32 = 6;

/// Fields of its `InferOutputTensor`.
const NAME: u32 = 1;
const DATATYPE: u32 = 2;
const SHAPE: u32 = 3;
const CONTENTS: u32 = 5;

/// The fields of an answer before its tensors, and a tensor's before its data, take about so many bytes besides names.
const ENVELOPE: usize = 64;

impl InferResponse<'_> {
    /// The response as it goes over the wire: a `ModelInferResponse`, and the prefix of gRPC before it. Tensors are raw
    /// where the response is `binary`, or where one of its outputs has no typed field.
    pub fn to_message(&self) -> Bytes {
        let parts = self.parts();
        let raw = self.binary || parts.iter().any(|part| !contents::has_field(part.spec.elements));
        let mut out = Vec::with_capacity(PREFIX + self.message_size(&parts));
        out.extend_from_slice(&[0; PREFIX]);
        put_bytes(&mut out, MODEL_NAME, self.model.as_bytes());
        put_bytes(&mut out, MODEL_VERSION, self.version.as_bytes());
        put_bytes(&mut out, ID, self.id.unwrap_or_default().as_bytes());
        let mut tensor = Vec::with_capacity(ENVELOPE);
        for part in &parts {
            tensor.clear();
            self.put_tensor(&mut tensor, part, raw);
            put_message(&mut out, OUTPUTS, &tensor);
        }
        if raw {
            for part in &parts {
                let size = self.binary_size(part.index);
                encode_key(RAW_OUTPUT_CONTENTS, WireType::LengthDelimited, &mut out);
                encode_varint(size as u64, &mut out);
                self.put_binary(&mut out, part.index);
            }
        }
        let prefix = prefix_of(out.len() - PREFIX);
        if let Some(place) = out.first_chunk_mut() {
            *place = prefix;
        }
        Bytes::from(out)
    }

    fn message_size(&self, parts: &[Part<'_>]) -> usize {
        let envelope = ENVELOPE + self.model.len() + self.version.len() + self.id.map_or(0, str::len);
        let part = |part: &Part<'_>| ENVELOPE + part.spec.name.len() + self.binary_size(part.index);
        envelope + parts.iter().map(part).sum::<usize>()
    }

    fn put_tensor(&self, out: &mut Vec<u8>, part: &Part<'_>, raw: bool) {
        put_bytes(out, NAME, part.spec.name.as_bytes());
        put_bytes(out, DATATYPE, part.spec.elements.oip_name().unwrap_or_default().as_bytes());
        let row = self.rows.first().and_then(|row| row.columns.get(part.index)).map(shape_of);
        put_shape(out, std::iter::once(self.rows.len()).chain(row.unwrap_or_default().iter().copied()));
        if !raw {
            let mut typed = InferTensorContents::default();
            for run in self.runs() {
                if let Some(column) = run.columns.get(part.index) {
                    contents::add(&mut typed, column, run.rows);
                }
            }
            put_message(out, CONTENTS, &typed.encode_to_vec());
        }
    }
}

/// Adds a field of text or bytes, unless it is empty.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_message(out, field, bytes);
    }
}

/// Adds a field that has a length, empty or not.
pub(super) fn put_message(out: &mut Vec<u8>, field: u32, message: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

/// Adds the field `shape` of a tensor.
pub(super) fn put_shape(out: &mut Vec<u8>, shape: impl Iterator<Item = usize> + Clone) {
    encode_key(SHAPE, WireType::LengthDelimited, out);
    let length: usize = shape.clone().map(|axis| encoded_len_varint(axis as u64)).sum();
    encode_varint(length as u64, out);
    for axis in shape {
        encode_varint(axis as u64, out);
    }
}

/// Bytes that a field of that length takes.
pub(super) fn field_size(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

/// True for elements that the protocol has a name for.
pub(super) fn elements_of(datatype: &str) -> Option<Elements> {
    if datatype == "BYTES" {
        return Some(Elements::Bytes);
    }
    let all = crate::tensor::DType::ALL.into_iter();
    all.map(Elements::Numbers).find(|elements| elements.oip_name() == Some(datatype))
}
