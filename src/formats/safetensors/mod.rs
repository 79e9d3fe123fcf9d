//! Weights in the safetensors format: a strict parser of its header, and the bytes behind it, mapped or read.

mod header;
mod json;
mod layout;
#[allow(dead_code, reason = "the files that use it come next")]
mod names;
#[allow(dead_code, reason = "the files that use it come next")]
mod region;
mod settings;
mod stored;
mod weights;

pub use header::{Header, MAX_HEADER, MAX_RANK, PREFIX, TensorEntry};
pub use region::{ALIGNMENT, Region, RegionKind, Span};
pub use settings::{Checksums, Mode, Settings};
pub use stored::StoredType;
pub use weights::{Found, Tensor, Watch, Weights};
