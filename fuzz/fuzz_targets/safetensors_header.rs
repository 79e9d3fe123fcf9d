//! A safetensors file. Seeds: `tests/corpus/safetensors/header`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| penstock_fuzz::read_header(file));
