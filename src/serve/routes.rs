//! Which path means what, and the answers to it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Body;

use super::Service;
use super::answer::ReplyBody;
use super::repository::Wanted;
use super::{openai, openapi};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::openai::Form;
use crate::wire::{grpc, oip};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What a door answers with.
pub type Reply = Response<ReplyBody>;

/// A path that is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Live,
    /// Whether it has been ready once.
    Started,
    Ready,
    Server,
    Metrics,
    /// The page that shows the metrics, live.
    Dashboard,
    /// The description of all of these.
    OpenApi,
    Model {
        name: &'a str,
        version: Option<&'a str>,
    },
    ModelReady {
        name: &'a str,
        version: Option<&'a str>,
    },
    Infer {
        name: &'a str,
        version: Option<&'a str>,
    },
    Repository(Wanted<'a>),
    /// Text of a model, as it comes or as a whole.
    Generate {
        name: &'a str,
        version: Option<&'a str>,
        stream: bool,
    },
    /// The models that OpenAI's API serves, or one of them.
    OpenAiModels,
    OpenAiModel {
        name: &'a str,
    },
    Embeddings,
    Text(Form),
}

impl<'a> Route<'a> {
    /// The route of a path, or `None`.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let mut parts = path.trim_end_matches('/').split('/').skip(1);
        let known = match (parts.next()?, parts.next(), parts.next()) {
            ("metrics", None, None) => Self::Metrics,
            ("dashboard", None, None) => Self::Dashboard,
            ("openapi.json", None, None) => Self::OpenApi,
            ("v1", Some("models"), None) => Self::OpenAiModels,
            ("v1", Some("models"), Some(name)) if !name.is_empty() => Self::OpenAiModel { name },
            ("v1", Some("embeddings"), None) => Self::Embeddings,
            ("v1", Some("completions"), None) => Self::Text(Form::Completion),
            ("v1", Some("chat"), Some("completions")) => Self::Text(Form::Chat),
            ("v2", None, None) => Self::Server,
            ("v2", Some("health"), Some("live")) => Self::Live,
            ("v2", Some("health"), Some("started")) => Self::Started,
            ("v2", Some("health"), Some("ready")) => Self::Ready,
            ("v2", Some("repository"), Some("index")) => Self::Repository(Wanted::Index),
            ("v2", Some("repository"), Some("models")) => {
                return match *parts.collect::<Vec<_>>() {
                    [name, "load"] => Some(Self::Repository(Wanted::Load { name })),
                    [name, "unload"] => Some(Self::Repository(Wanted::Unload { name })),
                    _ => None,
                };
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
            ["generate"] => Self::Generate { name, version, stream: false },
            ["generate_stream"] => Self::Generate { name, version, stream: true },
            _ => return None,
        })
    }

    /// True where it is answered without a key, whoever asks: probes have none, and neither has who only wants to know
    /// how to ask. What these answer tells nothing of the models.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Live | Self::Started | Self::Ready | Self::Dashboard | Self::OpenApi)
    }

    /// The method that the route answers to.
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Infer { .. }
            | Self::Repository(_)
            | Self::Generate { .. }
            | Self::Embeddings
            | Self::Text(_) => Method::POST,
            _ => Method::GET,
        }
    }
}

/// Answers everything but metrics, which the door counts too, and what asks a model, which has a body to wait for.
pub(super) fn answer(service: &Service, route: &Route<'_>) -> Result<Reply> {
    Ok(match route {
        Route::Live => health("live", service.is_alive()),
        Route::Started => health("started", service.is_started()),
        Route::Ready => health("ready", service.is_ready()),
        Route::Model { name, version } => {
            let model = service.model(name, *version)?;
            let spec = &model.spec;
            let versions = service.versions(&spec.name);
            json(oip::model_metadata(&spec.name, &versions, &spec.inputs, &spec.outputs))
        }
        Route::ModelReady { name, version } => {
            let model = service.model(name, *version)?;
            let ready = model.is_ready();
            reply(status_of(ready), JSON, oip::model_ready(name, ready))
        }
        Route::OpenApi => openapi::description(),
        Route::OpenAiModels => json(openai::models(service)),
        Route::OpenAiModel { name } => json(openai::model(service, name)?),
        Route::Metrics
        | Route::Dashboard
        | Route::Server
        | Route::Repository(_)
        | Route::Infer { .. }
        | Route::Generate { .. }
        | Route::Embeddings
        | Route::Text(_) => {
            return Err(Error::new(ErrorKind::Internal, "this path is answered by the door itself"));
        }
    })
}

/// The answer to a probe: the status says it, and so does the body, for clients that read that.
fn health(what: &str, holds: bool) -> Reply {
    reply(status_of(holds), JSON, oip::health(what, holds))
}

fn status_of(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// What the server is, and which extensions of the protocol it speaks.
pub(super) fn server(repository: bool) -> Reply {
    json(oip::server_metadata("penstock", env!("CARGO_PKG_VERSION"), repository))
}

/// The text of the metrics.
pub(super) fn metrics(text: String) -> Reply {
    reply(StatusCode::OK, OPEN_METRICS, text.into_bytes())
}

/// An answer in JSON.
pub(super) fn json(body: Vec<u8>) -> Reply {
    reply(StatusCode::OK, JSON, body)
}

/// That it was done, and nothing more.
pub(super) fn done() -> Reply {
    Response::new(ReplyBody::Whole(Full::default()))
}

/// An answer with tensors: JSON, or JSON of that length and binary data behind it.
pub(super) fn tensors(body: Vec<u8>, header_length: Option<usize>) -> Reply {
    reply(StatusCode::OK, if header_length.is_some() { OCTETS } else { JSON }, body)
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

/// An answer of that content type.
pub(super) fn reply(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(Full::new(body.into())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_routes() {
        for (path, route) in [
            ("/v2/health/live", Some(Route::Live)),
            ("/v2/health/ready/", Some(Route::Ready)),
            ("/v2/health/started", Some(Route::Started)),
            ("/v2", Some(Route::Server)),
            ("/metrics", Some(Route::Metrics)),
            ("/dashboard", Some(Route::Dashboard)),
            ("/dashboard/", Some(Route::Dashboard)),
            ("/dashboard/x", None),
            ("/openapi.json", Some(Route::OpenApi)),
            ("/openapi.json/x", None),
            ("/v2/models/m", Some(Route::Model { name: "m", version: None })),
            ("/v2/models/m/ready", Some(Route::ModelReady { name: "m", version: None })),
            ("/v2/models/m/infer", Some(Route::Infer { name: "m", version: None })),
            ("/v2/models/m/generate", Some(Route::Generate { name: "m", version: None, stream: false })),
            (
                "/v2/models/m/versions/2/generate_stream",
                Some(Route::Generate { name: "m", version: Some("2"), stream: true }),
            ),
            ("/v1/models", Some(Route::OpenAiModels)),
            ("/v1/models/m", Some(Route::OpenAiModel { name: "m" })),
            ("/v1/models/m/x", None),
            ("/v1/embeddings", Some(Route::Embeddings)),
            ("/v1/completions", Some(Route::Text(Form::Completion))),
            ("/v1/chat/completions", Some(Route::Text(Form::Chat))),
            ("/v1/chat", None),
            ("/v1/chat/completions/x", None),
            ("/v1", None),
            ("/v2/models/m/versions/2/infer", Some(Route::Infer { name: "m", version: Some("2") })),
            ("/v2/models/", None),
            ("/v2/models/m/unload", None),
            ("/v2/repository/index", Some(Route::Repository(Wanted::Index))),
            ("/v2/repository/models/m/load", Some(Route::Repository(Wanted::Load { name: "m" }))),
            ("/v2/repository/models/m/unload/", Some(Route::Repository(Wanted::Unload { name: "m" }))),
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
