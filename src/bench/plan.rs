//! What a run does: the requests, how many clients send them, how fast and for how long.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::target::Target;
use crate::error::{Error, ErrorKind, Result};

const MAX_CLIENTS: usize = 10_000;
const MAX_STREAMS: usize = 1_000;
const MAX_RATE_PER_SECOND: f64 = 1_000_000.0;
const MAX_DEADLINE: Duration = Duration::from_hours(24);

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

/// How fast requests are sent, and how many.
///
/// The first three are closed loops: every client sends its requests one after another, the next when the last is
/// answered, and latency counts from the moment that the client turns to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// A closed loop in which every client sends as many as the others.
    Closed {
        /// How many requests each client sends.
        requests_per_client: usize,
    },
    /// A closed loop whose clients share a number of requests: a fast one sends more of them.
    Shared {
        /// How many requests all clients send together.
        requests: usize,
    },
    /// A closed loop that goes on for a time. Requests that are out when it has passed are still waited for.
    Timed {
        /// How long clients go on sending.
        duration: Duration,
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

/// What a connection speaks, and how long it lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, a connection for each client, for as long as the server keeps it.
    #[default]
    Http1,
    /// HTTP/1.1, a connection for each request, asked for by `Connection: close`. Opening it is part of the latency.
    Http1Close,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113, section 3.3).
    Http2 {
        /// How many clients share a connection, each with one stream at a time; at most 1 000.
        streams: usize,
    },
    /// gRPC over HTTP/2 without TLS: unary calls of the method that the target's path names. A body is one message with
    /// its prefix of five bytes (`wire::grpc::framed`), and so is an answer.
    Grpc {
        /// As of [`Http2`](Self::Http2).
        streams: usize,
    },
}

impl Protocol {
    /// How many clients share a connection; none where none do.
    pub(super) fn streams(self) -> Option<usize> {
        match self {
            Self::Http1 | Self::Http1Close => None,
            Self::Http2 { streams } | Self::Grpc { streams } => Some(streams),
        }
    }
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
    /// How many clients send requests, each with one of them out at a time; at most 10 000.
    pub clients: usize,
    /// How fast requests are sent, and how many.
    pub mode: Mode,
    /// What connections speak.
    pub protocol: Protocol,
    /// How long clients send before anything is counted, in the same way as after it.
    pub warmup: Duration,
    /// Bounds a request, from the moment that a connection takes it, and the opening of a connection; half a minute
    /// unless set. A request that takes longer is lost with its connection.
    pub timeout: Duration,
    /// Bounds the whole run, the opening of connections included; at most a day.
    pub deadline: Duration,
    /// Keeps every answer for checking. They are copied, and they all stay in memory until the report goes.
    pub keep_bodies: bool,
    /// Looks whether every answer is a 200 (`OK` over gRPC) and an inference response of the Open Inference Protocol; it
    /// costs the load generator time.
    pub check: bool,
    /// How often in a row, without an answer in between, each client opens its connection anew before it gives up; 100
    /// unless set.
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
            protocol: Protocol::Http1,
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(30),
            deadline: Duration::from_mins(1),
            keep_bodies: false,
            check: false,
            max_reopens: 100,
        }
    }

    /// Refuses what cannot be carried out, naming the limit.
    pub(super) fn check(&self) -> Result<()> {
        if self.clients == 0 || self.clients > MAX_CLIENTS {
            let clients = self.clients;
            return Err(config(format!("{clients} clients are not between 1 and {MAX_CLIENTS}")));
        }
        if self.method == Method::CONNECT {
            return Err(config("method CONNECT asks for a tunnel, which is no load"));
        }
        if let Some(streams) = self.protocol.streams()
            && (streams == 0 || streams > MAX_STREAMS)
        {
            return Err(config(format!("{streams} streams are not between 1 and {MAX_STREAMS}")));
        }
        if matches!(self.protocol, Protocol::Grpc { .. }) && self.method != Method::POST {
            return Err(config(format!("method {} is not POST, which every call of gRPC is", self.method)));
        }
        self.check_times()?;
        self.check_bodies()?;
        self.check_mode()
    }

    fn check_times(&self) -> Result<()> {
        for (name, time) in [("deadline", self.deadline), ("timeout", self.timeout)] {
            bounded(name, time)?;
        }
        if self.warmup > MAX_DEADLINE {
            return Err(config(format!("warmup {:?} is longer than {MAX_DEADLINE:?}", self.warmup)));
        }
        Ok(())
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
            Mode::Shared { requests: 0 } => Err(config("0 requests are fewer than 1")),
            Mode::Closed { .. } | Mode::Shared { .. } => Ok(()),
            Mode::Timed { duration } => bounded("duration", duration),
            Mode::Open { rate_per_second: rate, duration, .. } => {
                if !(rate > 0.0 && rate <= MAX_RATE_PER_SECOND) {
                    let limits = format!("above 0 and at most {MAX_RATE_PER_SECOND}");
                    return Err(config(format!("rate {rate} per second is not {limits}")));
                }
                bounded("duration", duration)
            }
        }
    }

    /// The index of the body that the n-th request carries; none only where the plan was never checked.
    pub(super) fn body_index(&self, number: usize) -> Option<usize> {
        match &self.order {
            Order::Cycle => number.checked_rem(self.bodies.len()),
            Order::Listed(indices) => indices.get(number.checked_rem(indices.len())?).copied(),
        }
    }
}

fn bounded(name: &str, time: Duration) -> Result<()> {
    if time.is_zero() || time > MAX_DEADLINE {
        return Err(config(format!("{name} {time:?} is not above 0 and at most {MAX_DEADLINE:?}")));
    }
    Ok(())
}

pub(super) fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
