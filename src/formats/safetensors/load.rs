//! Loading many tensors at once: every file's into one region, by threads that share the work of all files.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::digest::{Digest, Hashing};
use super::header::TensorEntry;
use super::place::{Places, pieces};
use super::region::{Region, Span};
use super::weights::{Tensor, Volume, Watch, Weights, oversized};
use super::work::{self, Job};
use crate::error::Result;

/// What is loaded of one file.
struct Order<'w> {
    volume: &'w Volume,
    /// Positions in the file, in order.
    wanted: Vec<usize>,
    places: Places,
}

/// How the digest of a file comes about.
enum Sum<'m> {
    /// Nobody asks for it.
    None,
    /// From the very bytes that are handed out.
    Pieces(Hashing<'m>),
    /// By reading the file for it: not all of it is handed out, or a map is.
    Whole(Mutex<Option<Digest>>),
}

impl Weights {
    /// Loads tensors: in the order of their bytes, or of `names`, each once.
    pub(super) fn load_all(&self, names: Option<&[String]>, watch: Watch<'_>) -> Result<Vec<Tensor>> {
        let chosen = names.map(|names| self.choose(names)).transpose()?;
        let orders = self.orders(chosen.as_deref())?;
        let mut regions = orders.iter().map(Order::region).collect::<Result<Vec<_>>>()?;
        self.fill(&orders, &mut regions, watch)?;
        self.check_in_place()?;
        let mut tensors = BTreeMap::new();
        for (file, (order, region)) in orders.iter().zip(regions).enumerate() {
            let found = order.tensors(region.map(Arc::new).as_ref())?;
            tensors.extend(order.wanted.iter().zip(found).map(|(at, tensor)| ((file, *at), tensor)));
        }
        Ok(match chosen {
            None => tensors.into_values().collect(),
            Some(chosen) => chosen.iter().filter_map(|place| tensors.remove(place)).collect(),
        })
    }

    /// The file and the position in it of each name.
    fn choose(&self, names: &[String]) -> Result<Vec<(usize, usize)>> {
        let place = |name: &String| {
            let (file, volume, _) = self.wanted(name)?;
            Ok((file, volume.source.header().position(name).unwrap_or_default()))
        };
        names.iter().map(place).collect()
    }

    fn orders(&self, chosen: Option<&[(usize, usize)]>) -> Result<Vec<Order<'_>>> {
        let wanted = |file: usize, volume: &Volume| match chosen {
            None => (0..volume.source.header().tensors().len()).collect(),
            Some(chosen) => chosen.iter().filter(|(home, _)| *home == file).map(|(_, at)| *at).collect(),
        };
        self.files.iter().enumerate().map(|(file, volume)| Order::new(volume, wanted(file, volume))).collect()
    }

    fn fill(&self, orders: &[Order<'_>], regions: &mut [Option<Region>], watch: Watch<'_>) -> Result<()> {
        let sums: Vec<Sum<'_>> = orders.iter().map(Order::sum).collect();
        let mut jobs = Vec::new();
        for ((order, region), sum) in orders.iter().zip(regions).zip(&sums) {
            let source = &order.volume.source;
            let hashing = if let Sum::Pieces(hashing) = sum { Some(hashing) } else { None };
            let memory = region.as_mut().map(Region::as_mut_slice).unwrap_or_default();
            let fill = |piece| Job::Fill { source, piece, hashing };
            if let Sum::Whole(digest) = sum {
                jobs.push(Job::Sum { source, digest });
            }
            jobs.extend(pieces(&order.places.runs, memory).into_iter().map(fill));
        }
        work::run(jobs, self.settings.threads, watch)?;
        orders.iter().zip(sums).try_for_each(|(order, sum)| order.compare(sum))
    }
}

impl<'w> Order<'w> {
    fn new(volume: &'w Volume, mut wanted: Vec<usize>) -> Result<Self> {
        wanted.sort_unstable();
        wanted.dedup();
        let mut order = Self { volume, wanted, places: Places::default() };
        if volume.map.is_none() {
            order.places = Places::of(order.entries()).ok_or_else(|| oversized(u64::MAX))?;
        }
        Ok(order)
    }

    fn entries(&self) -> impl Iterator<Item = &'w TensorEntry> {
        let tensors = self.volume.source.header().tensors();
        self.wanted.iter().filter_map(|at| tensors.get(*at))
    }

    fn is_complete(&self) -> bool {
        self.wanted.len() == self.volume.source.header().tensors().len()
    }

    /// Memory for what is read; none where the file is mapped.
    fn region(&self) -> Result<Option<Region>> {
        self.volume.map.is_none().then(|| Region::zeroed(self.places.length)).transpose()
    }

    fn sum<'m>(&self) -> Sum<'m> {
        match self.volume.digest {
            None => Sum::None,
            Some(_) if self.wanted.is_empty() && !self.is_complete() => Sum::None,
            Some(_) if self.volume.map.is_none() && self.is_complete() => {
                Sum::Pieces(Hashing::new(&self.volume.head))
            }
            Some(_) => Sum::Whole(Mutex::new(None)),
        }
    }

    fn compare(&self, sum: Sum<'_>) -> Result<()> {
        let found = match sum {
            Sum::None => return Ok(()),
            Sum::Pieces(hashing) => Some(hashing.finish()),
            Sum::Whole(found) => found.into_inner(),
        };
        self.volume.digest.map_or(Ok(()), |expected| self.volume.compare(expected, found))
    }

    fn tensors(&self, region: Option<&Arc<Region>>) -> Result<Vec<Tensor>> {
        let offsets = self.places.offsets.iter().copied().map(Some).chain(std::iter::repeat(None));
        let tensor = |(entry, offset): (&TensorEntry, Option<usize>)| {
            let bytes = self.bytes(entry, region.zip(offset))?;
            Ok(Tensor { name: entry.name.clone(), dtype: entry.dtype, shape: entry.shape.clone(), bytes })
        };
        self.entries().zip(offsets).map(tensor).collect()
    }

    fn bytes(&self, entry: &TensorEntry, read: Option<(&Arc<Region>, usize)>) -> Result<Span> {
        let nbytes = entry.nbytes();
        match (&self.volume.map, read) {
            (Some(map), _) => self.volume.mapped(map, entry.begin, nbytes),
            (None, Some((region, offset))) => {
                let length = usize::try_from(nbytes).map_err(|_| oversized(nbytes))?;
                Span::new(Arc::clone(region), offset, length).ok_or_else(|| oversized(nbytes))
            }
            (None, None) => Err(oversized(nbytes)),
        }
    }
}
