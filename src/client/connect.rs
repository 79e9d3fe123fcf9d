//! From an origin to a connection that is ready for HTTP.

use std::fmt::Write;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::address::{Host, Origin, Protocol, Target};
use super::io::Stream;
use super::network::Network;
use super::proxy::{Proxies, Proxy, Routes};
use super::race::{order, race};
use super::tls::{Peer, Tls, TlsSettings};
use super::tunnel;
use crate::error::{Error, ErrorKind, Result};

/// When HTTP/2 is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2Choice {
    /// Never.
    Never,
    /// Over TLS where the server chooses it (ALPN).
    #[default]
    Alpn,
    /// Always; in the clear without asking first (RFC 9113, section 3.3).
    PriorKnowledge,
}

/// How connections are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectSettings {
    /// The most that opening one may take, from the resolver to the end of the TLS handshake.
    pub timeout: Duration,
    /// Certificates.
    pub tls: TlsSettings,
    /// Proxies.
    pub proxies: Proxies,
    /// When HTTP/2 is spoken.
    pub http2: Http2Choice,
    /// Whether small writes leave at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// After how long without traffic the kernel asks whether the other side is still there (`SO_KEEPALIVE`).
    pub keep_alive: Option<Duration>,
    /// What carries them.
    pub network: Network,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            tls: TlsSettings::default(),
            proxies: Proxies::default(),
            http2: Http2Choice::default(),
            nodelay: true,
            keep_alive: Some(Duration::from_mins(1)),
            network: Network::default(),
        }
    }
}

/// A connection, ready for HTTP.
#[derive(Debug)]
pub struct Connected {
    /// What carries it.
    pub stream: Stream,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// Whether it leads to a proxy that wants to be told the whole URL (RFC 9112, section 3.2.2).
    pub forward_proxy: bool,
    /// The header `Proxy-Authorization` for each request, where there is such a proxy and it demands one.
    pub proxy_authorization: Option<HeaderValue>,
}

/// Opens connections.
pub struct Dialer {
    settings: ConnectSettings,
    routes: Routes,
    tls: Tls,
    /// Counts connections, to take turns among a host's addresses.
    turn: AtomicUsize,
}

/// By when a connection must stand, and what errors call it.
struct Deadline<'a> {
    at: Instant,
    limit: Duration,
    origin: &'a Origin,
}

impl Deadline<'_> {
    /// Runs one step within the time that is left.
    async fn step<T>(
        &self,
        what: impl FnOnce() -> String,
        step: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        timeout_at(self.at, step).await.unwrap_or_else(|_| {
            let limit = self.limit.as_secs_f64();
            let message = format!(
                "no connection to {} within connect={limit} s: {} took too long",
                self.origin,
                what()
            );
            Err(Error::new(ErrorKind::ConnectTimeout, message))
        })
    }
}

impl Dialer {
    /// Reads the files and variables that the settings name, except for the public authorities, which wait for their
    /// first use.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a file cannot be read or does not hold what it should, where key and certificate do not
    /// belong together, and where a given proxy is none.
    pub fn new(settings: ConnectSettings) -> Result<Self> {
        if settings.timeout.is_zero() {
            return Err(Error::new(ErrorKind::Config, "the time-out for connecting is zero"));
        }
        let protocols: &[&[u8]] = match settings.http2 {
            Http2Choice::Never => &[b"http/1.1"],
            Http2Choice::Alpn => &[b"h2", b"http/1.1"],
            Http2Choice::PriorKnowledge => &[b"h2"],
        };
        let tls = Tls::new(&settings.tls, protocols.iter().map(|name| name.to_vec()).collect())?;
        let routes = Routes::new(&settings.proxies)?;
        Ok(Self { settings, routes, tls, turn: AtomicUsize::new(0) })
    }

    /// When HTTP/2 is spoken.
    pub fn http2(&self) -> Http2Choice {
        self.settings.http2
    }

    /// Opens a connection: the name is resolved anew, its addresses take turns, and where one does not answer the next
    /// is tried beside it (RFC 8305). To drop the future gives it up.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectTimeout`] where it takes longer than `timeout`, [`ErrorKind::ConnectFailed`] where the name is
    /// not known, nobody listens, a certificate is not valid or a proxy refuses, and [`ErrorKind::Config`] where the
    /// environment names a proxy that cannot be used.
    pub async fn dial(&self, origin: &Origin) -> Result<Connected> {
        let limit = self.settings.timeout;
        let deadline = Deadline { at: Instant::now() + limit, limit, origin };
        match origin.target() {
            Target::Unix { path } => {
                let stream = deadline.step(|| "the Unix socket".to_owned(), open_unix(origin, path)).await?;
                Ok(self.in_the_clear(origin, stream))
            }
            Target::Network { secure, host, port } => match self.routes.proxy(origin)? {
                None => {
                    let stream = self.open(&deadline, host, *port, &origin.to_string()).await?;
                    if *secure {
                        self.encrypted(&deadline, host, *port, stream).await
                    } else {
                        Ok(self.in_the_clear(origin, stream))
                    }
                }
                Some(proxy) => {
                    let stream = self.open_proxy(&deadline, proxy).await?;
                    self.through(&deadline, proxy, stream, host, *port).await
                }
            },
        }
    }

    /// Whether HTTP/2 is spoken to that origin without asking.
    fn knows_http2(&self, origin: &Origin) -> bool {
        origin.protocol() == Protocol::Grpc || self.settings.http2 == Http2Choice::PriorKnowledge
    }

    fn in_the_clear(&self, origin: &Origin, stream: Stream) -> Connected {
        let http2 = self.knows_http2(origin);
        Connected { stream, http2, forward_proxy: false, proxy_authorization: None }
    }

    async fn encrypted(
        &self,
        deadline: &Deadline<'_>,
        host: &Host,
        port: u16,
        stream: Stream,
    ) -> Result<Connected> {
        let shown = format!("{host}:{port}");
        let is_grpc = deadline.origin.protocol() == Protocol::Grpc;
        let peer = if is_grpc { Peer::GrpcServer } else { Peer::Server };
        let handshake = self.tls.handshake(peer, host, &shown, stream);
        let stream = deadline.step(|| format!("the TLS handshake with {shown}"), handshake).await?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if is_grpc && !agreed {
            let message = format!("{} does not choose HTTP/2 by ALPN, which gRPC needs", deadline.origin);
            return Err(Error::new(ErrorKind::ConnectFailed, message));
        }
        let http2 = agreed || self.knows_http2(deadline.origin);
        Ok(Connected {
            stream: Stream::Tls(Box::new(stream)),
            http2,
            forward_proxy: false,
            proxy_authorization: None,
        })
    }

    async fn open_proxy(&self, deadline: &Deadline<'_>, proxy: &Proxy) -> Result<Stream> {
        let stream = self.open(deadline, &proxy.host, proxy.port, &format!("the proxy {proxy}")).await?;
        if !proxy.secure {
            return Ok(stream);
        }
        let shown = format!("the proxy {}:{}", proxy.host, proxy.port);
        let handshake = self.tls.handshake(Peer::Proxy, &proxy.host, &shown, stream);
        let stream = deadline.step(|| format!("the TLS handshake with {shown}"), handshake).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// From the proxy on. Requests in the clear are told to the proxy itself, unless they are of HTTP/2, which few
    /// proxies would understand.
    async fn through(
        &self,
        deadline: &Deadline<'_>,
        proxy: &Proxy,
        stream: Stream,
        host: &Host,
        port: u16,
    ) -> Result<Connected> {
        let secure = deadline.origin.is_secure();
        if !secure && !self.knows_http2(deadline.origin) {
            let proxy_authorization = proxy.authorization.clone();
            return Ok(Connected { stream, http2: false, forward_proxy: true, proxy_authorization });
        }
        let (authority, shown) = (format!("{host}:{port}"), deadline.origin.to_string());
        let tunnel = tunnel::open(stream, proxy, &authority, &shown);
        let stream = deadline.step(|| format!("the tunnel through the proxy {proxy}"), tunnel).await?;
        if secure {
            self.encrypted(deadline, host, port, stream).await
        } else {
            Ok(self.in_the_clear(deadline.origin, stream))
        }
    }

    /// A TCP connection to `host`, which errors call `shown`.
    async fn open(&self, deadline: &Deadline<'_>, host: &Host, port: u16, shown: &str) -> Result<Stream> {
        let addresses = match host {
            Host::Address(address) => vec![SocketAddr::new(*address, port)],
            Host::Name(name) => {
                deadline.step(|| format!("resolving the name {name}"), resolve(name, port)).await?
            }
        };
        let addresses = order(&addresses, self.turn.fetch_add(1, Ordering::Relaxed));
        let race = async {
            let failed = |failures: Vec<_>| {
                let message = format!("no connection to {shown}: {}", refusals(&failures));
                match failures.into_iter().next() {
                    Some((_, error)) => Error::with_source(ErrorKind::ConnectFailed, message, error),
                    None => Error::new(ErrorKind::ConnectFailed, message),
                }
            };
            race(&addresses, |address| self.settings.network.connect(address)).await.map_err(failed)
        };
        let stream = deadline.step(|| format!("connecting to {}", listed(&addresses)), race).await?;
        self.tune(&stream).map_err(|error| {
            Error::with_source(
                ErrorKind::ConnectFailed,
                format!("no connection to {shown}: {}", words(&error)),
                error,
            )
        })?;
        Ok(stream)
    }

    fn tune(&self, stream: &Stream) -> io::Result<()> {
        let Stream::Tcp(stream) = stream else { return Ok(()) };
        stream.set_nodelay(self.settings.nodelay)?;
        if let Some(after) = self.settings.keep_alive {
            SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(after))?;
        }
        Ok(())
    }
}

async fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let unknown = |why: &str| format!("the name {name} is not known{why}");
    match lookup_host((name, port)).await {
        Ok(found) => {
            let addresses = found.collect::<Vec<_>>();
            if addresses.is_empty() {
                return Err(Error::new(ErrorKind::ConnectFailed, unknown("")));
            }
            Ok(addresses)
        }
        Err(error) => {
            let cause = error.to_string();
            let why = cause.rsplit(": ").next().unwrap_or_default().to_lowercase();
            Err(Error::with_source(ErrorKind::ConnectFailed, unknown(&format!(" ({why})")), error))
        }
    }
}

async fn open_unix(origin: &Origin, path: &Path) -> Result<Stream> {
    UnixStream::connect(path).await.map(Stream::Unix).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "there is no such socket".to_owned(),
            io::ErrorKind::ConnectionRefused => "connection refused: nobody listens on the socket".to_owned(),
            _ => words(&error),
        };
        Error::with_source(ErrorKind::ConnectFailed, format!("no connection to {origin}: {why}"), error)
    })
}

/// What went wrong, without the operating system's number.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::TimedOut => "no answer in the operating system's time".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

fn refusals(failures: &[(SocketAddr, io::Error)]) -> String {
    let mut text = String::new();
    for (index, (address, error)) in failures.iter().enumerate() {
        let between = if index == 0 { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{between}{} by {address}", words(error));
    }
    text
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
