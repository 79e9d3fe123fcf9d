//! The header fields of a call. What is the same for every call to an endpoint is made once.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::uri::{Authority, Parts, PathAndQuery, Scheme, Uri};
use http::{Method, Request};

use super::super::address::Origin;
use super::super::request::{GrpcCall, RequestFields};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::grpc;

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Who calls, where the caller does not say it himself.
const AGENT: &str = concat!("penstock/", env!("CARGO_PKG_VERSION"));

/// What the heads of all calls to an endpoint have in common.
#[derive(Debug)]
pub(in crate::client) struct Caller {
    scheme: Scheme,
    authority: Authority,
}

impl Caller {
    /// # Errors
    /// [`ErrorKind::Config`] for a host that is no authority.
    pub(in crate::client) fn new(origin: &Origin) -> Result<Self> {
        let scheme = if origin.is_secure() { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = Authority::try_from(origin.authority()).map_err(|error| unfit(error.into()))?;
        Ok(Self { scheme, authority })
    }

    /// The head of a call that may take as long as is `left`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where HTTP/2 cannot carry it.
    pub(super) fn head(
        &self,
        call: &GrpcCall,
        fields: &RequestFields,
        left: Option<Duration>,
    ) -> Result<Request<()>> {
        let mut head = Request::new(());
        *head.method_mut() = Method::POST;
        *head.uri_mut() = self.uri(call, fields)?;
        let headers = head.headers_mut();
        headers.reserve(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(grpc::CONTENT_TYPE));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(grpc::Encoding::ACCEPTED));
        if let Some(left) = left {
            headers.insert(TIMEOUT, timeout(left)?);
        }
        for (name, value) in fields.iter() {
            let name = HeaderName::from_bytes(name).map_err(|error| unfit(error.into()))?;
            if is_metadata(&name) {
                let value = HeaderValue::from_bytes(value).map_err(|error| unfit(error.into()))?;
                headers.append(name, value);
            }
        }
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        }
        Ok(head)
    }

    fn uri(&self, call: &GrpcCall, fields: &RequestFields) -> Result<Uri> {
        let path = match &call.path {
            Cow::Borrowed(path) => PathAndQuery::from_maybe_shared(Bytes::from_static(path.as_bytes())),
            Cow::Owned(path) => PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes())),
        };
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(match fields.host() {
            None => self.authority.clone(),
            Some(host) => Authority::try_from(host).map_err(|error| unfit(error.into()))?,
        });
        parts.path_and_query = Some(path.map_err(|error| unfit(error.into()))?);
        Uri::from_parts(parts).map_err(|error| unfit(error.into()))
    }
}

/// `grpc-timeout`. It is another one each time, and must not drive what repeats out of the compression's table.
fn timeout(left: Duration) -> Result<HeaderValue> {
    let value = Bytes::from(grpc::timeout_value(left).into_bytes());
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|error| unfit(error.into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a field of a request is the caller's own. Others belong to the connection, to the protocol itself, or to
/// requests of HTTP, which the same fields may be for.
fn is_metadata(name: &HeaderName) -> bool {
    const NOT: [&str; 14] = [
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    !NOT.contains(&name.as_str()) && !name.as_str().starts_with("grpc-")
}

fn unfit(error: http::Error) -> Error {
    Error::with_source(ErrorKind::Config, "the call has no place in HTTP/2", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &'static str, fields: &[(&str, &str)], left: Option<Duration>) -> Result<Request<()>> {
        let named = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let fields = RequestFields::new(&named, std::iter::empty()).unwrap();
        let call = GrpcCall { path: Cow::Borrowed(path), message: Bytes::new() };
        Caller::new(&Origin::parse("grpc://[::1]:8001").unwrap()).unwrap().head(&call, &fields, left)
    }

    #[test]
    fn a_call_says_what_the_protocol_wants_and_what_the_caller_adds() {
        let fields = [
            ("X-Tenant", "a"),
            ("x-tenant", "b"),
            ("key-bin", "AAEC"),
            ("Accept", "*/*"),
            ("Content-Type", "application/json"),
            ("Connection", "close"),
            ("grpc-timeout", "1H"),
        ];
        let head = head("/s/m", &fields, Some(Duration::from_millis(200))).unwrap();
        assert_eq!(
            (head.method(), head.uri().to_string()),
            (&Method::POST, "http://[::1]:8001/s/m".to_owned())
        );
        let mut said: Vec<_> = head
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        said.sort();
        let agent = format!("user-agent: {AGENT}");
        let wanted = [
            "content-type: application/grpc",
            "grpc-accept-encoding: identity,gzip,deflate",
            "grpc-timeout: 200000u",
            "key-bin: AAEC",
            "te: trailers",
            &agent,
            "x-tenant: a",
            "x-tenant: b",
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_host_and_an_agent_of_the_callers_own_are_kept() {
        let head = head("/s/m", &[("host", "other:1"), ("user-agent", "me")], None).unwrap();
        assert_eq!(head.uri().authority().unwrap(), "other:1");
        assert_eq!(head.headers().get_all(USER_AGENT).iter().collect::<Vec<_>>(), ["me"]);
        assert!(!head.headers().contains_key(TIMEOUT) && !head.headers().contains_key("host"));
    }

    #[test]
    fn what_http2_cannot_carry_is_refused() {
        assert_eq!(head("no slash", &[], None).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(head("/", &[("host", "a b")], None).unwrap_err().kind(), ErrorKind::Config);
    }
}
