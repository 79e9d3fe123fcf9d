//! Packing a streamed answer, where its client accepts that and it is worth it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::Streams;
use super::flow::Flow;
use crate::stream::{self, Coding, Packer};

/// Bytes of memory that all answers that are packed may take together: about 64 of them by zstd, or 16 by gzip.
const MEMORY: usize = 4608 * 1024;

/// An answer that is packed.
pub(super) struct Packing {
    packer: Packer,
    coding: Coding,
    _place: Place,
}

/// A share of the [`MEMORY`].
struct Place {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Place {
    fn take(taken: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        // Counted from here on, and no more where that is dropped.
        let place = Self { taken: Arc::clone(taken), bytes };
        (taken.fetch_add(bytes, Ordering::Relaxed) + bytes <= MEMORY).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Packs an answer that begins so, unless it is better left as it is.
pub(super) fn begin(streams: &Streams, headers: &HeaderMap, flow: &Flow) -> Option<Packing> {
    if !streams.packs {
        return None;
    }
    let coding = accepted(headers)?;
    let place = Place::take(&streams.packed, coding.memory())?;
    // How long an answer becomes that goes on nobody knows.
    let expected = if flow.is_over() { flow.out.len() } else { usize::MAX };
    stream::is_worth(&flow.out, expected).then(|| Packing {
        packer: Packer::new(coding),
        coding,
        _place: place,
    })
}

fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let mut fields = headers.get_all(header::ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes);
    let first = fields.next()?;
    match fields.next() {
        None => stream::accepted(first),
        Some(second) => {
            let all: Vec<_> = [first, second].into_iter().chain(fields).collect();
            stream::accepted(&all.join(&b","[..]))
        }
    }
}

impl Packing {
    /// Its name, as `Content-Encoding` says it.
    pub(super) fn name(&self) -> HeaderValue {
        HeaderValue::from_static(self.coding.name())
    }

    /// Bytes from which all of `plain` can be unpacked, `last` or not.
    pub(super) fn pack(&mut self, plain: &[u8], last: bool) -> Bytes {
        let mut packed = Vec::with_capacity(plain.len() / 2 + 64);
        self.packer.push(plain, &mut packed);
        if last {
            self.packer.finish(&mut packed);
        }
        packed.into()
    }
}
