//! An index of safetensors files. Seeds: `tests/corpus/safetensors/index`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| penstock_fuzz::read_index(text));
