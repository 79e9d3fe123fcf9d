//! Streams as bytes: what cuts them into events and lines, what writes those, and what packs them. No I/O, no time.
//!
//! Each part takes bytes in any portions and does a portion's work once, whatever came before.

mod coding;
mod cut;
mod encode;
mod lines;
mod pack;
mod size;
mod sse;
#[cfg(test)]
mod tests;

pub use coding::{Coding, accepted};
pub use cut::{EventCutter, RawEvent};
pub use encode::{write_comment, write_event, write_line};
pub use lines::LineDecoder;
pub use pack::{Packer, is_worth};
pub use size::ChunkSize;
pub use sse::{Event, SseDecoder};

/// Bytes that an event or a line may hold where nobody says otherwise.
pub const MAX_EVENT: usize = 1 << 20;
