//! What a server of the tests says.

use crate::server::{Asked, Step};

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&penstock::wire::grpc::prefix_of(message.len())[..], message].concat()
}

pub(crate) fn head() -> Step {
    Step::Head(200, vec![("content-type", "application/grpc".to_owned())])
}

pub(crate) fn status(code: u8) -> Step {
    Step::Trailers(vec![("grpc-status", code.to_string())])
}

/// An answer of one message that went well.
pub(crate) fn answer(message: &[u8]) -> Vec<Step> {
    vec![head(), Step::Data(framed(message)), status(0)]
}

/// An answer that is nothing but a status.
pub(crate) fn failure(code: u8, message: &str) -> Vec<Step> {
    let fields = [("content-type", "application/grpc"), ("grpc-message", message)];
    let mut fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    fields.push(("grpc-status", code.to_string()));
    vec![Step::Only(200, fields)]
}

/// Answers every call with the message that it brought.
pub(crate) fn echo(asked: &Asked) -> Vec<Step> {
    vec![head(), Step::Data(asked.body.to_vec()), status(0)]
}
