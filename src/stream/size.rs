//! How many bytes a read or a chunk may take at most, learned from what the ones before it took.

/// The smallest cap.
const MIN: usize = 8 * 1024;
/// The largest cap where nobody says otherwise.
const MAX: usize = 64 * 1024;

/// A cap on the bytes of one read or one chunk, which adapts between 8 KiB and a largest one.
///
/// It is a cap and never something to fill: what is there goes on at once. It doubles when it was filled, and halves after
/// two in a row that took less than half of it, as hyper's reads do: a short portion between long ones changes nothing.
///
/// ```
/// let mut size = penstock::stream::ChunkSize::default();
/// assert_eq!(size.cap(), 8 * 1024);
/// size.filled();
/// assert_eq!(size.cap(), 16 * 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSize {
    cap: usize,
    max: usize,
    /// The last one was small.
    was_small: bool,
}

impl Default for ChunkSize {
    /// From 8 KiB up to 64 KiB.
    fn default() -> Self {
        Self::new(MAX)
    }
}

impl ChunkSize {
    /// From 8 KiB up to `max` bytes; a `max` below 8 KiB is the cap for good.
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self { cap: MIN.min(max), max, was_small: false }
    }

    /// Bytes that the next one may take at most.
    pub fn cap(&self) -> usize {
        self.cap
    }

    /// One took all that the cap allowed: there was more.
    pub fn filled(&mut self) {
        self.was_small = false;
        self.cap = self.cap.saturating_mul(2).min(self.max);
    }

    /// One took less than half of the cap.
    pub fn small(&mut self) {
        if self.was_small {
            self.cap = (self.cap / 2).max(MIN).min(self.max);
        }
        self.was_small = !self.was_small;
    }

    /// One took `bytes`: decides which of the two it was, if any.
    pub fn took(&mut self, bytes: usize) {
        if bytes >= self.cap {
            self.filled();
        } else if bytes < self.cap / 2 {
            self.small();
        } else {
            self.was_small = false;
        }
    }
}
