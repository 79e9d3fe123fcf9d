//! A message of gRPC, of a request and of an answer. Seeds: `tests/corpus/oip/protobuf`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| penstock_fuzz::read_message(message));
