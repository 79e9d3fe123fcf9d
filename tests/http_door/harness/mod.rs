//! A served model that doubles its input, and a client that sends bytes as they are.

#[path = "../../client_connect/harness/authority.rs"]
#[allow(dead_code, reason = "the tests of clients need more of it")]
mod authority;
mod certificates;
mod door;
mod shelf;
mod streams;
mod talk;
mod wire;

pub(crate) use authority::{Authority, Signed};
pub(crate) use certificates::{Certificates, trusting};
pub(crate) use door::{Door, Model, Setup, double, output};
pub(crate) use shelf::{Shelf, Shelving};
pub(crate) use streams::{Client, Stream, endless, post as post_stream, post_to};
pub(crate) use talk::{GENERATE, PROMPT, Talking, ask, said};
pub(crate) use wire::{Answer, Wire};

use std::time::{Duration, Instant};

/// How long a test waits for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where the model is asked.
pub(crate) const INFER: &str = "/v2/models/double/infer";

/// Looks until it is so, and fails if that never comes.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it never came that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The body of a request for rows of one number each.
pub(crate) fn body(numbers: &[f32]) -> String {
    let count = numbers.len();
    format!(r#"{{"inputs":[{{"name":"x","shape":[{count},1],"datatype":"FP32","data":{numbers:?}}}]}}"#)
}

/// The whole request for rows of one number each.
pub(crate) fn infer(numbers: &[f32]) -> String {
    post(INFER, &body(numbers))
}

pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A request with headers of its own and a body of any bytes.
pub(crate) fn post_with(headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {INFER} HTTP/1.1\r\nhost: test\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn bare(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}
