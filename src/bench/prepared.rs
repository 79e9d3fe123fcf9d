//! Everything about the requests of a plan that can be done before the first of them is sent.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;

use super::plan::{Plan, Protocol, config};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::grpc;
use crate::wire::http1::{expects_a_body, put_field};

/// The requests of a plan, ready to be sent, and what their answers must be.
pub(super) struct Prepared {
    pub(super) address: SocketAddr,
    pub(super) timeout: Duration,
    /// True where the answers' bodies are wanted.
    pub(super) keep: bool,
    pub(super) to_head_request: bool,
    /// True where answers end with a status of gRPC.
    pub(super) calls: bool,
    requests: Requests,
}

enum Requests {
    /// Head and body in one piece, so that one write carries both.
    Http1(Vec<Bytes>),
    Http2 {
        head: Box<Request<()>>,
        bodies: Vec<Bytes>,
    },
}

impl Prepared {
    /// Prepares a plan that was checked. Bodies are copied for HTTP/1.1.
    pub(super) fn new(plan: &Plan) -> Result<Self> {
        let requests = match plan.protocol {
            Protocol::Http1 => Requests::Http1(http1(plan, false)),
            Protocol::Http1Close => Requests::Http1(http1(plan, true)),
            Protocol::Http2 { .. } | Protocol::Grpc { .. } => {
                Requests::Http2 { head: Box::new(http2(plan)?), bodies: plan.bodies.clone() }
            }
        };
        Ok(Self {
            address: plan.target.address(),
            timeout: plan.timeout,
            keep: plan.keep_bodies || plan.check,
            to_head_request: plan.method == Method::HEAD,
            calls: matches!(plan.protocol, Protocol::Grpc { .. }),
            requests,
        })
    }

    /// The bytes of a request over HTTP/1.1.
    pub(super) fn bytes(&self, body_index: usize) -> Option<&[u8]> {
        match &self.requests {
            Requests::Http1(requests) => requests.get(body_index).map(AsRef::as_ref),
            Requests::Http2 { .. } => None,
        }
    }

    /// A request over HTTP/2.
    pub(super) fn request(&self, body_index: usize) -> Option<Request<Full<Bytes>>> {
        let Requests::Http2 { head, bodies } = &self.requests else {
            return None;
        };
        let body = Full::new(bodies.get(body_index)?.clone());
        Some((**head).clone().map(|()| body))
    }
}

fn http1(plan: &Plan, close: bool) -> Vec<Bytes> {
    let headers = headers(plan, close);
    let line = format!("{} {} HTTP/1.1\r\n", plan.method, plan.target.path);
    let request = |body: &Bytes| {
        let mut bytes = BytesMut::with_capacity(line.len() + 512 + body.len());
        bytes.put_slice(line.as_bytes());
        for (name, value) in &headers {
            put_field(&mut bytes, name.as_str().as_bytes(), value.as_bytes());
        }
        if !body.is_empty() || expects_a_body(&plan.method) {
            put_field(&mut bytes, CONTENT_LENGTH.as_str().as_bytes(), body.len().to_string().as_bytes());
        }
        bytes.put_slice(b"\r\n");
        bytes.put_slice(body);
        bytes.freeze()
    };
    plan.bodies.iter().map(request).collect()
}

fn headers(plan: &Plan, close: bool) -> HeaderMap {
    let mut headers = plan.target.headers.clone();
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    headers
}

fn http2(plan: &Plan) -> Result<Request<()>> {
    let address = format!("http://{}{}", plan.target.authority, plan.target.path);
    let uri: Uri = address.parse().map_err(|source| {
        let message = format!("{address:?} is no address that HTTP/2 can carry");
        Error::with_source(ErrorKind::Config, message, source)
    })?;
    let mut headers = plan.target.headers.clone();
    // HTTP/2 has the authority of the address instead, and connections without a say in requests.
    headers.remove(HOST);
    if headers.remove(CONNECTION).is_some() {
        return Err(config("header connection has no place in HTTP/2"));
    }
    if matches!(plan.protocol, Protocol::Grpc { .. }) {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(grpc::CONTENT_TYPE));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(());
    *request.method_mut() = plan.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}
