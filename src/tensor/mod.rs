//! Data types, shapes, and the buffers in which rows of many requests become one batch.

mod column;
mod dtype;
mod memory;
mod padding;
mod rows;
mod spec;

pub use column::{Column, ColumnSpec, Shape, Texts};
pub use dtype::DType;
pub use memory::{Memory, Spares};
pub use padding::{OPEN_AXIS, Padding, mask, padded};
pub use rows::{AnswerRow, Rows, Specs};
pub use spec::{Elements, TensorSpec};
