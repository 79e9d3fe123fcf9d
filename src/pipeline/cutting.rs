//! Answers to rows that were filled up, cut back to the lengths that their rows had.

use std::sync::Arc;

use super::ModelSpec;
use crate::error::Result;
use crate::tensor::{AnswerRow, Spares};

/// Cuts each answer back to the length of its row, in the outputs whose first axis is open and as long as `longest`.
pub fn cut_back(
    spec: &ModelSpec,
    answers: &mut [Result<AnswerRow>],
    lengths: &[u32],
    longest: usize,
    spares: &Arc<Spares>,
) {
    let open: Vec<bool> =
        spec.outputs.iter().map(|output| matches!(output.axes.first(), Some(None))).collect();
    if !open.iter().any(|open| *open) {
        return;
    }
    let rows =
        answers.iter_mut().zip(lengths).filter_map(|(row, length)| Some((row.as_mut().ok()?, *length)));
    for (row, length) in rows {
        let columns = row.columns.iter().zip(&open).map(|(column, open)| {
            let to = if *open && column.length() == Some(longest) { Some(length as usize) } else { None };
            column.row_cut_to(row.row, to, spares)
        });
        *row = AnswerRow { columns: Arc::new(columns.collect()), row: 0, tokens: row.tokens };
    }
}
