//! The settings of a client, from the dictionaries that Python hands over: times in seconds, `None` for no limit.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;

use crate::client::{
    ClientSettings, ConnectSettings, Http2Choice, Proxies, Retry, StreamSettings, Timeouts, TlsSettings,
};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{BalancePolicy, EjectSettings, PoolSettings};

/// connect, acquire, first, idle, total.
pub(crate) type Times = (Option<f64>, Option<f64>, Option<f64>, Option<f64>, Option<f64>);

/// The most that a window of HTTP/2 can be (RFC 9113, section 6.9.1).
const MOST_WINDOW: u32 = (1 << 31) - 1;

/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_hours(876_000);

/// What a client is made of.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Settings {
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pool: PoolFields,
    grpc_pool: PoolFields,
    pub(crate) timeout: Times,
    balance: String,
    retry: RetryFields,
    eject: EjectFields,
    tls: TlsFields,
    proxy: Option<String>,
    http2: String,
    pub(crate) decompress: bool,
    pub(crate) max_response: Option<usize>,
    stream_window: usize,
    stream_memory: usize,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct PoolFields {
    min_size: usize,
    max_size: usize,
    acquire_timeout: Option<f64>,
    idle_timeout: Option<f64>,
    max_age: Option<f64>,
    health_interval: Option<f64>,
    streams_per_connection: usize,
    held_too_long: Option<f64>,
    reuse: bool,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct RetryFields {
    attempts: u32,
    budget: f64,
    per_second: f64,
    statuses: Vec<u16>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct EjectFields {
    failures: Option<u32>,
    time: f64,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct TlsFields {
    verify: bool,
    ca_file: Option<PathBuf>,
    ca_data: Option<Vec<u8>>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

impl PoolFields {
    fn settings(&self) -> Result<PoolSettings> {
        Ok(PoolSettings {
            min_size: self.min_size,
            max_size: self.max_size,
            acquire_timeout: optional("pool.acquire_timeout", self.acquire_timeout)?,
            idle_timeout: optional("pool.idle_timeout", self.idle_timeout)?,
            max_age: optional("pool.max_age", self.max_age)?,
            health_interval: optional("pool.health_interval", self.health_interval)?,
            held_too_long: optional("pool.held_too_long", self.held_too_long)?,
            reuse: self.reuse,
            ..PoolSettings::default()
        })
    }
}

impl Settings {
    /// The settings of the core.
    pub(crate) fn client(&self) -> Result<ClientSettings> {
        let (connect, ..) = self.timeout;
        let mut settings = ClientSettings {
            pool: self.pool.settings()?,
            grpc_pool: PoolSettings { spread: true, ..self.grpc_pool.settings()? },
            balance: self.balance()?,
            retry: self.retry()?,
            asks_ready: true,
            ..ClientSettings::default()
        };
        settings.eject = EjectSettings {
            failures: self.eject.failures,
            time: seconds("eject.time", self.eject.time)?,
            ..EjectSettings::default()
        };
        settings.http2.streams = self.pool.streams_per_connection;
        // What a server may send that nobody has taken, before it has to wait.
        let window = u32::try_from(self.stream_window).unwrap_or(MOST_WINDOW);
        settings.http2.stream_window = window.clamp(u32::from(u16::MAX), MOST_WINDOW);
        settings.connect = ConnectSettings {
            timeout: optional("timeout.connect", connect)?.unwrap_or(FOR_EVER),
            tls: self.tls(),
            proxies: match self.proxy.as_deref() {
                None => Proxies::None,
                Some("environment") => Proxies::Environment,
                Some(url) => Proxies::Url(url.to_owned()),
            },
            http2: self.http2()?,
            ..ConnectSettings::default()
        };
        Ok(settings)
    }

    /// How much bodies may hold that are read as they come.
    pub(crate) fn streams(&self) -> StreamSettings {
        StreamSettings { window: self.stream_window.max(1), memory: self.stream_memory.max(1) }
    }

    fn balance(&self) -> Result<BalancePolicy> {
        Ok(match self.balance.as_str() {
            "round_robin" => BalancePolicy::RoundRobin,
            "least_outstanding" => BalancePolicy::LeastOutstanding,
            "p2c" => BalancePolicy::P2c,
            "p2c_first_byte" => BalancePolicy::P2cFirstByte,
            other => {
                let known = "round_robin, least_outstanding, p2c and p2c_first_byte";
                return Err(config(format!("balance={other:?} is none of {known}")));
            }
        })
    }

    fn retry(&self) -> Result<Retry> {
        let retry = &self.retry;
        let statuses = retry.statuses.iter().map(|status| {
            http::StatusCode::from_u16(*status).map_err(|_| config(format!("{status} is no status of HTTP")))
        });
        Ok(Retry {
            attempts: retry.attempts.max(1),
            budget: retry.budget,
            per_second: retry.per_second,
            statuses: statuses.collect::<Result<_>>()?,
        })
    }

    fn tls(&self) -> TlsSettings {
        TlsSettings {
            verify: self.tls.verify,
            ca_file: self.tls.ca_file.clone(),
            ca_data: self.tls.ca_data.clone(),
            cert_file: self.tls.cert_file.clone(),
            key_file: self.tls.key_file.clone(),
        }
    }

    fn http2(&self) -> Result<Http2Choice> {
        Ok(match self.http2.as_str() {
            "alpn" => Http2Choice::Alpn,
            "always" => Http2Choice::PriorKnowledge,
            "never" => Http2Choice::Never,
            other => return Err(config(format!("http2={other:?} is none of alpn, always and never"))),
        })
    }
}

/// The time-outs of a request.
pub(crate) fn timeouts((connect, acquire, first, idle, total): Times) -> Result<Timeouts> {
    Ok(Timeouts {
        connect: optional("connect", connect)?,
        acquire: optional("acquire", acquire)?,
        first: optional("first", first)?,
        idle: optional("idle", idle)?,
        total: optional("total", total)?,
    })
}

fn optional(name: &str, value: Option<f64>) -> Result<Option<Duration>> {
    value.map(|value| seconds(name, value)).transpose()
}

fn seconds(name: &str, value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| config(format!("{name} must be a number of seconds from 0, not {value}")))
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}
