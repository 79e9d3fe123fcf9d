//! Rows of different lengths in one batch: filled up to the longest, with a mask that says what is theirs.

/// How rows are filled up along their first axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// Lengths are rounded up to a multiple of this.
    pub multiple: usize,
    /// What rows are filled up with, as the bits of a float64; each data type has the nearest that it can hold.
    pub value_bits: u64,
}
