//! What a run does: the target, the requests, how many clients send them and how fast.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;

use crate::error::{Error, ErrorKind, Result};

const MAX_CLIENTS: usize = 10_000;
const MAX_RATE_PER_SECOND: f64 = 1_000_000.0;
const MAX_DEADLINE: Duration = Duration::from_secs(86_400);

/// A path on a server of this machine, and the headers that go with every request.
///
/// A target that is not a loopback address cannot be built.
#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    path: Uri,
    headers: HeaderMap,
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
        Ok(Self { address, path, headers })
    }

    /// Adds a header to every request; one that is there already is replaced, `host` included.
    ///
    /// `content-length` follows from the body and needs no mention.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where the name or the value is not valid in HTTP.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|source| {
            let message = format!("{name:?} is not a valid header name");
            Error::with_source(ErrorKind::Config, message, source)
        })?;
        self.headers.insert(parsed, header_value(name, value)?);
        Ok(self)
    }

    /// Where connections go.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Which body the n-th request of a run carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Order {
    /// All bodies in turn, then from the first again.
    #[default]
    Cycle,
    /// The bodies with these indices in turn, then from the first of the list again.
    Listed(Vec<usize>),
}

/// How the requests of an open loop are spread over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spacing {
    /// The same time between any two.
    #[default]
    Constant,
    /// Independent of one another, as requests of many users are: a Poisson process.
    Poisson {
        /// The same seed gives the same schedule on every machine.
        seed: u64,
    },
}

/// How fast requests are sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// Every client sends its requests one after another, the next when the last is answered.
    ///
    /// Latency counts from the moment the client turns to a request.
    Closed {
        /// How many requests each client sends.
        requests_per_client: usize,
    },
    /// Requests fall due by a schedule; whichever client is free sends them, and they wait while none is.
    ///
    /// Latency counts from the moment a request fell due, so time spent waiting for a client is part of it.
    Open {
        /// Mean number of requests that fall due in a second.
        rate_per_second: f64,
        /// How long requests go on falling due. Those that are late are still sent, until the deadline.
        duration: Duration,
        /// How they are spread over that time.
        spacing: Spacing,
    },
}

/// Everything that a run needs to know.
///
/// Build one with [`Plan::new`] and set the other fields as needed; [`run`](super::run()) checks the whole.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where requests go.
    pub target: Target,
    /// Method of every request; `POST` unless set.
    pub method: Method,
    /// The bodies that requests carry; one empty body for requests without any.
    pub bodies: Vec<Bytes>,
    /// Which request carries which body.
    pub order: Order,
    /// How many clients send requests, each over one connection of its own; at most 10 000.
    pub clients: usize,
    /// How fast requests are sent.
    pub mode: Mode,
    /// Bounds the whole run, the opening of connections included; at most a day.
    pub deadline: Duration,
    /// Keeps every answer for checking. They are copied, and they all stay in memory until the report goes.
    pub keep_bodies: bool,
    /// How often each client opens its connection anew after it broke, before it gives up; 100 unless set.
    pub max_reopens: u32,
}

impl Plan {
    /// Sends `bodies` in turn with `POST`, with a deadline of a minute, keeping no answers.
    pub fn new(target: Target, bodies: Vec<Bytes>, clients: usize, mode: Mode) -> Self {
        Self {
            target,
            method: Method::POST,
            bodies,
            order: Order::Cycle,
            clients,
            mode,
            deadline: Duration::from_secs(60),
            keep_bodies: false,
            max_reopens: 100,
        }
    }

    /// Refuses what cannot be carried out, naming the limit.
    pub(super) fn check(&self) -> Result<()> {
        if self.clients == 0 || self.clients > MAX_CLIENTS {
            let clients = self.clients;
            return Err(config(format!("{clients} clients are not between 1 and {MAX_CLIENTS}")));
        }
        if self.deadline > MAX_DEADLINE {
            let deadline = self.deadline;
            return Err(config(format!("deadline {deadline:?} is longer than {MAX_DEADLINE:?}")));
        }
        self.check_bodies()?;
        self.check_mode()
    }

    fn check_bodies(&self) -> Result<()> {
        let bodies = self.bodies.len();
        if bodies == 0 {
            return Err(config("there is no body to send; requests without one need an empty body"));
        }
        let Order::Listed(indices) = &self.order else {
            return Ok(());
        };
        if indices.is_empty() {
            return Err(config("the list of bodies to send is empty"));
        }
        match indices.iter().find(|index| **index >= bodies) {
            Some(index) => Err(config(format!("body {index} is to be sent, of {bodies} bodies"))),
            None => Ok(()),
        }
    }

    fn check_mode(&self) -> Result<()> {
        match self.mode {
            Mode::Closed { requests_per_client: 0 } => Err(config("0 requests per client are fewer than 1")),
            Mode::Closed { .. } => Ok(()),
            Mode::Open { rate_per_second: rate, duration, .. } => {
                if !(rate > 0.0 && rate <= MAX_RATE_PER_SECOND) {
                    let limits = format!("above 0 and at most {MAX_RATE_PER_SECOND}");
                    return Err(config(format!("rate {rate} per second is not {limits}")));
                }
                if duration.is_zero() || duration > MAX_DEADLINE {
                    let limits = format!("above 0 and at most {MAX_DEADLINE:?}");
                    return Err(config(format!("duration {duration:?} is not {limits}")));
                }
                Ok(())
            }
        }
    }

    /// The n-th request of the run and the index of its body; none only where the plan was never checked.
    pub(super) fn request(&self, number: usize) -> Option<(usize, Request<Full<Bytes>>)> {
        let index = match &self.order {
            Order::Cycle => number.checked_rem(self.bodies.len())?,
            Order::Listed(indices) => *indices.get(number.checked_rem(indices.len())?)?,
        };
        let mut request = Request::new(Full::new(self.bodies.get(index)?.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.path.clone();
        *request.headers_mut() = self.target.headers.clone();
        Some((index, request))
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

fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
