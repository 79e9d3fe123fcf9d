//! An inference response; here as JSON and binary data.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::WantedOutput;
use super::binary;
use super::numbers::{Number, with_number};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{AnswerRow, Column, DType, Elements, TensorSpec};

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
    /// The outputs that the request wants, or `None` for all. They are sent in the order of the model.
    pub wanted: Option<&'a [WantedOutput]>,
    /// True where all outputs are to be binary, if `wanted` names none.
    pub binary: bool,
    /// One row of outputs for each row of the request; all of the same shape.
    pub rows: &'a [AnswerRow],
}

/// The body of a response.
#[derive(Debug)]
pub struct Encoded {
    /// JSON, and the binary data after it.
    pub body: Vec<u8>,
    /// The bytes of JSON, where binary data follows: the value of `Inference-Header-Content-Length`. The body is then
    /// `application/octet-stream`, and `application/json` otherwise.
    pub header_length: Option<usize>,
}

/// An output that is sent.
pub(super) struct Part<'a> {
    /// Which of the model's outputs it is.
    pub(super) index: usize,
    pub(super) spec: &'a TensorSpec,
    /// Bytes of its binary data, where it is sent as such.
    binary: Option<usize>,
}

/// Rows that lie side by side in one batch.
pub(super) struct Run<'a> {
    pub(super) columns: &'a [Column],
    pub(super) rows: Range<usize>,
}

impl<'a> InferResponse<'a> {
    /// Looks whether [`encode`](Self::encode) can say what the model answered.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] where rows of one request differ in shape, or where bytes that are no UTF-8 would have to
    /// be written as JSON; a request for binary data gets them.
    pub fn check(&self) -> Result<()> {
        self.check_shape()?;
        for part in self.parts() {
            // Strings were looked at when they were made.
            if part.binary.is_none() && part.spec.elements == Elements::Bytes && !self.is_text(part.index) {
                let message = format!(
                    "output '{}' holds bytes that are not utf-8: json cannot carry them, ask for binary data",
                    part.spec.name
                );
                return Err(Error::new(ErrorKind::Output, message));
            }
        }
        Ok(())
    }

    /// Looks whether [`to_message`](Self::to_message) can say what the model answered: it carries bytes as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] where rows of one request differ in shape.
    pub fn check_shape(&self) -> Result<()> {
        if same_shape(self.rows) {
            return Ok(());
        }
        let message = format!("model '{}' answered rows of one request in different shapes", self.model);
        Err(Error::new(ErrorKind::Output, message))
    }

    fn is_text(&self, index: usize) -> bool {
        self.runs().all(|run| match run.columns.get(index) {
            Some(Column::Texts { shape, texts }) => {
                let count = shape.iter().product::<usize>();
                let mut all = texts.range(run.rows.start * count..run.rows.end * count);
                all.all(|text| std::str::from_utf8(text).is_ok())
            }
            _ => true,
        })
    }

    /// The response. JSON data is flat. Numbers that JSON has no word for (NaN, infinities) become `null` there, and
    /// bytes that are no UTF-8 become U+FFFD, unless [`check`](Self::check) refuses them; binary data has both as they
    /// are.
    pub fn encode(&self) -> Encoded {
        let parts = self.parts();
        let mut out = Vec::with_capacity(self.size_ahead(&parts));
        out.extend_from_slice(b"{\"model_name\":");
        put_string(&mut out, self.model);
        out.extend_from_slice(b",\"model_version\":");
        put_string(&mut out, self.version);
        if let Some(id) = self.id {
            out.extend_from_slice(b",\"id\":");
            put_string(&mut out, id);
        }
        out.extend_from_slice(b",\"outputs\":[");
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.put_output(&mut out, part);
        }
        out.extend_from_slice(b"]}");
        let json = out.len();
        let mut is_binary = false;
        for part in parts.iter().filter(|part| part.binary.is_some()) {
            is_binary = true;
            self.put_binary(&mut out, part.index);
        }
        Encoded { body: out, header_length: is_binary.then_some(json) }
    }

    pub(super) fn parts(&self) -> SmallVec<[Part<'a>; 4]> {
        let part = |(index, spec): (usize, &'a TensorSpec)| {
            let binary = match self.wanted {
                None => self.binary,
                Some(wanted) => wanted.iter().find(|output| output.index == index)?.binary,
            };
            Some(Part { index, spec, binary: binary.then(|| self.binary_size(index)) })
        };
        self.outputs.iter().enumerate().filter_map(part).collect()
    }

    /// Bytes that an output takes as binary data.
    pub(super) fn binary_size(&self, index: usize) -> usize {
        let size = |run: Run<'_>| run.columns.get(index).map_or(0, |column| binary::size(column, run.rows));
        self.runs().map(size).sum()
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Run<'a>> {
        let chunks = self
            .rows
            .chunk_by(|one, next| next.row == one.row + 1 && Arc::ptr_eq(&one.columns, &next.columns));
        chunks.filter_map(|chunk| {
            let first = chunk.first()?;
            Some(Run { columns: first.columns.as_slice(), rows: first.row..first.row + chunk.len() })
        })
    }

    /// What the body will take, rather too much than too little.
    pub(super) fn size_ahead(&self, parts: &[Part<'_>]) -> usize {
        let envelope = 64 + self.model.len() + self.version.len() + self.id.map_or(0, str::len);
        let output = |part: &Part<'_>| {
            let about = 96 + part.spec.name.len();
            let data =
                |run: Run<'_>| run.columns.get(part.index).map_or(0, |column| json_size(column, run.rows));
            about + part.binary.unwrap_or_else(|| self.runs().map(data).sum())
        };
        envelope + parts.iter().map(output).sum::<usize>()
    }

    fn put_output(&self, out: &mut Vec<u8>, part: &Part<'_>) {
        out.extend_from_slice(b"{\"name\":");
        put_string(out, &part.spec.name);
        out.extend_from_slice(b",\"datatype\":");
        put_string(out, part.spec.elements.oip_name().unwrap_or_default());
        out.extend_from_slice(b",\"shape\":[");
        put_length(out, self.rows.len());
        let row_shape = self.rows.first().and_then(|row| row.columns.get(part.index)).map(shape_of);
        for axis in row_shape.unwrap_or_default() {
            out.push(b',');
            put_length(out, *axis);
        }
        if let Some(size) = part.binary {
            out.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
            put_length(out, size);
            out.extend_from_slice(b"}}");
            return;
        }
        out.extend_from_slice(b"],\"data\":[");
        let begin = out.len();
        for run in self.runs() {
            if let Some(column) = run.columns.get(part.index) {
                put_rows(out, column, run.rows);
            }
        }
        // Every element was followed by a comma.
        if out.len() > begin {
            out.pop();
        }
        out.extend_from_slice(b"]}");
    }

    pub(super) fn put_binary(&self, out: &mut Vec<u8>, index: usize) {
        for run in self.runs() {
            if let Some(column) = run.columns.get(index) {
                binary::write(out, column, run.rows);
            }
        }
    }
}

/// True where the rows make one tensor of each output: rows of one batch always do.
pub fn same_shape(rows: &[AnswerRow]) -> bool {
    rows.windows(2).all(|pair| match pair {
        [one, other] if !Arc::ptr_eq(&one.columns, &other.columns) => {
            one.columns.iter().map(shape_of).eq(other.columns.iter().map(shape_of))
        }
        _ => true,
    })
}

/// What rows will take when they are written, as far as that can be told ahead at no cost: rows of texts count as empty.
pub fn size_of(rows: &[AnswerRow]) -> usize {
    let row = rows.first().map_or(0, |row| {
        let bytes = row.columns.iter().map(|column| match column {
            Column::Numbers { row_bytes, .. } => *row_bytes,
            _ => 0,
        });
        bytes.sum()
    });
    row * rows.len()
}

pub(super) fn shape_of(column: &Column) -> &[usize] {
    match column {
        Column::Numbers { shape, .. } | Column::Texts { shape, .. } => shape,
        Column::Objects(_) => &[],
    }
}

/// What rows of a column take as JSON: numbers at most, commas included; texts without escapes.
fn json_size(column: &Column, rows: Range<usize>) -> usize {
    match column {
        Column::Numbers { dtype, row_bytes, .. } => {
            let longest = match dtype {
                DType::Int8 | DType::UInt8 => 5,
                DType::Bool => 6,
                DType::Int16 | DType::UInt16 => 7,
                DType::Int32 | DType::UInt32 => 12,
                DType::Int64 | DType::UInt64 => 21,
                DType::Float16 | DType::BFloat16 | DType::Float32 => 18,
                _ => 26,
            };
            rows.len() * (row_bytes / dtype.size()) * longest
        }
        // Quotes and a comma are shorter than the length that stands before a text in binary data.
        _ => binary::size(column, rows),
    }
}

pub(super) fn put_rows(out: &mut Vec<u8>, column: &Column, rows: Range<usize>) {
    match column {
        Column::Numbers { dtype, row_bytes, memory, .. } => {
            let bytes = memory.as_slice().get(rows.start * row_bytes..rows.end * row_bytes);
            let elements = bytes.unwrap_or_default().chunks_exact(dtype.size());
            with_number!(*dtype, Kind => put_numbers(out, elements.map(Kind::load)), ());
        }
        Column::Texts { shape, texts } => {
            let count = shape.iter().product::<usize>();
            for text in texts.range(rows.start * count..rows.end * count) {
                put_string(out, &String::from_utf8_lossy(text));
                out.push(b',');
            }
        }
        Column::Objects(_) => {}
    }
}

fn put_numbers(out: &mut Vec<u8>, numbers: impl Iterator<Item = impl Number>) {
    for number in numbers {
        number.show(out);
        out.push(b',');
    }
}

pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, text).is_err() {
        // Writing to memory fails for no reason that serde_json knows.
        out.truncate(start);
        let _ = out.write_all(b"\"\"");
    }
}
