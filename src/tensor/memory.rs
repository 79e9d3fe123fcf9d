//! Memory for batches: aligned, reused, and given back only when nobody looks at it any more.

use std::sync::Arc;

use aligned_vec::{AVec, ConstAlign};
use parking_lot::Mutex;

/// Where every batch buffer begins: a cache line, which is also what wide vector instructions like best.
const ALIGNMENT: usize = 64;

type Bytes = AVec<u8, ConstAlign<ALIGNMENT>>;

/// Bytes of a batch. When it is dropped, its allocation goes back to the spares that it came from.
#[derive(Debug)]
pub struct Memory {
    bytes: Bytes,
    spares: Arc<Spares>,
}

impl Memory {
    /// Adds the bytes of one row.
    pub fn extend(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
    }

    /// What is in it.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// What is in it, to be written in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Grows by `length` zeros, and gives them to be written.
    pub fn grow(&mut self, length: usize) -> &mut [u8] {
        let before = self.bytes.len();
        self.bytes.resize(before + length, 0);
        self.bytes.get_mut(before..).unwrap_or_default()
    }

    /// Keeps the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let bytes = std::mem::replace(&mut self.bytes, AVec::new(ALIGNMENT));
        self.spares.keep(bytes);
    }
}

/// Allocations between two batches, bounded in bytes.
#[derive(Debug)]
pub struct Spares {
    kept: Mutex<Kept>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Kept {
    allocations: Vec<Bytes>,
    bytes: usize,
}

impl Spares {
    /// Keeps at most `limit` bytes of unused allocations.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), limit })
    }

    /// Empty memory, reused where some is left.
    pub fn memory(self: &Arc<Self>) -> Memory {
        let bytes = {
            let mut kept = self.kept.lock();
            let bytes = kept.allocations.pop();
            kept.bytes -= bytes.as_ref().map_or(0, AVec::capacity);
            bytes
        };
        Memory { bytes: bytes.unwrap_or_else(|| AVec::new(ALIGNMENT)), spares: Arc::clone(self) }
    }

    fn keep(&self, mut bytes: Bytes) {
        bytes.clear();
        let mut kept = self.kept.lock();
        if bytes.capacity() > 0 && kept.bytes + bytes.capacity() <= self.limit {
            kept.bytes += bytes.capacity();
            kept.allocations.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_allocation_serves_the_next_batch() {
        let spares = Spares::new(1 << 20);
        let mut first = spares.memory();
        first.extend(&[1; 100]);
        let address = first.as_slice().as_ptr();
        assert_eq!(address as usize % ALIGNMENT, 0);
        drop(first);
        let mut second = spares.memory();
        assert!(second.as_slice().is_empty());
        second.extend(&[2; 100]);
        assert_eq!(second.as_slice().as_ptr(), address);
    }

    #[test]
    fn spares_stay_within_their_limit() {
        let spares = Spares::new(64);
        let mut large = spares.memory();
        large.extend(&[0; 4096]);
        drop(large);
        assert_eq!(spares.kept.lock().bytes, 0);
    }
}
