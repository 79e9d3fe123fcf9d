//! Weights in the safetensors format: a strict parser of its header, and the bytes behind it, mapped or read.
//!
//! The format: <https://github.com/huggingface/safetensors#format>. What of it is refused here and not by its reference stands at
//! the head of `header.rs`.

mod digest;
mod header;
mod index;
mod json;
mod layout;
mod load;
mod locate;
mod mapping;
mod names;
mod place;
mod region;
mod settings;
mod source;
mod stored;
#[cfg(test)]
mod tests;
mod weights;
mod work;

pub use header::{Header, MAX_HEADER, MAX_RANK, PREFIX, TensorEntry};
pub use index::{Index, MAX_FILES, MAX_INDEX};
pub use mapping::may_map;
pub use region::{ALIGNMENT, Region, RegionKind, Span};
pub use settings::{Checksums, Mode, Settings};
pub use stored::StoredType;
pub use weights::{Found, Tensor, Watch, Weights};
