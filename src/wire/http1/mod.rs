//! HTTP/1.1 as bytes: answers that come in any portions, their header fields, and the chunked coding. No socket in sight.

mod chunked;
mod decoder;
mod fields;
#[cfg(test)]
mod tests;

pub use decoder::{Decoder, Head};
pub use fields::{Fields, expects_a_body, field_of, fields_of, put_field};
