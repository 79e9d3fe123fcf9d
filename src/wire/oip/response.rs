//! An inference response as JSON.

use std::io::Write;
use std::sync::Arc;

use half::f16;

use crate::tensor::{Column, DType, Elements, TensorSpec};

/// A row of a batch's outputs: the columns, in the order of the model's outputs, and which row of them.
#[derive(Debug, Clone)]
pub struct AnsweredRow {
    /// The outputs of a whole batch.
    pub columns: Arc<Vec<Column>>,
    /// The row that answers the request.
    pub row: usize,
}

/// What goes into a response.
#[derive(Debug)]
pub struct InferResponse<'a> {
    /// The model that answered.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The id that the request came with.
    pub id: Option<&'a str>,
    /// The model's outputs.
    pub outputs: &'a [TensorSpec],
    /// The outputs that the request wants, or `None` for all.
    pub wanted: Option<&'a [String]>,
    /// One row of outputs for each row of the request; all of the same shape.
    pub rows: &'a [AnsweredRow],
}

impl InferResponse<'_> {
    /// The response as JSON; data is flat. Numbers that JSON has no word for (NaN, infinities) become `null`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"model_name\":");
        put_string(&mut out, self.model);
        out.extend_from_slice(b",\"model_version\":");
        put_string(&mut out, self.version);
        if let Some(id) = self.id {
            out.extend_from_slice(b",\"id\":");
            put_string(&mut out, id);
        }
        out.extend_from_slice(b",\"outputs\":[");
        let mut first = true;
        for (at, spec) in self.outputs.iter().enumerate() {
            if self.wanted.is_some_and(|wanted| !wanted.contains(&spec.name)) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            self.put_output(&mut out, at, spec);
        }
        out.extend_from_slice(b"]}");
        out
    }

    fn put_output(&self, out: &mut Vec<u8>, at: usize, spec: &TensorSpec) {
        out.extend_from_slice(b"{\"name\":");
        put_string(out, &spec.name);
        out.extend_from_slice(b",\"datatype\":");
        put_string(out, spec.elements.oip_name().unwrap_or_default());
        out.extend_from_slice(b",\"shape\":[");
        put_integer(out, self.rows.len());
        let row_shape = self.rows.first().and_then(|row| row.columns.get(at)).map(shape_of);
        for axis in row_shape.unwrap_or_default() {
            out.push(b',');
            put_integer(out, *axis);
        }
        out.extend_from_slice(b"],\"data\":[");
        let begin = out.len();
        for row in self.rows {
            if let Some(column) = row.columns.get(at) {
                put_row(out, column, row.row, spec.elements);
            }
        }
        // Every element was followed by a comma.
        if out.len() > begin {
            out.pop();
        }
        out.extend_from_slice(b"]}");
    }
}

/// True where the rows make one tensor of each output: rows of one batch always do.
pub fn same_shape(rows: &[AnsweredRow]) -> bool {
    rows.windows(2).all(|pair| match pair {
        [one, other] if !Arc::ptr_eq(&one.columns, &other.columns) => {
            one.columns.iter().map(shape_of).eq(other.columns.iter().map(shape_of))
        }
        _ => true,
    })
}

fn shape_of(column: &Column) -> &[usize] {
    match column {
        Column::Numbers { shape, .. } | Column::Texts { shape, .. } => shape,
        Column::Objects(_) => &[],
    }
}

fn put_row(out: &mut Vec<u8>, column: &Column, row: usize, elements: Elements) {
    match column {
        Column::Numbers { dtype, row_bytes, memory, .. } => {
            let bytes = memory.as_slice().get(row * row_bytes..(row + 1) * row_bytes);
            for element in bytes.unwrap_or_default().chunks_exact(dtype.size()) {
                put_number(out, *dtype, element);
                out.push(b',');
            }
        }
        Column::Texts { shape, texts } => {
            let count = shape.iter().product::<usize>();
            for text in texts.range(row * count..(row + 1) * count) {
                debug_assert!(matches!(elements, Elements::Text | Elements::Bytes));
                put_string(out, &String::from_utf8_lossy(text));
                out.push(b',');
            }
        }
        Column::Objects(_) => {}
    }
}

fn put_number(out: &mut Vec<u8>, dtype: DType, bytes: &[u8]) {
    macro_rules! read {
        ($kind:ty) => {
            bytes.try_into().map_or(<$kind>::default(), <$kind>::from_ne_bytes)
        };
    }
    match dtype {
        DType::Bool => {
            let word: &[u8] = if bytes.first() == Some(&0) { b"false" } else { b"true" };
            out.extend_from_slice(word);
        }
        DType::Int8 => put_integer(out, read!(i8)),
        DType::Int16 => put_integer(out, read!(i16)),
        DType::Int32 => put_integer(out, read!(i32)),
        DType::Int64 => put_integer(out, read!(i64)),
        DType::UInt8 => put_integer(out, read!(u8)),
        DType::UInt16 => put_integer(out, read!(u16)),
        DType::UInt32 => put_integer(out, read!(u32)),
        DType::UInt64 => put_integer(out, read!(u64)),
        DType::Float16 => put_float(out, f32::from(read!(f16)), f32::is_finite),
        DType::Float32 => put_float(out, read!(f32), f32::is_finite),
        DType::Float64 => put_float(out, read!(f64), f64::is_finite),
        // The protocol has no complex numbers: a model that declares them is refused.
        DType::Complex64 | DType::Complex128 => out.extend_from_slice(b"null"),
    }
}

fn put_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn put_float<F: ryu::Float>(out: &mut Vec<u8>, value: F, finite: impl Fn(F) -> bool) {
    if finite(value) {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, text).is_err() {
        // Writing to memory fails for no reason that serde_json knows.
        out.truncate(start);
        let _ = out.write_all(b"\"\"");
    }
}
