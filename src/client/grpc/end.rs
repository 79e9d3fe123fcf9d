//! How a call ended: a status in its place, or what stands for one where the server left without.

use h2::Reason;
use http::{HeaderMap, Response, StatusCode};

use super::super::response::GrpcEnd;
use crate::error::{Error, ErrorKind};
use crate::wire::grpc::{Code, Encoding, Status, is_grpc};

/// The status among header fields or trailers, if there is one.
pub(super) fn status_of(fields: &HeaderMap) -> Option<GrpcEnd> {
    let code = Code::of_header(fields.get("grpc-status")?.as_bytes());
    let message = fields.get("grpc-message").map(|message| Status::message_of(message.as_bytes()));
    Some(GrpcEnd { code, message: message.unwrap_or_default() })
}

/// The end that a head is which begins no answer of gRPC: another status than 200, or another content type. A status of
/// gRPC counts first, where it is there.
pub(super) fn foreign(head: &Response<()>) -> Option<GrpcEnd> {
    let content_type = head.headers().get(http::header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| is_grpc(value.as_bytes()));
    if head.status() == StatusCode::OK && is_grpc {
        return None;
    }
    Some(status_of(head.headers()).unwrap_or_else(|| {
        let status = head.status().as_u16();
        let kind = content_type.map_or("no content-type".into(), |value| {
            format!("content-type {}", String::from_utf8_lossy(value.as_bytes())).into()
        });
        let kind: Box<str> = kind;
        let message = format!("the server answered with HTTP status {status} and {kind}, which is not gRPC");
        GrpcEnd { code: Code::of_http(status), message }
    }))
}

/// How the messages of an answer are packed.
pub(super) fn encoding_of(head: &HeaderMap) -> Result<Encoding, Status> {
    head.get("grpc-encoding").map_or(Ok(Encoding::Identity), |value| Encoding::of_header(value.as_bytes()))
}

/// The end that a reset stands for.
pub(super) fn of_reset(reason: Reason) -> GrpcEnd {
    let code = match reason {
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    };
    GrpcEnd { code, message: format!("the server reset the stream ({reason})") }
}

/// An answer that ended without a status.
pub(super) fn without_status(endpoint: &str) -> Error {
    broken(endpoint, "ended its answer without grpc-status")
}

/// A message that cannot be read.
pub(super) fn unreadable(endpoint: &str, status: &Status) -> Error {
    match status.code {
        Code::ResourceExhausted => {
            Error::new(ErrorKind::ReadFailed, format!("{endpoint} sent too much: {}", status.message))
        }
        _ => broken(endpoint, &format!("sent what cannot be read: {}", status.message)),
    }
}

/// An answer that is against the protocol.
pub(super) fn broken(endpoint: &str, what: &str) -> Error {
    Error::new(ErrorKind::ProtocolError, format!("{endpoint} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            head.headers_mut().append(*name, value.parse().unwrap());
        }
        head
    }

    #[test]
    fn a_status_is_read_with_its_message() {
        let fields = [("grpc-status", "5"), ("grpc-message", "no m%C3%B6del")];
        let end = status_of(head(200, &fields).headers()).unwrap();
        assert_eq!(end, GrpcEnd { code: Code::NotFound, message: "no mödel".to_owned() });
        assert_eq!(status_of(head(200, &[]).headers()), None);
        let odd = status_of(head(200, &[("grpc-status", "x")]).headers()).unwrap();
        assert_eq!((odd.code, &*odd.message), (Code::Unknown, ""));
    }

    #[test]
    fn an_answer_of_another_kind_gets_the_code_of_its_http_status() {
        let grpc = ("content-type", "application/grpc+proto");
        assert_eq!(foreign(&head(200, &[grpc])), None);
        for (status, code) in [
            (200, Code::Unknown),
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (500, Code::Unknown),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
        ] {
            let end = foreign(&head(status, &[("content-type", "text/html")])).unwrap();
            assert_eq!(end.code, code, "{status}");
            assert!(end.message.contains(&status.to_string()) && end.message.contains("text/html"));
        }
        assert!(foreign(&head(200, &[])).unwrap().message.contains("no content-type"));
        let said = foreign(&head(503, &[grpc, ("grpc-status", "8")])).unwrap();
        assert_eq!(said.code, Code::ResourceExhausted);
    }

    #[test]
    fn a_reset_means_what_the_specification_says() {
        for (reason, code) in [
            (Reason::NO_ERROR, Code::Internal),
            (Reason::PROTOCOL_ERROR, Code::Internal),
            (Reason::INTERNAL_ERROR, Code::Internal),
            (Reason::REFUSED_STREAM, Code::Unavailable),
            (Reason::CANCEL, Code::Cancelled),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
        ] {
            assert_eq!(of_reset(reason).code, code, "{reason}");
        }
    }
}
