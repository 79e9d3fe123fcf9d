//! What a keeper and its child say of a batch: where its columns lie in the shared memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::SharedMemory;
use super::link::broken;
use crate::error::{Error, ErrorKind};
use crate::tensor::{AnswerRow, Column, DType, Rows, Shape, Spares, Texts};

/// A batch to be run.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Its rows.
    pub rows: usize,
    /// Its columns, in their order.
    pub columns: Vec<ColumnNote>,
    /// How long each row was before it was padded, where rows are.
    pub lengths: Vec<u32>,
    /// What the batch costs: where rows are padded, the longest of them times their number.
    pub padded_cost: u64,
    /// Time until the first answer is worth nothing any more.
    pub remaining: Option<Duration>,
    /// `traceparent` and `tracestate` of the batch, where it is in a trace.
    pub trace: Option<(String, Option<String>)>,
    /// What their senders call its requests, as far as they do.
    pub ids: Vec<String>,
}

/// What came of a batch.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The outputs: of the whole batch, or of each part that was run by itself.
    pub parts: Vec<Vec<ColumnNote>>,
    /// What each request gets.
    pub rows: Vec<RowNote>,
    /// Time that the function took, all rounds together.
    pub busy: Duration,
    /// Calls of the function beyond the first.
    pub reruns: u64,
    /// True where the function took the whole batch in one call.
    pub whole: bool,
    /// The rows with which memory ran out, where it did.
    pub out_of_memory: Option<usize>,
}

/// What one request gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RowNote {
    /// A row of a part's outputs.
    Row {
        /// The part.
        part: usize,
        /// The row in it.
        row: usize,
    },
    /// A failure.
    Failed {
        /// Its kind, by its place in the table.
        kind: usize,
        /// What it says.
        message: String,
    },
}

/// One column, and where it lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ColumnNote {
    /// Numbers, row after row.
    Numbers {
        /// The type of each, by its place among all types.
        dtype: usize,
        /// Axes of one row.
        shape: Vec<usize>,
        /// Where they begin.
        at: u64,
        /// Their bytes.
        length: usize,
    },
    /// Byte strings one after another, and then the end of each as a 64-bit number.
    Texts {
        /// Axes of one row.
        shape: Vec<usize>,
        /// Where they begin.
        at: u64,
        /// Their bytes.
        length: usize,
        /// How many there are.
        count: usize,
    },
}

/// Writes columns one after another, from `at` on, and moves it behind them.
fn write_columns(memory: &SharedMemory, at: &mut u64, columns: &[Column]) -> io::Result<Vec<ColumnNote>> {
    columns.iter().map(|column| write_column(memory, at, column)).collect()
}

fn write_column(memory: &SharedMemory, next: &mut u64, column: &Column) -> io::Result<ColumnNote> {
    let at = *next;
    let mut put = |bytes: &[u8]| {
        memory.write(*next, bytes)?;
        *next += bytes.len() as u64;
        Ok::<_, io::Error>(bytes.len())
    };
    match column {
        Column::Numbers { dtype, shape, memory: rows, .. } => {
            let dtype = DType::ALL.iter().position(|known| known == dtype).unwrap_or(usize::MAX);
            Ok(ColumnNote::Numbers { dtype, shape: shape.to_vec(), at, length: put(rows.as_slice())? })
        }
        Column::Texts { shape, texts } => {
            let length = put(texts.bytes())?;
            let ends: Vec<u8> = texts.ends().iter().flat_map(|end| (*end as u64).to_le_bytes()).collect();
            put(&ends)?;
            Ok(ColumnNote::Texts { shape: shape.to_vec(), at, length, count: texts.len() })
        }
        Column::Objects(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "objects are not sent to processes as columns"))
        }
    }
}

/// Copies a column of `rows` rows out.
fn read_column(
    memory: &SharedMemory,
    note: &ColumnNote,
    rows: usize,
    spares: &Arc<Spares>,
) -> io::Result<Column> {
    match note {
        ColumnNote::Numbers { dtype, shape, at, length } => {
            let dtype = *DType::ALL.get(*dtype).ok_or_else(|| broken("a column has an unknown type"))?;
            let row_bytes = shape.iter().try_fold(dtype.size(), |size, axis| size.checked_mul(*axis));
            let row_bytes = row_bytes.ok_or_else(|| broken("a row is too large"))?;
            if row_bytes.checked_mul(rows) != Some(*length) || !lies_within(memory, *at, *length) {
                return Err(broken("a column has another length than its shape"));
            }
            let mut bytes = spares.memory();
            memory.read(*at, bytes.grow(*length))?;
            Ok(Column::Numbers { dtype, shape: Shape::from_slice(shape), row_bytes, memory: bytes })
        }
        ColumnNote::Texts { shape, at, length, count } => {
            let each = shape.iter().try_fold(rows, |count, axis| count.checked_mul(*axis));
            let size = count.checked_mul(8).and_then(|ends| ends.checked_add(*length)).unwrap_or(usize::MAX);
            if each != Some(*count) || !lies_within(memory, *at, size) {
                return Err(broken("a column has another number of texts than its shape"));
            }
            let (mut bytes, mut ends) = (vec![0; *length], vec![0; count * 8]);
            memory.read(*at, &mut bytes)?;
            memory.read(*at + *length as u64, &mut ends)?;
            let (ends, _) = ends.as_chunks::<8>();
            let ends = ends.iter().map(|end| usize::try_from(u64::from_le_bytes(*end)).unwrap_or(usize::MAX));
            let texts = Texts::from_parts(bytes, ends.collect());
            let texts = texts.ok_or_else(|| broken("texts end where they do not"))?;
            Ok(Column::Texts { shape: Shape::from_slice(shape), texts })
        }
    }
}

fn lies_within(memory: &SharedMemory, at: u64, length: usize) -> bool {
    let end = at.checked_add(length as u64);
    end.is_some_and(|end| memory.len().is_ok_and(|length| end <= length))
}

/// The rows of a question, copied out of the memory.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where it contradicts itself.
pub fn question_rows(question: &Question, memory: &SharedMemory, spares: &Arc<Spares>) -> io::Result<Rows> {
    let columns = question.columns.iter().map(|note| read_column(memory, note, question.rows, spares));
    Ok(Rows::from_columns(columns.collect::<io::Result<SmallVec<_>>>()?))
}

impl Question {
    /// A question about `rows` rows, whose columns are written into the memory.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::InvalidInput`] for objects, which have no place in shared memory.
    pub fn write(rows: usize, columns: &[Column], memory: &SharedMemory) -> io::Result<Self> {
        let columns = write_columns(memory, &mut 0, columns)?;
        Ok(Self { rows, columns, ..Self::default() })
    }
}

impl Answer {
    /// What each request gets, with the outputs written into the memory: each set of columns once.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::InvalidInput`] for objects, which have no place in shared memory.
    pub fn write(rows: &[Result<AnswerRow, Error>], memory: &SharedMemory) -> io::Result<Self> {
        let mut answer = Self::default();
        let mut known: Vec<&Arc<Vec<Column>>> = Vec::new();
        let mut at = 0;
        for row in rows {
            let note = match row {
                Ok(AnswerRow { columns, row, .. }) => {
                    let part = known.iter().rposition(|known| Arc::ptr_eq(known, columns));
                    if part.is_none() {
                        answer.parts.push(write_columns(memory, &mut at, columns)?);
                        known.push(columns);
                    }
                    RowNote::Row { part: part.unwrap_or(known.len() - 1), row: *row }
                }
                Err(error) => {
                    let kind = ErrorKind::ALL.iter().position(|kind| *kind == error.kind());
                    RowNote::Failed { kind: kind.unwrap_or(usize::MAX), message: error.message().to_owned() }
                }
            };
            answer.rows.push(note);
        }
        Ok(answer)
    }
}

/// What each of `count` requests gets, with the outputs copied out of the memory.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where it contradicts itself.
pub fn answer_columns(
    answer: &Answer,
    count: usize,
    memory: &SharedMemory,
    spares: &Arc<Spares>,
) -> io::Result<Vec<Result<AnswerRow, Error>>> {
    if answer.rows.len() != count {
        return Err(broken("an answer has another number of rows than its question"));
    }
    let mut lengths = vec![0; answer.parts.len()];
    for note in &answer.rows {
        if let RowNote::Row { part, row } = note {
            let length = lengths.get_mut(*part).ok_or_else(|| broken("a row is of no part"))?;
            *length = (*length).max(row + 1);
        }
    }
    let part = |(notes, rows): (&Vec<ColumnNote>, &usize)| {
        let columns = notes.iter().map(|note| read_column(memory, note, *rows, spares));
        columns.collect::<io::Result<Vec<_>>>().map(Arc::new)
    };
    let parts = answer.parts.iter().zip(&lengths).map(part).collect::<io::Result<Vec<_>>>()?;
    let row = |note: &RowNote| match note {
        RowNote::Row { part, row } => {
            let columns = parts.get(*part).ok_or_else(|| broken("a row is of no part"))?;
            Ok(Ok(AnswerRow::new(Arc::clone(columns), *row)))
        }
        RowNote::Failed { kind, message } => {
            let kind = ErrorKind::ALL.get(*kind).copied().unwrap_or(ErrorKind::Internal);
            Ok(Err(Error::new(kind, message.clone())))
        }
    };
    answer.rows.iter().map(row).collect()
}
