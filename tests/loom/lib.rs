//! Penstock's own files, built upon loom's locks and atomics.
#![cfg(test)]

#[path = "../../src/flow/burst.rs"]
mod burst;
