//! A server as callers of its own process reach it: arrays in, arrays out, with no wire between.

mod desk;
mod inputs;
mod native;
mod outputs;
mod pieces;

pub(crate) use native::NativePipeline;
pub(crate) use outputs::NativeTiming;
pub(crate) use pieces::NativePieces;
