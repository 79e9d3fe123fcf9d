//! Where requests go: a path on a server of this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::Uri;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};

use super::plan::config;
use crate::error::{Error, ErrorKind, Result};

/// A path on a server of this machine, and the headers that go with every request.
///
/// A target that is not a loopback address cannot be built.
#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    pub(super) authority: String,
    pub(super) path: Uri,
    pub(super) headers: HeaderMap,
}

impl Target {
    /// The target `path` (`/v1/embeddings`, a query allowed) at `authority` (`host:port`).
    ///
    /// The host is an IP address or `localhost`, which stands for 127.0.0.1; names are never looked up.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where the host is not a loopback address, the port is missing, or the path does
    /// not start with `/`.
    pub fn new(authority: &str, path: &str) -> Result<Self> {
        let address = loopback(authority)?;
        if !path.starts_with('/') {
            return Err(config(format!("path {path:?} of the target does not start with /")));
        }
        let path = path.parse().map_err(|source| {
            let message = format!("path {path:?} of the target is not valid");
            Error::with_source(ErrorKind::Config, message, source)
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, header_value("host", authority)?);
        Ok(Self { address, authority: authority.to_owned(), path, headers })
    }

    /// Adds a header to every request; one that is there already is replaced, `host` included.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where the name or the value is not valid in HTTP, and for `content-length` and
    /// `transfer-encoding`, which follow from the body.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|source| {
            let message = format!("{name:?} is not a valid header name");
            Error::with_source(ErrorKind::Config, message, source)
        })?;
        if parsed == CONTENT_LENGTH || parsed == TRANSFER_ENCODING {
            return Err(config(format!("header {name:?} follows from the body and cannot be set")));
        }
        self.headers.insert(parsed, header_value(name, value)?);
        Ok(self)
    }

    /// Where connections go.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn loopback(authority: &str) -> Result<SocketAddr> {
    let address = match authority.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port| (IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()),
        None => authority.parse::<SocketAddr>().ok(),
    };
    match address {
        Some(address) if address.ip().to_canonical().is_loopback() => Ok(address),
        _ => Err(config(format!(
            "target {authority:?} is not a loopback address with a port: by the rule of this workplace, \
             the load generator loads servers of its own machine alone"
        ))),
    }
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(value).map_err(|source| {
        let message = format!("the value of header {name:?} is not valid");
        Error::with_source(ErrorKind::Config, message, source)
    })
}
