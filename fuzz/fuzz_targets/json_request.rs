//! A body that is JSON as a whole. Seeds: `tests/corpus/oip/json`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| penstock_fuzz::read_for_every_type(body, None));
