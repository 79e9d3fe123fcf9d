//! What pages of other origins may ask (<https://fetch.spec.whatwg.org/#http-cors-protocol>).

use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use super::CorsSettings;
use crate::error::{Error, ErrorKind, Result};

/// Origins at most.
const MOST: usize = 1_000;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
/// What a page may read of an answer, besides what it may always.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "inference-header-content-length, retry-after, retry-after-ms, server-timing, x-request-id, www-authenticate",
);
const ANY: HeaderValue = HeaderValue::from_static("*");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");
const TRUE: HeaderValue = HeaderValue::from_static("true");
/// A page of the open web asks for a server of a private network (<https://wicg.github.io/private-network-access>).
const PRIVATE_ASKED: HeaderName = HeaderName::from_static("access-control-request-private-network");
const PRIVATE_ALLOWED: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Pages of which origins may ask.
#[derive(Debug)]
pub(super) struct Cors {
    /// None where every origin may.
    origins: Option<Vec<HeaderValue>>,
    max_age: HeaderValue,
}

impl Cors {
    pub(super) fn new(settings: &CorsSettings) -> Result<Self> {
        let origins = if settings.origins.iter().any(|origin| origin == "*") {
            None
        } else {
            if settings.origins.len() > MOST {
                return Err(Error::new(ErrorKind::Config, format!("cors_origins: {MOST} can be at most")));
            }
            Some(settings.origins.iter().map(|origin| parse(origin)).collect::<Result<_>>()?)
        };
        Ok(Self { origins, max_age: whole_seconds(settings.max_age) })
    }

    /// Whether pages of that origin may ask.
    pub(super) fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.as_ref().is_none_or(|origins| origins.iter().any(|known| same(known, origin)))
    }

    /// The answer to a browser that asks whether a page may ask, if this is such a question.
    pub(super) fn preflight(&self, asked: &Parts) -> Option<(StatusCode, HeaderMap)> {
        if asked.method != Method::OPTIONS {
            return None;
        }
        let origin = asked.headers.get(header::ORIGIN)?;
        let method = asked.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let mut answer = HeaderMap::new();
        answer.insert(header::VARY, VARY_PREFLIGHT);
        let known = [Method::GET, Method::HEAD, Method::POST].iter().any(|known| known.as_str() == method);
        if !known || !self.allows(origin) {
            return Some((StatusCode::FORBIDDEN, answer));
        }
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.shown(origin));
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        // No header gives a page more than it would have without: what counts is the key.
        if let Some(headers) = asked.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        if asked.headers.get(PRIVATE_ASKED) == Some(&TRUE) {
            answer.insert(PRIVATE_ALLOWED, TRUE);
        }
        Some((StatusCode::NO_CONTENT, answer))
    }

    /// Lets a page of the origin that asked read the answer, where it may.
    pub(super) fn mark(&self, asked: &Parts, answer: &mut HeaderMap) {
        if self.origins.is_some() {
            answer.append(header::VARY, VARY_ORIGIN);
        }
        if let Some(origin) = asked.headers.get(header::ORIGIN)
            && self.allows(origin)
        {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.shown(origin));
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    fn shown(&self, origin: &HeaderValue) -> HeaderValue {
        if self.origins.is_none() { ANY } else { origin.clone() }
    }
}

/// True where a page of another origin than the server's own asks; whoever is no page says no origin.
pub(super) fn is_foreign(asked: &Parts) -> bool {
    let Some(origin) = asked.headers.get(header::ORIGIN) else { return false };
    let host = asked.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| asked.uri.authority().map(http::uri::Authority::as_str));
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    !matches!((own, host), (Some((_, own)), Some(host)) if own.eq_ignore_ascii_case(host))
}

fn same(known: &HeaderValue, origin: &HeaderValue) -> bool {
    known.as_bytes().eq_ignore_ascii_case(origin.as_bytes())
}

fn whole_seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs())
}

fn parse(origin: &str) -> Result<HeaderValue> {
    let wrong = || {
        let shown: String = origin.chars().take(100).collect();
        let message = format!(
            "cors_origins: '{}' is no origin such as https://app.example, and not '*'",
            shown.escape_debug()
        );
        Error::new(ErrorKind::Config, message)
    };
    let uri: Uri = origin.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    // Browsers say no more than scheme, host and port: anything else would never be met.
    let whole = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
    if !whole.eq_ignore_ascii_case(origin) || authority.as_str().contains('@') {
        return Err(wrong());
    }
    origin.parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn cors(origins: &[&str]) -> Result<Cors> {
        let origins = origins.iter().map(ToString::to_string).collect();
        Cors::new(&CorsSettings { origins, max_age: Duration::from_mins(10) })
    }

    fn asked(fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::options("/v2/models/m/infer");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_what_a_browser_would_say_is_an_origin() {
        for origin in
            ["https://app.example", "http://localhost:5173", "http://[::1]:80", "HTTPS://App.Example"]
        {
            cors(&[origin]).unwrap();
        }
        for origin in
            ["app.example", "https://app.example/", "https://a/b", "https://u@a", "null", "", "https://"]
        {
            let error = cors(&[origin]).unwrap_err();
            assert!(error.message().starts_with("cors_origins: "), "{error}");
        }
    }

    #[test]
    fn a_preflight_is_answered_for_who_may_and_refused_for_others() {
        let cors = cors(&["https://app.example"]).unwrap();
        let question = [
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        let (status, answer) = cors.preflight(&asked(&question)).unwrap();
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization,content-type");
        assert_eq!(answer[header::ACCESS_CONTROL_MAX_AGE], "600");
        assert!(!answer.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        for (name, value) in [("origin", "https://evil.example"), ("access-control-request-method", "DELETE")]
        {
            let other = question.map(|field| if field.0 == name { (name, value) } else { field });
            let (status, answer) = cors.preflight(&asked(&other)).unwrap();
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(!answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        }
        assert!(cors.preflight(&asked(&question[..1])).is_none());
        let any = self::cors(&["*"]).unwrap();
        assert_eq!(any.preflight(&asked(&question)).unwrap().1[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }

    #[test]
    fn a_page_is_foreign_unless_its_origin_is_the_host_that_it_asks() {
        assert!(!is_foreign(&asked(&[("host", "a:1")])));
        assert!(!is_foreign(&asked(&[("host", "a:1"), ("origin", "http://A:1")])));
        for origin in ["http://b:1", "http://a", "null", "a:1"] {
            assert!(is_foreign(&asked(&[("host", "a:1"), ("origin", origin)])), "{origin}");
        }
    }
}
