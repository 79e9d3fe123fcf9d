//! A line with the header length or `none`, then a body of JSON and binary data. Seeds: `tests/corpus/oip/binary`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let header_length = std::str::from_utf8(&input[..end]).ok().and_then(|line| line.parse().ok());
    penstock_fuzz::read_for_every_type(&input[end + 1..], header_length);
});
