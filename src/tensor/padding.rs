//! Rows of different lengths in one batch: filled up to the longest, with a mask that says what is theirs.

use std::sync::Arc;

use super::{Column, ColumnSpec, DType, Memory, Rows, Spares, Specs};

/// Stands for the first axis of a column whose rows have lengths of their own.
pub const OPEN_AXIS: usize = usize::MAX;

/// How rows are filled up along their first axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// Lengths are rounded up to a multiple of this.
    pub multiple: usize,
    /// What rows are filled up with, as the bits of a float64; each data type has the nearest that it can hold.
    pub value_bits: u64,
    /// Which columns are filled up: bit `i` stands for column `i`. Columns without an axis never are.
    pub columns: u64,
}

impl Padding {
    fn opens(&self, at: usize, spec: &ColumnSpec) -> bool {
        let chosen = at < 64 && self.columns & (1 << at) != 0;
        chosen && spec.shape().is_some_and(|shape| !shape.is_empty())
    }

    /// What rows of `specs` have in common with rows of other lengths.
    pub fn family(&self, specs: &Specs) -> Specs {
        let open = |(at, spec): (usize, &ColumnSpec)| {
            if self.opens(at, spec) { spec.with_length(OPEN_AXIS) } else { spec.clone() }
        };
        specs.iter().enumerate().map(open).collect()
    }

    /// The length of rows of `specs`: the longest of those that are filled up, if any is.
    pub fn length(&self, specs: &Specs) -> Option<usize> {
        let lengths = specs.iter().enumerate().filter(|(at, spec)| self.opens(*at, spec));
        lengths.filter_map(|(_, spec)| spec.length()).max()
    }

    /// The length that rows of that length are filled up to.
    pub fn rounded(&self, length: usize) -> usize {
        length.checked_next_multiple_of(self.multiple.max(1)).unwrap_or(length)
    }
}

/// Puts rows of different lengths together, filled up to the longest in each column. `family` says which columns those are.
pub fn padded<'a>(
    family: &Specs,
    rows: impl Iterator<Item = &'a Rows> + Clone,
    padding: &Padding,
    spares: &Arc<Spares>,
) -> Rows {
    let mut specs = family.clone();
    for (at, spec) in specs.iter_mut().enumerate() {
        if spec.length() == Some(OPEN_AXIS) {
            let lengths = rows.clone().filter_map(|rows| rows.columns().get(at)?.length());
            *spec = spec.with_length(padding.rounded(lengths.max().unwrap_or(0)));
        }
    }
    let mut batch = Rows::new(&specs, spares);
    for from in rows {
        for (column, other) in batch.columns_mut().iter_mut().zip(from.columns()) {
            column.push_padded(other, f64::from_bits(padding.value_bits));
        }
    }
    batch
}

/// For each row, which of its `longest` places are its own: one byte each, 1 or 0.
pub fn mask(lengths: &[u32], longest: usize, spares: &Arc<Spares>) -> Memory {
    let mut memory = spares.memory();
    for (row, length) in memory.grow(lengths.len() * longest).chunks_mut(longest.max(1)).zip(lengths) {
        let own = usize::try_from(*length).unwrap_or(longest).min(longest);
        row.iter_mut().take(own).for_each(|place| *place = 1);
    }
    memory
}

impl Column {
    /// The length of this column's rows along their first axis, where they have one.
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Numbers { shape, .. } | Self::Texts { shape, .. } => shape.first().copied(),
            Self::Objects(_) => None,
        }
    }

    /// A column of row `row` alone, with the first `length` places of its first axis where one is given.
    #[must_use]
    pub fn row_cut_to(&self, row: usize, length: Option<usize>, spares: &Arc<Spares>) -> Self {
        let whole = self.spec();
        let spec = length.map_or_else(|| whole.clone(), |length| whole.with_length(length));
        let mut cut = Self::new(&spec, spares);
        match (&mut cut, self) {
            (
                Self::Numbers { memory, row_bytes, .. },
                Self::Numbers { memory: all, row_bytes: of_row, .. },
            ) => {
                let from = row * of_row;
                memory.extend(all.as_slice().get(from..from + *row_bytes).unwrap_or_default());
            }
            (Self::Texts { texts, .. }, Self::Texts { texts: all, .. }) => {
                let from = row * whole.elements();
                all.range(from..from + spec.elements()).for_each(|text| texts.push(text));
            }
            _ => cut.push_from(self, row),
        }
        cut
    }

    /// Adds the only row of `from`, filled up to the length of this column's rows.
    fn push_padded(&mut self, from: &Column, value: f64) {
        match (self, from) {
            (Self::Numbers { memory, row_bytes, dtype, .. }, Self::Numbers { memory: other, .. }) => {
                let bytes = other.as_slice();
                memory.extend(bytes);
                fill(memory.grow(row_bytes.saturating_sub(bytes.len())), *dtype, value);
            }
            (Self::Texts { texts, shape }, Self::Texts { texts: other, .. }) => {
                other.range(0..other.len()).for_each(|text| texts.push(text));
                let missing = shape.iter().product::<usize>().saturating_sub(other.len());
                (0..missing).for_each(|_| texts.push(b""));
            }
            (Self::Objects(ids), Self::Objects(other)) => ids.extend(other),
            _ => debug_assert!(false, "columns of one group have one spec"),
        }
    }
}

/// Writes a number over and over; zeros are there already.
fn fill(bytes: &mut [u8], dtype: DType, value: f64) {
    if value != 0.0 {
        let element = dtype.bytes_of(value);
        for place in bytes.chunks_mut(element.len().max(1)) {
            place.copy_from_slice(element.get(..place.len()).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::{SmallVec, smallvec};

    fn numbers(dtype: DType, shape: &[usize]) -> ColumnSpec {
        ColumnSpec::Numbers { dtype, shape: SmallVec::from_slice(shape) }
    }

    fn padding(multiple: usize, value: f64) -> Padding {
        Padding { multiple, value_bits: value.to_bits(), columns: u64::MAX }
    }

    fn row(length: u8, spares: &Arc<Spares>) -> Rows {
        let specs: Specs = smallvec![
            numbers(DType::Int16, &[usize::from(length), 2]),
            ColumnSpec::Texts { shape: smallvec![usize::from(length)] },
            numbers(DType::UInt8, &[]),
        ];
        let mut rows = Rows::new(&specs, spares);
        for column in rows.columns_mut() {
            match column {
                Column::Numbers { memory, dtype: DType::Int16, .. } => {
                    (0..length * 2).for_each(|at| memory.extend(&i16::from(length + at).to_ne_bytes()));
                }
                Column::Numbers { memory, .. } => memory.extend(&[length]),
                Column::Texts { texts, .. } => (0..length).for_each(|at| texts.push(&[b'a' + at])),
                Column::Objects(_) => {}
            }
        }
        rows
    }

    #[test]
    fn rows_are_filled_up_to_the_longest_rounded_up() {
        let spares = Spares::new(1 << 16);
        let padding = padding(4, -1.0);
        let family: Specs = smallvec![
            numbers(DType::Int16, &[OPEN_AXIS, 2]),
            ColumnSpec::Texts { shape: smallvec![OPEN_AXIS] },
            numbers(DType::UInt8, &[]),
        ];
        let rows = [row(1, &spares), row(3, &spares)];
        let batch = padded(&family, rows.iter(), &padding, &spares);
        let [
            Column::Numbers { memory, shape, .. },
            Column::Texts { texts, .. },
            Column::Numbers { memory: flags, .. },
        ] = batch.columns()
        else {
            panic!("{batch:?}");
        };
        assert_eq!(shape.as_slice(), [4, 2]);
        let values: Vec<i16> =
            memory.as_slice().chunks(2).map(|pair| i16::from_ne_bytes([pair[0], pair[1]])).collect();
        assert_eq!(values, [1, 2, -1, -1, -1, -1, -1, -1, 3, 4, 5, 6, 7, 8, -1, -1]);
        let texts: Vec<_> = texts.range(0..texts.len()).collect();
        assert_eq!(texts, [&b"a"[..], b"", b"", b"", b"a", b"b", b"c", b""]);
        assert_eq!(flags.as_slice(), [1, 3]);
        assert_eq!(mask(&[1, 3], 4, &spares).as_slice(), [1, 0, 0, 0, 1, 1, 1, 0]);
    }

    #[test]
    fn a_row_is_cut_back_to_its_own_length() {
        let spares = Spares::new(1 << 16);
        let family: Specs = smallvec![
            numbers(DType::Int16, &[OPEN_AXIS, 2]),
            ColumnSpec::Texts { shape: smallvec![OPEN_AXIS] }
        ];
        let rows = [row(1, &spares), row(3, &spares)];
        let batch = padded(&family, rows.iter(), &padding(4, 0.0), &spares);
        let cut = batch.columns()[0].row_cut_to(1, Some(3), &spares);
        assert_eq!(cut.length(), Some(3));
        let Column::Numbers { memory, .. } = cut else { panic!() };
        assert_eq!(memory.as_slice(), [3_i16, 4, 5, 6, 7, 8].map(i16::to_ne_bytes).concat());
        let Column::Texts { texts, .. } = batch.columns()[1].row_cut_to(1, Some(3), &spares) else {
            panic!()
        };
        assert_eq!(texts.range(0..9).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        let Column::Texts { texts, .. } = batch.columns()[1].row_cut_to(0, None, &spares) else { panic!() };
        assert_eq!(texts.len(), 4);
    }

    #[test]
    fn only_the_chosen_columns_are_open_and_count() {
        let specs: Specs = smallvec![numbers(DType::Float32, &[7, 3]), numbers(DType::Float32, &[64])];
        let chosen = Padding { columns: 1, ..padding(1, 0.0) };
        assert_eq!(chosen.family(&specs)[0].length(), Some(OPEN_AXIS));
        assert_eq!(chosen.family(&specs)[1], specs[1]);
        assert_eq!((chosen.length(&specs), padding(1, 0.0).length(&specs)), (Some(7), Some(64)));
        assert_eq!(chosen.length(&smallvec![ColumnSpec::Objects]), None);
    }

    #[test]
    fn every_data_type_has_a_value_to_fill_with() {
        for dtype in DType::ALL {
            assert_eq!(dtype.bytes_of(1.0).len(), dtype.size(), "{}", dtype.name());
        }
        assert_eq!(DType::UInt8.bytes_of(-5.0).as_slice(), [0]);
        assert_eq!(DType::Int8.bytes_of(-5.0).as_slice(), [0xfb]);
        assert_eq!(DType::Float16.bytes_of(1.0).as_slice(), 0x3c00_u16.to_ne_bytes());
        assert_eq!(DType::BFloat16.bytes_of(1.0).as_slice(), 0x3f80_u16.to_ne_bytes());
    }
}
