//! Penstock's own files, built upon loom's locks and atomics.
#![cfg(test)]

#[path = "../../src/flow/burst.rs"]
mod burst;
#[allow(dead_code, reason = "the models use what they check")]
#[path = "../../src/flow/journal.rs"]
mod journal;
mod monitor;

use monitor::{Held, Monitor};
