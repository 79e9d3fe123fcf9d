//! What a door allows.

use std::time::Duration;

use super::RepositoryAccess;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{SlowReader, StreamLimits, StreamMemory};

/// Limits of a door. Whatever a stranger can make grow has one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own, as it is said")]
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
    /// Time without a piece of a streamed answer after which a comment is sent; the first comes with the head.
    pub keep_alive: Duration,
    /// Whether answers are sent while their model makes them. Otherwise they are collected, and sent as a whole.
    pub streaming: bool,
    /// Whether streamed answers are packed where the client accepts that and it is worth it.
    pub compression: bool,
    /// Bytes of one streamed answer that its reader has not taken yet.
    pub stream_window: usize,
    /// The same, of all streamed answers together.
    pub stream_memory: usize,
    /// What becomes of a streamed answer whose reader is too slow.
    pub slow_reader: SlowReader,
    /// Whether `/dashboard` is answered.
    pub dashboard: bool,
    /// What calls may do with the models.
    pub repository: RepositoryAccess,
}

impl Default for HttpSettings {
    /// Bodies of 64 MiB, heads of 64 KiB, 10,000 connections, 10,000 requests in flight, 128 streams; 10 s for a head,
    /// 60 s for a body, 75 s idle; `Server-Timing` is sent; a comment after 15 s without a piece of a stream, which is
    /// packed where that is worth it; 1 MiB of one stream and 10 MiB of all for slow readers, who pause their model; the dashboard
    /// is shown; models are listed, loaded and unloaded by calls.
    fn default() -> Self {
        Self {
            max_body: 64 << 20,
            max_head: 64 << 10,
            max_connections: 10_000,
            max_in_flight: 10_000,
            max_streams: 128,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(1),
            idle_timeout: Duration::from_secs(75),
            server_timing: true,
            keep_alive: Duration::from_secs(15),
            streaming: true,
            compression: true,
            stream_window: StreamLimits::WINDOW,
            stream_memory: StreamLimits::MEMORY,
            slow_reader: SlowReader::Pause,
            dashboard: true,
            repository: RepositoryAccess::Full,
        }
    }
}

/// What the HTTP library needs at least to read a head.
const LEAST_HEAD: usize = 8 << 10;

impl HttpSettings {
    /// What streamed answers may hold for their readers, of a memory of their own.
    pub(super) fn stream_limits(&self) -> StreamLimits {
        let memory = StreamMemory::new(self.stream_memory);
        StreamLimits { window: self.stream_window, memory, slow_reader: self.slow_reader }
    }

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
            ("stream_window", self.stream_window),
            ("stream_memory", self.stream_memory),
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
            ("keep_alive", self.keep_alive),
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
