//! Where tensors that are read go in memory, and in which pieces they are read.

use super::header::TensorEntry;
use super::region::ALIGNMENT;

/// Tensors of this many bytes begin at a cache line of their own; smaller ones follow one another as in the file, so that they
/// are read together.
const LARGE: u64 = 4096;

/// The most bytes that are read at once. Pieces end where multiples of it do in memory, so that a large page is one thread's.
const PIECE: usize = 4 << 20;

/// Where tensors of one file go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Where each begins in memory.
    pub(super) offsets: Vec<usize>,
    /// What is read in one go, in the order of both file and memory.
    pub(super) runs: Vec<Run>,
    /// Bytes of memory.
    pub(super) length: usize,
}

/// Bytes that follow one another in the file and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Where in the file, counted from the end of the header.
    pub(super) from: u64,
    /// Where in memory.
    pub(super) to: usize,
    /// How many.
    pub(super) length: usize,
}

impl Places {
    /// Places tensors of one file, in the order of their bytes; nothing where memory cannot be that long.
    pub(super) fn of<'a>(tensors: impl Iterator<Item = &'a TensorEntry>) -> Option<Self> {
        let mut places = Self::default();
        for tensor in tensors {
            let alignment = if tensor.nbytes() >= LARGE { ALIGNMENT } else { tensor.dtype.alignment() };
            let length = usize::try_from(tensor.nbytes()).ok()?;
            let end = match places.runs.last_mut() {
                Some(run) if run.continues(tensor.begin) && places.length.is_multiple_of(alignment) => {
                    run.length = run.length.checked_add(length)?;
                    places.length
                }
                _ => {
                    let to = places.length.checked_next_multiple_of(ALIGNMENT)?;
                    places.runs.push(Run { from: tensor.begin, to, length });
                    to
                }
            };
            places.offsets.push(end);
            places.length = end.checked_add(length)?;
        }
        Some(places)
    }
}

impl Run {
    fn continues(&self, begin: u64) -> bool {
        self.from.checked_add(self.length as u64) == Some(begin)
    }
}

/// Memory that is filled from one place of a file.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// Where in the file, counted from the end of the header.
    pub(super) from: u64,
    /// Where to.
    pub(super) memory: &'a mut [u8],
}

/// Cuts the memory of runs into pieces.
pub(super) fn pieces<'a>(runs: &[Run], mut memory: &'a mut [u8]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for run in runs {
        (_, memory) = memory.split_at_mut_checked(run.to.saturating_sub(at)).unwrap_or_default();
        at = run.to;
        let (mut from, end) = (run.from, run.to + run.length);
        while at < end {
            let length = (end - at).min(PIECE - at % PIECE);
            let (piece, rest) = memory.split_at_mut_checked(length).unwrap_or_default();
            memory = rest;
            pieces.push(Piece { from, memory: piece });
            (at, from) = (at + length, from + length as u64);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::super::stored::StoredType;
    use super::*;

    fn entry(dtype: StoredType, begin: u64, end: u64) -> TensorEntry {
        let shape = vec![usize::try_from((end - begin) * 8 / dtype.bits()).unwrap()];
        TensorEntry { name: format!("{begin}"), dtype, shape, begin, end }
    }

    #[test]
    fn neighbours_are_read_together_where_alignment_lets_them() {
        let tensors = [
            entry(StoredType::F32, 0, 8),
            entry(StoredType::U8, 8, 11),
            entry(StoredType::U8, 11, 12),
            entry(StoredType::F32, 12, 16),
            entry(StoredType::U8, 16, 17),
            entry(StoredType::F32, 17, 21),
            entry(StoredType::U8, 21, 8213),
        ];
        let places = Places::of(tensors.iter()).unwrap();
        assert_eq!(places.offsets, [0, 8, 11, 12, 16, 64, 128]);
        let run = |from, to, length| Run { from, to, length };
        assert_eq!(places.runs, [run(0, 0, 17), run(17, 64, 4), run(21, 128, 8192)]);
        assert_eq!(places.length, 128 + 8192);
    }

    #[test]
    fn what_is_left_out_breaks_a_run() {
        let tensors = [entry(StoredType::U8, 0, 4), entry(StoredType::U8, 6, 8)];
        let places = Places::of(tensors.iter()).unwrap();
        assert_eq!(places.offsets, [0, 64]);
        assert_eq!(places.runs.len(), 2);
    }

    #[test]
    fn pieces_fill_what_was_placed_and_nothing_else() {
        let large = 3 * PIECE as u64 + 5;
        let tensors = [
            entry(StoredType::U8, 0, 5),
            entry(StoredType::U8, 5, 5 + large),
            entry(StoredType::U8, 5 + large, 5 + large),
        ];
        let places = Places::of(tensors.iter()).unwrap();
        let mut memory = vec![0; places.length];
        let mut expected = 0;
        for piece in pieces(&places.runs, &mut memory) {
            assert_eq!(piece.from, expected);
            assert!(!piece.memory.is_empty() && piece.memory.len() <= PIECE);
            expected += piece.memory.len() as u64;
            piece.memory.fill(1);
        }
        assert_eq!(expected, 5 + large);
        let holes = memory.len() - memory.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        assert_eq!(holes, ALIGNMENT - 5);
    }
}
