//! Which path means what, and the answers to it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Body;

use super::Service;
use super::answer::ReplyBody;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{grpc, oip};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What `Retry-After` says, for who counts in milliseconds.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// What a door answers with.
pub type Reply = Response<ReplyBody>;

/// A path that is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Live,
    Ready,
    Server,
    Metrics,
    Model { name: &'a str, version: Option<&'a str> },
    ModelReady { name: &'a str, version: Option<&'a str> },
    Infer { name: &'a str, version: Option<&'a str> },
    Repository,
}

/// What is said of the model repository, over either protocol.
pub(super) const NO_REPOSITORY: &str =
    "models are neither listed, loaded nor unloaded by calls: this server has no repository";

impl<'a> Route<'a> {
    /// The route of a path, or `None`.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let mut parts = path.trim_end_matches('/').split('/').skip(1);
        let known = match (parts.next()?, parts.next(), parts.next()) {
            ("metrics", None, None) => Self::Metrics,
            ("v2", None, None) => Self::Server,
            ("v2", Some("health"), Some("live")) => Self::Live,
            ("v2", Some("health"), Some("ready")) => Self::Ready,
            ("v2", Some("repository"), Some("index")) => Self::Repository,
            ("v2", Some("repository"), Some("models")) => {
                return matches!(*parts.collect::<Vec<_>>(), [_, "load" | "unload"])
                    .then_some(Self::Repository);
            }
            ("v2", Some("models"), Some(name)) if !name.is_empty() => {
                return Self::of_model(name, &parts.collect::<Vec<_>>());
            }
            _ => return None,
        };
        parts.next().is_none().then_some(known)
    }

    fn of_model(name: &'a str, rest: &[&'a str]) -> Option<Self> {
        let (version, action) = match rest {
            ["versions", version, action @ ..] => (Some(*version), action),
            action => (None, action),
        };
        Some(match action {
            [] => Self::Model { name, version },
            ["ready"] => Self::ModelReady { name, version },
            ["infer"] => Self::Infer { name, version },
            _ => return None,
        })
    }

    /// The method that the route answers to.
    pub(super) fn method(&self) -> Method {
        if matches!(self, Self::Infer { .. } | Self::Repository) { Method::POST } else { Method::GET }
    }
}

/// Answers everything but metrics, which the door counts too, and inference, which has a body to wait for.
pub(super) fn answer(service: &Service, route: &Route<'_>) -> Result<Reply> {
    let health = |ready: bool| {
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        reply(status, JSON, Vec::new())
    };
    Ok(match route {
        Route::Live => health(true),
        Route::Ready => health(service.is_ready()),
        Route::Server => ok(oip::server_metadata("penstock", env!("CARGO_PKG_VERSION"))),
        Route::Model { name, version } => {
            let spec = &service.model(name, *version)?.spec;
            ok(oip::model_metadata(&spec.name, &spec.version, &spec.inputs, &spec.outputs))
        }
        Route::ModelReady { name, version } => {
            let model = service.model(name, *version)?;
            let ready = model.is_ready();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            reply(status, JSON, oip::model_ready(name, ready))
        }
        Route::Repository => refusal(StatusCode::NOT_IMPLEMENTED, NO_REPOSITORY),
        Route::Metrics | Route::Infer { .. } => {
            return Err(Error::new(ErrorKind::Internal, "this path is answered by the door itself"));
        }
    })
}

/// The text of the metrics.
pub(super) fn metrics(text: String) -> Reply {
    reply(StatusCode::OK, OPEN_METRICS, text.into_bytes())
}

/// An answer with tensors: JSON, or JSON of that length and binary data behind it.
pub(super) fn tensors(body: Vec<u8>, header_length: Option<usize>) -> Reply {
    reply(StatusCode::OK, if header_length.is_some() { OCTETS } else { JSON }, body)
}

/// The answer to a method that the path does not know.
pub(super) fn wrong_method(route: &Route<'_>) -> Reply {
    let message = format!("this path answers to {}", route.method());
    let mut refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, &message);
    if let Ok(allowed) = route.method().as_str().parse() {
        refusal.headers_mut().insert(header::ALLOW, allowed);
    }
    refusal
}

/// The answer to a failure, by the one table.
pub(super) fn failure(error: &Error) -> Reply {
    let status =
        StatusCode::from_u16(error.kind().meaning().http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = reply(status, JSON, oip::error_body(error.message()));
    // The wire has the status only; who asks from within the process learns the kind.
    reply.extensions_mut().insert(error.kind());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let wait = error.wait_before_retry();
        let seconds = wait.map_or(1, whole_seconds).max(1);
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        if let Some(wait) = wait {
            let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            reply.headers_mut().insert(RETRY_AFTER_MS, HeaderValue::from(milliseconds));
        }
    }
    reply
}

/// Whole seconds, rounded up, for who counts in nothing finer.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// An answer of a status that stands in no table of errors.
pub(super) fn refusal(status: StatusCode, message: &str) -> Reply {
    let mut reply = reply(status, JSON, oip::error_body(message));
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        // RFC 9110, section 15.5.16: what would have been understood.
        reply.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    }
    reply
}

/// The answer to HTTP where gRPC is answered alone.
pub(super) fn not_here(http: Option<&SocketAddr>) -> Reply {
    let place = http.map_or_else(String::new, |http| format!(", and http on port {}", http.port()));
    let message = format!("grpc alone is answered on this port{place}");
    let mut reply = reply(StatusCode::UNSUPPORTED_MEDIA_TYPE, JSON, oip::error_body(&message));
    reply.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(grpc::CONTENT_TYPE));
    reply
}

/// What is left of an answer for HEAD (RFC 9110, section 9.3.2): the HTTP library sees to it in HTTP/1 only.
pub(super) fn leave_out_body(reply: &mut Reply) {
    let length = reply.body().size_hint().lower();
    reply.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    *reply.body_mut() = ReplyBody::Whole(Full::default());
}

fn ok(body: Vec<u8>) -> Reply {
    reply(StatusCode::OK, JSON, body)
}

fn reply(status: StatusCode, kind: HeaderValue, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(Full::new(Bytes::from(body))));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_passes_says_when_to_come_again() {
        let full = Error::new(ErrorKind::Overloaded, "full");
        let field = |reply: &Reply, name: &str| {
            reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let reply = failure(&full);
        assert_eq!((field(&reply, "retry-after"), field(&reply, "retry-after-ms")), (Some("1".into()), None));
        for (wait, seconds, milliseconds) in [(20, "1", "20"), (1_000, "1", "1000"), (1_001, "2", "1001")] {
            let reply = failure(&full.clone().retry_after(Duration::from_millis(wait)));
            assert_eq!(field(&reply, "retry-after").as_deref(), Some(seconds));
            assert_eq!(field(&reply, "retry-after-ms").as_deref(), Some(milliseconds));
        }
        assert!(!failure(&Error::new(ErrorKind::Item, "bad")).headers().contains_key("retry-after"));
    }

    #[test]
    fn paths_lead_to_their_routes() {
        for (path, route) in [
            ("/v2/health/live", Some(Route::Live)),
            ("/v2/health/ready/", Some(Route::Ready)),
            ("/v2", Some(Route::Server)),
            ("/metrics", Some(Route::Metrics)),
            ("/v2/models/m", Some(Route::Model { name: "m", version: None })),
            ("/v2/models/m/ready", Some(Route::ModelReady { name: "m", version: None })),
            ("/v2/models/m/infer", Some(Route::Infer { name: "m", version: None })),
            ("/v2/models/m/versions/2/infer", Some(Route::Infer { name: "m", version: Some("2") })),
            ("/v2/models/", None),
            ("/v2/models/m/unload", None),
            ("/v2/repository/index", Some(Route::Repository)),
            ("/v2/repository/models/m/load", Some(Route::Repository)),
            ("/v2/repository/models/m/unload/", Some(Route::Repository)),
            ("/v2/repository/models/m", None),
            ("/v2/repository/models/m/load/now", None),
            ("/v2/repository", None),
            ("/v2/health", None),
            ("/v2/health/live/now", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }
}
