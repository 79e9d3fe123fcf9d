//! What is asked of a request before its path means anything.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;

use super::keys::Stranger;
use super::{Security, cors};
use crate::serve::access::Note;
use crate::serve::answer::ReplyBody;
use crate::serve::door::Door;
use crate::serve::routes::{Reply, Route};
use crate::serve::words::Words;
use crate::wire::grpc::{Code, Status};

const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"penstock\"");
const WRONG_KEY: HeaderValue = HeaderValue::from_static("Bearer realm=\"penstock\", error=\"invalid_token\"");

impl Stranger {
    fn words(self) -> &'static str {
        match self {
            Self::NoKey => {
                "this server asks for an api key: send 'authorization: Bearer KEY' or 'x-api-key: KEY'"
            }
            Self::UnknownKey => "the api key is not known here",
        }
    }
}

impl Door {
    /// What is answered to a request that does not come in, or to a browser that asks whether one may.
    pub(in crate::serve) fn keep_out(
        &self,
        parts: &Parts,
        words: Words,
        route: Option<&Route<'_>>,
        note: &mut Note,
    ) -> Option<Box<Reply>> {
        if let Some(answer) = self.security.preflight(parts) {
            return Some(Box::new(answer));
        }
        match self.security.admit(parts, words, route) {
            Ok(key) => {
                note.key = key;
                None
            }
            Err(refused) => {
                self.metrics.refused(refused.1);
                Some(Box::new(refused.0))
            }
        }
    }
}

impl Security {
    /// Lets a request in, with the name of its key where one is asked for, or gives the answer that keeps it out.
    ///
    /// # Errors
    /// The answer, and the limit that it is counted as.
    fn admit(
        &self,
        parts: &Parts,
        words: Words,
        route: Option<&Route<'_>>,
    ) -> Result<Option<Arc<str>>, Box<(Reply, &'static str)>> {
        let of_models = matches!(route, Some(Route::Repository(_)));
        if (of_models || (self.cors.is_some() && parts.method == Method::POST)) && self.is_foreign(parts) {
            let message = "pages of this origin may not ask: it is not among cors_origins";
            return Err(Box::new((words.refusal(StatusCode::FORBIDDEN, message), "cors_origins")));
        }
        let Some(keys) = &self.keys else { return Ok(None) };
        let is_open = match route {
            Some(Route::Metrics) => self.metrics_open,
            Some(route) => route.is_open(),
            None => false,
        };
        if is_open {
            return Ok(None);
        }
        keys.held().admit(&parts.headers).map(Some).map_err(|stranger| {
            let mut reply = words.refusal(StatusCode::UNAUTHORIZED, stranger.words());
            let challenge = if stranger == Stranger::NoKey { CHALLENGE } else { WRONG_KEY };
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            Box::new((reply, "api_keys"))
        })
    }

    /// As [`admit`](Self::admit), for a call of gRPC.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] without a key that is known.
    pub(in crate::serve) fn admit_call(
        &self,
        headers: &HeaderMap,
        is_open: bool,
    ) -> Result<Option<Arc<str>>, Status> {
        match &self.keys {
            Some(keys) if !is_open => {
                let admitted = keys.held().admit(headers);
                admitted.map(Some).map_err(|stranger| Status::new(Code::Unauthenticated, stranger.words()))
            }
            _ => Ok(None),
        }
    }

    /// The answer to a browser that asks whether a page may ask, if this is such a question.
    fn preflight(&self, parts: &Parts) -> Option<Reply> {
        let (status, headers) = self.cors.as_ref()?.preflight(parts)?;
        let mut reply = Response::new(ReplyBody::Whole(Full::default()));
        *reply.status_mut() = status;
        *reply.headers_mut() = headers;
        Some(reply)
    }

    /// Lets the page that asked read the answer, where it may.
    pub(in crate::serve) fn mark(&self, parts: &Parts, reply: &mut Reply) {
        if let Some(cors) = &self.cors {
            cors.mark(parts, reply.headers_mut());
        }
    }

    /// True for a page of another origin, which is not among those that may ask. A browser sends what a page asks for
    /// without asking first where it looks like a form.
    fn is_foreign(&self, parts: &Parts) -> bool {
        let is_allowed = || {
            let origin = parts.headers.get(header::ORIGIN);
            self.cors.as_ref().zip(origin).is_some_and(|(cors, origin)| cors.allows(origin))
        };
        cors::is_foreign(parts) && !is_allowed()
    }
}
