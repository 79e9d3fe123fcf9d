//! Memory in which tensors lie: a map of a file, or memory of this process.
//!
//! This file holds unsafe code for one call, the one that maps a file. Its contract is that nobody changes the file while it is mapped:
//! a `&[u8]` over it would change under its reader, and a file that is made shorter takes pages away, which ends the process
//! with a SIGBUS when they are looked at. Two things keep it: mode `auto` maps only files that nobody may write
//! ([`super::may_map`]), and who asks for `mmap` by name answers for the file, as the documentation of that mode says. Bytes of a
//! map are floating point numbers and integers to everybody here: no text, no reference and no length is ever read from one.
#![allow(unsafe_code, reason = "memory maps: the contract stands above")]

use std::fs::File;
use std::io;
use std::sync::Arc;

use aligned_vec::{AVec, ConstAlign};
use memmap2::{Mmap, MmapMut};

use crate::error::{Error, ErrorKind, Result};

/// Where memory of this process begins: a cache line.
pub const ALIGNMENT: usize = 64;

/// From here on memory comes in pages of its own, which the system gets back as soon as it is dropped.
const OWN_PAGES: usize = 256 << 10;

type Heap = AVec<u8, ConstAlign<ALIGNMENT>>;

/// Bytes that do not move and do not change.
#[derive(Debug)]
pub struct Region {
    held: Held,
}

#[derive(Debug)]
enum Held {
    Map(Mmap),
    Pages(MmapMut),
    Heap(Heap),
}

/// What a region is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// The pages of a file.
    Mapped,
    /// Memory of this process.
    Read,
}

impl Region {
    /// The first `length` bytes of a file, as its own pages.
    pub(super) fn map(file: &File, length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { held: Held::Heap(Heap::new(ALIGNMENT)) });
        }
        // SAFETY: nobody changes the file while it is mapped, which whoever chose to map it vouched for: see the head of this file.
        let map = unsafe { memmap2::MmapOptions::new().len(length).map(file) }?;
        Ok(Self { held: Held::Map(map) })
    }

    /// Zeros, to be written through [`Region::as_mut_slice`] before it is shared.
    pub(super) fn zeroed(length: usize) -> Result<Self> {
        let held = if length < OWN_PAGES {
            let mut heap = Heap::new(ALIGNMENT);
            heap.resize(length, 0);
            Held::Heap(heap)
        } else {
            let pages = MmapMut::map_anon(length).map_err(|cause| exhausted(length, cause))?;
            // Not every kernel has them, and nothing but speed hangs on them.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            Held::Pages(pages)
        };
        Ok(Self { held })
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.held {
            Held::Map(_) => &mut [],
            Held::Pages(pages) => pages,
            Held::Heap(heap) => heap,
        }
    }

    /// What is in it.
    pub fn as_slice(&self) -> &[u8] {
        match &self.held {
            Held::Map(map) => map,
            Held::Pages(pages) => pages,
            Held::Heap(heap) => heap,
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// True where it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it is made of.
    pub fn kind(&self) -> RegionKind {
        match self.held {
            Held::Map(_) => RegionKind::Mapped,
            Held::Pages(_) | Held::Heap(_) => RegionKind::Read,
        }
    }
}

fn exhausted(length: usize, cause: io::Error) -> Error {
    Error::with_source(ErrorKind::Capacity, format!("no memory for {length} bytes of weights"), cause)
}

/// Bytes of one tensor, or of some of its rows; they keep the region that they lie in.
#[derive(Debug, Clone)]
pub struct Span {
    region: Arc<Region>,
    offset: usize,
    length: usize,
}

impl Span {
    pub(super) fn new(region: Arc<Region>, offset: usize, length: usize) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (end <= region.len()).then_some(Self { region, offset, length })
    }

    /// The memory that the bytes lie in.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Where in the region they begin.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.region.as_slice().get(self.offset..self.offset + self.length).unwrap_or_default()
    }

    /// True where they begin at a multiple of `alignment`.
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.as_slice().as_ptr().addr().is_multiple_of(alignment)
    }

    /// The same bytes in a region of their own, which begins at a cache line.
    ///
    /// # Errors
    /// [`ErrorKind::Capacity`] where there is no memory.
    pub fn aligned_copy(&self) -> Result<Self> {
        let mut region = Region::zeroed(self.length)?;
        region.as_mut_slice().copy_from_slice(self.as_slice());
        Ok(Self { region: Arc::new(region), offset: 0, length: self.length })
    }
}
