//! gRPC over HTTP/2: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. Statuses, time-outs, messages on
//! the wire, and the services that are known.

mod code;
mod frame;
pub mod proto;
mod status;
mod timeout;

pub use code::Code;
pub use frame::{Encoding, Messages, PREFIX, framed, prefix_of};
pub use status::Status;
pub use timeout::{parse_timeout, timeout_value};

/// The content type of requests and answers; `+proto` and the like may follow.
pub const CONTENT_TYPE: &str = "application/grpc";

/// True for a content type of gRPC, whatever its messages are encoded by.
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(CONTENT_TYPE.as_bytes())
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}
