//! What a door allows.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Limits of a door. Whatever a stranger can make grow has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Bytes of a request body at most, as sent and as unpacked; more gets status 413.
    pub max_body: usize,
    /// Bytes of a request's head at most; more gets status 431.
    pub max_head: usize,
    /// Connections at most; one more gets status 503 and is closed.
    pub max_connections: usize,
    /// Inference requests at most that are read or answered at a time; one more gets status 503.
    pub max_in_flight: usize,
    /// Requests at most that an HTTP/2 connection may have open at a time.
    pub max_streams: u32,
    /// Time that a client may take to send a request's head; longer gets status 408.
    pub header_timeout: Duration,
    /// Time that a client may take to send a body (longer gets status 408), or to take the next bytes of an answer.
    pub body_timeout: Duration,
    /// Time that a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Whether answers say in `Server-Timing` where their time went.
    pub server_timing: bool,
}

impl Default for HttpSettings {
    /// Bodies of 64 MiB, heads of 64 KiB, 10,000 connections, 10,000 requests in flight, 128 streams; 10 s for a head,
    /// 60 s for a body, 75 s idle; `Server-Timing` is sent.
    fn default() -> Self {
        Self {
            max_body: 64 << 20,
            max_head: 64 << 10,
            max_connections: 10_000,
            max_in_flight: 10_000,
            max_streams: 128,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            server_timing: true,
        }
    }
}

/// What the HTTP library needs at least to read a head.
const LEAST_HEAD: usize = 8 << 10;

impl HttpSettings {
    /// Makes sure that requests can be served under these limits.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Config, text));
        for (name, count) in [
            ("max_body", self.max_body),
            ("max_connections", self.max_connections),
            ("max_in_flight", self.max_in_flight),
            ("max_streams", self.max_streams as usize),
        ] {
            if count == 0 {
                return wrong(format!("{name} must be at least 1"));
            }
        }
        if self.max_head < LEAST_HEAD {
            return wrong(format!("max_head must be at least {LEAST_HEAD} bytes, not {}", self.max_head));
        }
        for (name, time) in [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("idle_timeout", self.idle_timeout),
        ] {
            if time.is_zero() {
                return wrong(format!("{name} must be longer than nothing"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_under_which_nothing_can_be_served_are_refused_by_name() {
        assert!(HttpSettings::default().check().is_ok());
        for (settings, name) in [
            (HttpSettings { max_body: 0, ..HttpSettings::default() }, "max_body"),
            (HttpSettings { max_connections: 0, ..HttpSettings::default() }, "max_connections"),
            (HttpSettings { max_head: 100, ..HttpSettings::default() }, "max_head"),
            (HttpSettings { idle_timeout: Duration::ZERO, ..HttpSettings::default() }, "idle_timeout"),
        ] {
            let error = settings.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(name), "{error}");
        }
    }
}
