//! A client's side of a request: rows as they lie in columns, written once for the server that is to answer them.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::protobuf::{AskedTensor, RequestMessage};
use super::response::{Encoded, put_length, put_rows, put_string, shape_of};
use super::{binary, fit};
use crate::error::Result;
use crate::tensor::{Column, Shape, TensorSpec};

/// The JSON of a tensor takes about so many bytes besides its name and its data.
const ENVELOPE: usize = 96;

/// Rows that a server is asked about.
#[derive(Debug, Clone)]
pub struct AskedRows<'a> {
    /// The inputs of the model.
    pub inputs: &'a [TensorSpec],
    /// The outputs that are wanted.
    pub outputs: &'a [TensorSpec],
    /// A column for each input, in the same order.
    pub columns: &'a [Column],
    /// Which of the rows.
    pub rows: Range<usize>,
    /// How long it may take, where the server is to know.
    pub timeout: Option<Duration>,
}

impl AskedRows<'_> {
    /// The body of a request over HTTP: with tensors as binary data, in both directions, or as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Item`](crate::error::ErrorKind::Item) where bytes that are no UTF-8 would have to be JSON.
    pub fn encode(&self, binary: bool) -> Result<Encoded> {
        let mut out = Vec::with_capacity(self.size_ahead(binary));
        out.extend_from_slice(b"{\"inputs\":[");
        for (at, (spec, column)) in self.inputs.iter().zip(self.columns).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            if !binary {
                self.check_text(spec, column)?;
            }
            self.put_input(&mut out, spec, column, binary);
        }
        out.extend_from_slice(b"],\"outputs\":[");
        for (at, spec) in self.outputs.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"name\":");
            put_string(&mut out, &spec.name);
            out.extend_from_slice(if binary { b",\"parameters\":{\"binary_data\":true}}" } else { b"}" });
        }
        out.push(b']');
        if let Some(timeout) = self.timeout {
            out.extend_from_slice(b",\"parameters\":{\"timeout\":");
            put_length(&mut out, usize::try_from(timeout.as_micros()).unwrap_or(usize::MAX).max(1));
            out.push(b'}');
        }
        out.push(b'}');
        let json = out.len();
        if binary {
            for column in self.columns {
                binary::write(&mut out, column, self.rows.clone());
            }
        }
        Ok(Encoded { body: out, header_length: binary.then_some(json) })
    }

    /// The message of a call of gRPC, its prefix before it. The tensors are raw.
    pub fn to_message(&self, model: &str, version: Option<&str>) -> Bytes {
        let shapes: SmallVec<[Shape; 2]> = self.columns.iter().map(|column| self.shape(column)).collect();
        let tensors = self.inputs.iter().zip(self.columns).zip(&shapes);
        let tensors: SmallVec<[AskedTensor<'_>; 2]> = tensors
            .map(|((spec, column), shape)| AskedTensor {
                name: &spec.name,
                datatype: spec.elements.oip_name().unwrap_or_default(),
                shape,
                size: binary::size(column, self.rows.clone()),
            })
            .collect();
        let names: SmallVec<[&str; 4]> = self.outputs.iter().map(|spec| spec.name.as_str()).collect();
        let mut message = RequestMessage::new(model, version, None, &tensors, &names);
        for column in self.columns {
            message.put_rows(column, self.rows.clone());
        }
        message.finish()
    }

    fn shape(&self, column: &Column) -> Shape {
        std::iter::once(self.rows.len()).chain(shape_of(column).iter().copied()).collect()
    }

    fn put_input(&self, out: &mut Vec<u8>, spec: &TensorSpec, column: &Column, binary: bool) {
        out.extend_from_slice(b"{\"name\":");
        put_string(out, &spec.name);
        out.extend_from_slice(b",\"datatype\":\"");
        out.extend_from_slice(spec.elements.oip_name().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\",\"shape\":[");
        put_length(out, self.rows.len());
        for axis in shape_of(column) {
            out.push(b',');
            put_length(out, *axis);
        }
        if binary {
            out.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
            put_length(out, binary::size(column, self.rows.clone()));
            out.extend_from_slice(b"}}");
            return;
        }
        out.extend_from_slice(b"],\"data\":[");
        let begin = out.len();
        put_rows(out, column, self.rows.clone());
        // Every element was followed by a comma.
        if out.len() > begin {
            out.pop();
        }
        out.extend_from_slice(b"]}");
    }

    fn check_text(&self, spec: &TensorSpec, column: &Column) -> Result<()> {
        let Column::Texts { shape, texts } = column else { return Ok(()) };
        let mut texts = texts.range(binary::elements_of(shape, self.rows.clone()));
        if texts.all(|text| std::str::from_utf8(text).is_ok()) {
            return Ok(());
        }
        let why = "holds bytes that are not utf-8, and its server takes json alone";
        Err(fit::refused(format!("input '{}' {why}", spec.name)))
    }

    /// What the body will take; of JSON, about.
    pub fn size_ahead(&self, binary: bool) -> usize {
        let data = |column| {
            let bytes = binary::size(column, self.rows.clone());
            if binary { bytes } else { bytes * 3 }
        };
        let inputs = self.inputs.iter().zip(self.columns);
        let inputs: usize = inputs.map(|(spec, column)| ENVELOPE + spec.name.len() + data(column)).sum();
        let outputs: usize = self.outputs.iter().map(|spec| ENVELOPE + spec.name.len()).sum();
        ENVELOPE + inputs + outputs
    }
}
