//! One input or output of many requests: equal rows side by side, texts, or the names of objects kept elsewhere.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{DType, Memory, Spares};

/// The lengths of a row's axes; the batch axis is left out.
pub type Shape = SmallVec<[usize; 4]>;

/// What a column holds; rows of different specs never share a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnSpec {
    /// Numbers: `shape` elements of `dtype` in each row.
    Numbers {
        /// Type of each element.
        dtype: DType,
        /// Axes of one row.
        shape: Shape,
    },
    /// Byte strings: `shape` of them in each row.
    Texts {
        /// Axes of one row.
        shape: Shape,
    },
    /// Objects that somebody else keeps, by number.
    Objects,
}

impl ColumnSpec {
    /// Elements in one row.
    pub fn elements(&self) -> usize {
        match self {
            Self::Numbers { shape, .. } | Self::Texts { shape } => shape.iter().product(),
            Self::Objects => 1,
        }
    }
}

impl ColumnSpec {
    /// The axes of one row; objects have none.
    pub fn shape(&self) -> Option<&Shape> {
        match self {
            Self::Numbers { shape, .. } | Self::Texts { shape } => Some(shape),
            Self::Objects => None,
        }
    }

    /// The length of a row along its first axis, where it has one.
    pub fn length(&self) -> Option<usize> {
        self.shape()?.first().copied()
    }

    /// The same with rows of that length.
    #[must_use]
    pub fn with_length(&self, length: usize) -> Self {
        let mut spec = self.clone();
        if let Self::Numbers { shape, .. } | Self::Texts { shape } = &mut spec
            && let Some(first) = shape.first_mut()
        {
            *first = length;
        }
        spec
    }
}

/// Byte strings one after another.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds one string.
    pub fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let begin = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(begin..*self.ends.get(index)?)
    }

    /// All strings, without anything between them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each string ends in [`bytes`](Self::bytes).
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The strings that end there; `None` where the ends go back, or do not end with the bytes.
    pub fn from_parts(bytes: Vec<u8>, ends: Vec<usize>) -> Option<Self> {
        let fits = ends.is_sorted() && ends.last().copied().unwrap_or(0) == bytes.len();
        fits.then_some(Self { bytes, ends })
    }

    /// The strings of `range`, in order.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        range.filter_map(|index| self.get(index))
    }
}

/// The rows of one input or output.
#[derive(Debug)]
pub enum Column {
    /// Numbers, row after row, in C order and in the machine's byte order.
    Numbers {
        /// Type of each element.
        dtype: DType,
        /// Axes of one row.
        shape: Shape,
        /// Bytes that one row takes.
        row_bytes: usize,
        /// The rows.
        memory: Memory,
    },
    /// Byte strings.
    Texts {
        /// Axes of one row.
        shape: Shape,
        /// The strings of all rows.
        texts: Texts,
    },
    /// Objects that somebody else keeps, by number.
    Objects(Vec<u64>),
}

impl Column {
    /// An empty column, its memory taken from `spares`.
    pub fn new(spec: &ColumnSpec, spares: &Arc<Spares>) -> Self {
        match spec {
            ColumnSpec::Numbers { dtype, shape } => Self::Numbers {
                dtype: *dtype,
                row_bytes: spec.elements() * dtype.size(),
                shape: shape.clone(),
                memory: spares.memory(),
            },
            ColumnSpec::Texts { shape } => Self::Texts { shape: shape.clone(), texts: Texts::default() },
            ColumnSpec::Objects => Self::Objects(Vec::new()),
        }
    }

    /// What it holds.
    pub fn spec(&self) -> ColumnSpec {
        match self {
            Self::Numbers { dtype, shape, .. } => ColumnSpec::Numbers { dtype: *dtype, shape: shape.clone() },
            Self::Texts { shape, .. } => ColumnSpec::Texts { shape: shape.clone() },
            Self::Objects(_) => ColumnSpec::Objects,
        }
    }

    /// True where it holds so many rows, no more and no less.
    pub fn holds(&self, rows: usize) -> bool {
        match self {
            Self::Numbers { row_bytes, memory, .. } => memory.as_slice().len() == rows * row_bytes,
            Self::Texts { shape, texts } => texts.len() == rows * shape.iter().product::<usize>(),
            Self::Objects(ids) => ids.len() == rows,
        }
    }

    /// Copies row `row` of `from`, a column of the same spec, to the end of this one.
    pub fn push_from(&mut self, from: &Column, row: usize) {
        match (self, from) {
            (Self::Numbers { memory, row_bytes, .. }, Self::Numbers { memory: other, .. }) => {
                if let Some(bytes) = other.as_slice().get(row * *row_bytes..(row + 1) * *row_bytes) {
                    memory.extend(bytes);
                }
            }
            (Self::Texts { texts, shape }, Self::Texts { texts: other, .. }) => {
                let elements = shape.iter().product::<usize>();
                for text in other.range(row * elements..(row + 1) * elements) {
                    texts.push(text);
                }
            }
            (Self::Objects(ids), Self::Objects(other)) => ids.extend(other.get(row)),
            _ => debug_assert!(false, "columns of one group have one spec"),
        }
    }

    /// The length of its longest row: of an array its first axis, of a text its bytes; 1 for anything else.
    pub(super) fn longest(&self) -> usize {
        match self {
            Self::Numbers { shape, .. } => shape.first().copied().unwrap_or(1),
            Self::Texts { texts, shape } => {
                let bytes = texts.range(0..texts.len()).map(<[u8]>::len).max();
                bytes.unwrap_or(1).max(shape.first().copied().unwrap_or(1))
            }
            Self::Objects(_) => 1,
        }
    }

    /// Bytes that row `row` takes.
    pub(super) fn bytes_of(&self, row: usize) -> usize {
        match self {
            Self::Numbers { row_bytes, .. } => *row_bytes,
            Self::Texts { texts, shape } => {
                let elements = shape.iter().product::<usize>();
                texts.range(row * elements..(row + 1) * elements).map(<[u8]>::len).sum()
            }
            Self::Objects(_) => size_of::<u64>(),
        }
    }

    /// The number of the object in row `row`, where the column holds objects.
    pub fn object(&self, row: usize) -> Option<u64> {
        match self {
            Self::Objects(ids) => ids.get(row).copied(),
            _ => None,
        }
    }
}
