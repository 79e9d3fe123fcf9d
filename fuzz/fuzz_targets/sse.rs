//! A stream of server-sent events. Seeds: `tests/corpus/sse`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| penstock_fuzz::read_events(bytes));
