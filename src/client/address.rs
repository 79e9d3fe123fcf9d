//! Where a URL leads: its origin, as RFC 6454 means it, or a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// Where connections lead: scheme, host and port, or the path of a Unix socket. Two URLs with the same origin can share
/// connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    protocol: Protocol,
    target: Target,
}

/// What is spoken over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP of either version.
    Http,
    /// gRPC, over HTTP/2 whatever else the settings say.
    Grpc,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Network { secure: bool, host: Host, port: u16 },
    Unix { path: Arc<Path> },
}

/// The host of an origin, without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// In lower case.
    Name(Arc<str>),
    Address(IpAddr),
}

impl Origin {
    /// The origin of a URL that names nothing but an origin: `http://host:1`, `https://host`, `unix:///run/x.sock` (HTTP
    /// over that socket), `http+unix://%2Frun%2Fx.sock`; and for gRPC `grpc://host:1`, `grpcs://host` (over TLS),
    /// `grpc+unix:///run/x.sock` or `grpc+unix://%2Frun%2Fx.sock`. Without a port, gRPC has those of HTTP. A lone `/` at
    /// its end is allowed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the URL has no scheme of these, no host, or more than an origin in it.
    pub fn parse(url: &str) -> Result<Self> {
        match Self::split(url)? {
            (origin, "" | "/") => Ok(origin),
            _ => Err(refused(url, "names more than an origin: leave out the path")),
        }
    }

    /// The origin of an absolute URL, and what follows it: path, query and fragment as they stand, possibly nothing. After
    /// `unix:` nothing ever follows, as its path is the socket's.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the URL has no scheme that is known, no host, a port that is no number, a user name (a
    /// request carries it in a header), or characters outside of ASCII in its host.
    pub fn split(url: &str) -> Result<(Self, &str)> {
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(refused(
                url,
                "has no scheme: it starts with http://, https://, unix://, grpc:// or grpcs://",
            ));
        };
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        // A path that stands there in the clear is the whole of what follows.
        if is("unix") || is("grpc+unix") && rest.starts_with("///") {
            let protocol = if is("unix") { Protocol::Http } else { Protocol::Grpc };
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return Ok((Self::unix(protocol, url, path)?, ""));
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(refused(url, "lacks the // behind its scheme"));
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (protocol, secure) = match scheme.to_ascii_lowercase().as_str() {
            "http+unix" => return Ok((Self::unix(Protocol::Http, url, authority)?, rest)),
            "grpc+unix" => return Ok((Self::unix(Protocol::Grpc, url, authority)?, rest)),
            "http" => (Protocol::Http, false),
            "https" => (Protocol::Http, true),
            "grpc" => (Protocol::Grpc, false),
            "grpcs" => (Protocol::Grpc, true),
            _ => {
                let known = "http, https, unix, http+unix, grpc, grpcs or grpc+unix";
                return Err(refused(url, &format!("has a scheme that is not {known}")));
            }
        };
        if authority.contains('@') {
            return Err(refused(url, "carries a user name: give auth=(user, password) instead"));
        }
        let (host, port) = host_and_port(authority).map_err(|why| refused(url, why))?;
        let port = port.unwrap_or(default_port(secure));
        Ok((Self { protocol, target: Target::Network { secure, host, port } }, rest))
    }

    fn unix(protocol: Protocol, url: &str, path: &str) -> Result<Self> {
        let path = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| refused(url, "names a path that is not UTF-8"))?;
        if !path.starts_with('/') || path.contains('\0') {
            return Err(refused(url, "names no absolute path of a Unix socket"));
        }
        Ok(Self { protocol, target: Target::Unix { path: Arc::from(Path::new(path.as_ref())) } })
    }

    /// What the `Host` header, or `:authority`, says: the port is left out where it is the scheme's own; a Unix socket is
    /// `localhost`, as `curl` says it.
    pub fn authority(&self) -> String {
        match &self.target {
            Target::Network { secure, host, port } if *port == default_port(*secure) => host.to_string(),
            Target::Network { host, port, .. } => format!("{host}:{port}"),
            Target::Unix { .. } => "localhost".to_owned(),
        }
    }

    /// What is spoken there.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether connections are encrypted: the scheme is `https` or `grpcs`.
    pub fn is_secure(&self) -> bool {
        matches!(self.target, Target::Network { secure: true, .. })
    }

    /// The scheme that requests name: `http` or `https`, also those of gRPC.
    pub fn scheme(&self) -> &'static str {
        if self.is_secure() { "https" } else { "http" }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The scheme as its URL has it.
    fn shown_scheme(&self) -> &'static str {
        match (self.protocol, &self.target) {
            (Protocol::Http, Target::Network { secure: false, .. }) => "http",
            (Protocol::Http, Target::Network { secure: true, .. }) => "https",
            (Protocol::Http, Target::Unix { .. }) => "unix",
            (Protocol::Grpc, Target::Network { secure: false, .. }) => "grpc",
            (Protocol::Grpc, Target::Network { secure: true, .. }) => "grpcs",
            (Protocol::Grpc, Target::Unix { .. }) => "grpc+unix",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.shown_scheme())?;
        match &self.target {
            Target::Network { .. } => f.write_str(&self.authority()),
            Target::Unix { path } => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// Reads `host`, `host:port`, `[::1]` or `[::1]:port`; or says what is wrong with it.
pub(super) fn host_and_port(authority: &str) -> std::result::Result<(Host, Option<u16>), &'static str> {
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']').ok_or("has a bracket that is not closed")?;
        let address = address.parse::<Ipv6Addr>().map_err(|_| "has no IPv6 address between its brackets")?;
        let port = match port {
            "" => "",
            port => port.strip_prefix(':').ok_or("has more than a port behind its bracket")?,
        };
        (Host::Address(address.into()), port)
    } else {
        let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
        (host_name(name)?, port)
    };
    match port {
        "" => Ok((host, None)),
        port if port.starts_with('+') => Err("has a port that is no number up to 65535"),
        port => port
            .parse()
            .map(|port| (host, Some(port)))
            .map_err(|_| "has a port that is no number up to 65535"),
    }
}

fn host_name(name: &str) -> std::result::Result<Host, &'static str> {
    if name.is_empty() {
        return Err("has no host");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
        return Err(
            "has a host with characters that no name has (names in other scripts are written as xn--...)",
        );
    }
    Ok(name.parse().map_or_else(|_| Host::Name(name.to_ascii_lowercase().into()), Host::Address))
}

/// A refusal of a URL, without what may be secret in it.
fn refused(url: &str, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the URL {:?} {why}", without_secrets(url)))
}

/// A URL as it may be shown: its user name and password, its query and its fragment are left out.
pub(super) fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // A password may hold a slash that its writer forgot to encode.
    let rest = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, rest)| format!("...@{rest}"));
    scheme + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, String, bool) {
        let origin = Origin::parse(url).unwrap();
        (origin.to_string(), origin.authority(), origin.is_secure())
    }

    fn words(url: &str) -> String {
        let error = Origin::split(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for (url, shown, authority, secure) in [
            ("http://Host:1", "http://host:1", "host:1", false),
            ("HTTP://host:80/", "http://host", "host", false),
            ("https://a-b.example.", "https://a-b.example.", "a-b.example.", true),
            ("https://host:80", "https://host:80", "host:80", true),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "127.0.0.1:8000", false),
            ("http://[::1]", "http://[::1]", "[::1]", false),
            ("https://[0:0::1]:8443", "https://[::1]:8443", "[::1]:8443", true),
            ("http://host:", "http://host", "host", false),
            ("unix:///run/x.sock", "unix:///run/x.sock", "localhost", false),
            ("unix:/run/x.sock", "unix:///run/x.sock", "localhost", false),
            ("http+unix://%2Frun%2Fx.sock/", "unix:///run/x.sock", "localhost", false),
            ("grpc://Host:8001", "grpc://host:8001", "host:8001", false),
            ("grpc://host", "grpc://host", "host", false),
            ("grpcs://[::1]:443/", "grpcs://[::1]", "[::1]", true),
            ("grpc+unix:///run/x.sock", "grpc+unix:///run/x.sock", "localhost", false),
            ("grpc+unix://%2Frun%2Fx.sock", "grpc+unix:///run/x.sock", "localhost", false),
        ] {
            assert_eq!(parsed(url), (shown.to_owned(), authority.to_owned(), secure), "{url}");
        }
    }

    #[test]
    fn urls_of_one_origin_are_equal() {
        let same = ["http://Host", "http://host:80", "http://HOST/"].map(|url| Origin::parse(url).unwrap());
        assert!(same.windows(2).all(|pair| pair[0] == pair[1]));
        let unix = Origin::parse("unix:///run/x.sock").unwrap();
        assert_eq!(unix, Origin::parse("http+unix://%2Frun%2Fx.sock").unwrap());
        assert_ne!(Origin::parse("http://host:443").unwrap(), Origin::parse("https://host").unwrap());
        let grpc = Origin::parse("grpc://host:80").unwrap();
        assert_ne!(grpc, Origin::parse("http://host:80").unwrap());
        assert_eq!((grpc.protocol(), grpc.scheme()), (Protocol::Grpc, "http"));
    }

    #[test]
    fn what_follows_the_origin_is_kept_as_it_stands() {
        for (url, rest) in [
            ("http://h/a%20b?c=d#e", "/a%20b?c=d#e"),
            ("http://h?c=@d", "?c=@d"),
            ("http://h", ""),
            ("http+unix://%2Fx/v2/models", "/v2/models"),
            ("unix:///x/v2/models", ""),
            ("grpc://h:1/", "/"),
            ("grpc+unix://%2Fx/y", "/y"),
            ("grpc+unix:///x/y", ""),
        ] {
            assert_eq!(Origin::split(url).unwrap().1, rest, "{url}");
        }
        assert!(Origin::parse("http://h/path").is_err());
    }

    #[test]
    fn what_is_no_origin_is_refused_in_words() {
        for (url, why) in [
            ("host", "no scheme"),
            ("host:80", "lacks the //"),
            ("ftp://host", "scheme that is not"),
            ("http:host", "lacks the //"),
            ("http://", "no host"),
            ("http://:80", "no host"),
            ("http://host:65536", "no number"),
            ("http://host:+80", "no number"),
            ("http://host:8o", "no number"),
            ("http://[::1", "not closed"),
            ("http://[::1]8", "behind its bracket"),
            ("http://[host]", "no IPv6"),
            ("http://h\u{f6}st", "xn--"),
            ("http://ho st", "characters"),
            ("http://host\\evil.example/", "characters"),
            ("http://host\r\nx: y", "characters"),
            ("unix://run/x.sock", "absolute path"),
            ("unix:///run/%00", "absolute path"),
            ("unix:", "absolute path"),
        ] {
            assert!(words(url).contains(why), "{url}: {}", words(url));
        }
    }

    #[test]
    fn secrets_of_a_url_are_never_shown() {
        for url in
            ["http://user:secret@host/", "http://user:sec/ret@host", "ftp://u:secret@h?k=secret#secret"]
        {
            let words = words(url);
            assert!(
                !words.contains("secret") && !words.contains("ret@") && !words.contains("user:"),
                "{words}"
            );
        }
    }
}
