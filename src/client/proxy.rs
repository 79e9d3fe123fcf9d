//! Which proxy a connection takes, by settings or by the environment variables that curl, requests and httpx share.

use std::env;
use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;

use super::address::{Host, Origin, Target, host_and_port, without_secrets};
use crate::error::{Error, ErrorKind, Result};

/// Where connections take a proxy.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Proxies {
    /// Nowhere.
    #[default]
    None,
    /// Where the environment says so when the client is made: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. Their
    /// names in lower case go first, and one of those that is empty switches the other off. `HTTP_PROXY` is ignored where
    /// `REQUEST_METHOD` is set: a web server then made it from a request's header `Proxy` (CVE-2016-5385).
    Environment,
    /// Everywhere but over Unix sockets: `http://` or `https://`, with `user:password@` where the proxy demands it.
    Url(String),
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Environment => f.write_str("Environment"),
            Self::Url(url) => f.debug_tuple("Url").field(&without_secrets(url)).finish(),
        }
    }
}

/// One proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) secure: bool,
    pub(super) host: Host,
    pub(super) port: u16,
    /// The header `Proxy-Authorization`, marked as sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.secure { "https" } else { "http" }, self.host, self.port)
    }
}

/// Which proxy leads where. A proxy that cannot be used is an error only where one would have to take it.
pub(super) struct Routes {
    plain: Option<Result<Proxy>>,
    secure: Option<Result<Proxy>>,
    direct: Vec<Direct>,
}

/// One entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Direct {
    Everything,
    /// The name and all names below it.
    Domain {
        name: String,
        port: Option<u16>,
    },
    /// The addresses that share the first bits with this one.
    Network {
        address: IpAddr,
        bits: u8,
        port: Option<u16>,
    },
}

impl Routes {
    pub(super) fn new(proxies: &Proxies) -> Result<Self> {
        match proxies {
            Proxies::None => Ok(Self { plain: None, secure: None, direct: Vec::new() }),
            Proxies::Environment => Ok(Self::from_variables(|name| env::var(name).ok())),
            Proxies::Url(url) => {
                let proxy = Proxy::parse(url, "proxy")?;
                Ok(Self { plain: Some(Ok(proxy.clone())), secure: Some(Ok(proxy)), direct: Vec::new() })
            }
        }
    }

    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| {
            let lower = name.to_ascii_lowercase();
            if let Some(value) = variable(&lower) {
                return Some((lower, value)).filter(|(_, value)| !value.trim().is_empty());
            }
            let forged = name == "HTTP_PROXY" && variable("REQUEST_METHOD").is_some();
            let value = variable(name).filter(|value| !forged && !value.trim().is_empty());
            value.map(|value| (name.to_owned(), value))
        };
        let proxy =
            |name| value(name).or_else(|| value("ALL_PROXY")).map(|(name, url)| Proxy::parse(&url, &name));
        let direct = value("NO_PROXY").map(|(_, entries)| entries).unwrap_or_default();
        Self { plain: proxy("HTTP_PROXY"), secure: proxy("HTTPS_PROXY"), direct: read_direct(&direct) }
    }

    /// The proxy on the way to `origin`, if there is one.
    pub(super) fn proxy(&self, origin: &Origin) -> Result<Option<&Proxy>> {
        let Target::Network { secure, host, port } = origin.target() else {
            return Ok(None);
        };
        let Some(proxy) = (if *secure { &self.secure } else { &self.plain }) else {
            return Ok(None);
        };
        if self.direct.iter().any(|direct| direct.covers(host, *port)) {
            return Ok(None);
        }
        proxy.as_ref().map(Some).map_err(Clone::clone)
    }
}

impl Proxy {
    /// Reads a proxy's URL; `setting` is what errors call its origin.
    fn parse(url: &str, setting: &str) -> Result<Self> {
        let url = url.trim();
        let refused = |why: &str| {
            Error::new(
                ErrorKind::Config,
                format!("{setting} names the proxy {:?}, which {why}", without_secrets(url)),
            )
        };
        // As curl has it.
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            scheme if scheme.starts_with("socks") => {
                return Err(refused("is a SOCKS proxy: only http:// and https:// are supported"));
            }
            _ => return Err(refused("has a scheme that is not http or https")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let (host, port) = host_and_port(authority).map_err(refused)?;
        let authorization = user.map(basic).transpose().map_err(refused)?;
        Ok(Self { secure, host, port: port.unwrap_or(if secure { 443 } else { 80 }), authorization })
    }
}

/// The value of `Proxy-Authorization` for `user:password`, both percent-encoded (RFC 7617).
fn basic(user: &str) -> std::result::Result<HeaderValue, &'static str> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut plain = percent_decode_str(user).collect::<Vec<u8>>();
    if plain.contains(&b':') {
        return Err("has a user name with a colon in it, which RFC 7617 forbids");
    }
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain)))
        .map_err(|_| "has a user name that no header can carry")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads `NO_PROXY`: entries between commas or spaces. What cannot be read covers nothing.
fn read_direct(entries: &str) -> Vec<Direct> {
    entries
        .split(|letter: char| letter == ',' || letter.is_whitespace())
        .filter(|entry| !entry.is_empty())
        .filter_map(Direct::parse)
        .collect()
}

impl Direct {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            let (address, bits) = (address.parse().ok()?, bits.parse().ok()?);
            return (bits <= width(address)).then_some(Self::Network { address, bits, port: None });
        }
        if let Ok(address) = entry.parse() {
            return Some(Self::Network { address, bits: width(address), port: None });
        }
        // `.example.com` and `*.example.com` mean `example.com`, too, as curl and requests have it.
        let entry = entry.strip_prefix('*').unwrap_or(entry).trim_start_matches('.').trim_end_matches('.');
        let (host, port) = host_and_port(entry).ok()?;
        Some(match host {
            Host::Name(name) => Self::Domain { name: name.trim_end_matches('.').to_owned(), port },
            Host::Address(address) => Self::Network { address, bits: width(address), port },
        })
    }

    fn covers(&self, host: &Host, port: u16) -> bool {
        match (self, host) {
            (Self::Everything, _) => true,
            (Self::Domain { name, port: only }, Host::Name(host)) => {
                let host = host.trim_end_matches('.');
                let above = host.strip_suffix(name.as_str());
                only.is_none_or(|only| only == port)
                    && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            (Self::Network { address, bits, port: only }, Host::Address(host)) => {
                only.is_none_or(|only| only == port) && share_bits(*address, *host, *bits)
            }
            _ => false,
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn share_bits(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let differing = match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u32::from(one) ^ u32::from(other)).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (u128::from(one) ^ u128::from(other)).leading_zeros(),
        _ => return false,
    };
    differing >= u32::from(bits)
}
