//! Several columns that grow together: a batch in the making.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Column, ColumnSpec, Spares};

/// The specs of all columns, in order.
pub type Specs = SmallVec<[ColumnSpec; 1]>;

/// Rows gathered from many requests, ready to be handed over as they are.
#[derive(Debug)]
pub struct Rows {
    columns: SmallVec<[Column; 1]>,
}

/// One row of a batch's outputs, which all requests of the batch share.
#[derive(Debug, Clone)]
pub struct AnswerRow {
    /// The outputs of a whole batch, in the order that the model declares them.
    pub columns: Arc<Vec<Column>>,
    /// The row that answers the request.
    pub row: usize,
    /// Tokens that the request's own row came to, where somebody has counted them; else 0.
    pub tokens: u64,
}

impl AnswerRow {
    /// A row of those columns, whose tokens nobody has counted.
    pub fn new(columns: Arc<Vec<Column>>, row: usize) -> Self {
        Self { columns, row, tokens: 0 }
    }

    /// Bytes that the row takes.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.bytes_of(self.row)).sum()
    }
}

impl Rows {
    /// No rows yet; one column for each spec.
    pub fn new(specs: &[ColumnSpec], spares: &Arc<Spares>) -> Self {
        Self { columns: specs.iter().map(|spec| Column::new(spec, spares)).collect() }
    }

    /// Columns that were filled elsewhere, each with the same number of rows.
    pub fn from_columns(columns: SmallVec<[Column; 1]>) -> Self {
        Self { columns }
    }

    /// No rows, of the same columns.
    #[must_use]
    pub fn empty_like(&self, spares: &Arc<Spares>) -> Self {
        Self { columns: self.columns.iter().map(|column| Column::new(&column.spec(), spares)).collect() }
    }

    /// The length of the longest row: of an array its first axis, of a text its bytes.
    pub fn longest(&self) -> usize {
        self.columns.iter().map(Column::longest).max().unwrap_or(1)
    }

    /// The columns, in the order of their specs.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns, to be written: whoever adds a row adds it to each of them.
    pub fn columns_mut(&mut self) -> &mut [Column] {
        &mut self.columns
    }

    /// The columns themselves.
    pub fn into_columns(self) -> SmallVec<[Column; 1]> {
        self.columns
    }

    /// The numbers of the objects in row `row`.
    pub fn objects(&self, row: usize) -> impl Iterator<Item = u64> {
        self.columns.iter().filter_map(move |column| column.object(row))
    }

    /// Adds row `row` of `from`, whose specs are the same.
    pub fn push_from(&mut self, from: &Rows, row: usize) {
        for (column, other) in self.columns.iter_mut().zip(&from.columns) {
            column.push_from(other, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, Texts};

    fn specs() -> Specs {
        SmallVec::from_vec(vec![
            ColumnSpec::Numbers { dtype: DType::UInt8, shape: SmallVec::from_slice(&[2]) },
            ColumnSpec::Texts { shape: SmallVec::from_slice(&[2]) },
            ColumnSpec::Objects,
        ])
    }

    fn push(rows: &mut Rows, number: u8) {
        for column in rows.columns_mut() {
            match column {
                Column::Numbers { memory, .. } => memory.extend(&[number, number + 1]),
                Column::Texts { texts, .. } => {
                    texts.push(&[number]);
                    texts.push(b"");
                }
                Column::Objects(ids) => ids.push(u64::from(number)),
            }
        }
    }

    #[test]
    fn chosen_rows_are_copied_in_every_column() {
        let spares = Spares::new(1 << 16);
        let mut rows = Rows::new(&specs(), &spares);
        for number in [10, 20, 30] {
            push(&mut rows, number);
        }
        let mut chosen = Rows::new(&specs(), &spares);
        chosen.push_from(&rows, 2);
        chosen.push_from(&rows, 0);
        match chosen.columns() {
            [Column::Numbers { memory, .. }, Column::Texts { texts, .. }, Column::Objects(ids)] => {
                assert_eq!(memory.as_slice(), [30, 31, 10, 11]);
                assert_eq!(texts.range(0..4).collect::<Vec<_>>(), [&b"\x1e"[..], b"", b"\x0a", b""]);
                assert_eq!(ids, &[30, 10]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(chosen.columns()[2].object(1), Some(10));
        assert_eq!(chosen.columns()[0].object(1), None);
    }

    #[test]
    fn texts_know_where_each_begins() {
        let mut texts = Texts::default();
        assert!(texts.is_empty());
        texts.push(b"one");
        texts.push("zwölf".as_bytes());
        assert_eq!(texts.get(0), Some(&b"one"[..]));
        assert_eq!(texts.get(1), Some("zwölf".as_bytes()));
        assert_eq!((texts.get(2), texts.len()), (None, 2));
    }
}
