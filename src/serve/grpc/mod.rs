//! gRPC: the same service, limits, queues and log as over HTTP, by the calls of `proto/`.
//!
//! How calls travel: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>; what their statuses mean:
//! <https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>.

mod account;
mod body;
mod call;
mod health;
mod infer;
mod inquiries;
mod message;
mod method;
mod reflection;
mod reply;
mod steps;
mod stream;

pub(super) use body::AnswerBody;
pub(super) use inquiries::decoded;
pub(super) use reply::{is_call, names_grpc};

use crate::wire::grpc::{Code, Status};

/// What ends a stream that is open while the server closes: the caller goes elsewhere.
fn closing() -> Status {
    Status::new(Code::Unavailable, "the server is closing")
}
