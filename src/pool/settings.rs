//! How large a pool grows and how long its connections live.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The settings of one endpoint's pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// Requests that the open connections can carry together before the pool stops opening more of its own accord: 10
    /// HTTP/1.1 connections, or one of HTTP/2. It begins after the first use of the endpoint that went well.
    pub min_size: usize,
    /// Whether connections count by themselves, as channels of gRPC do: `min_size` is a number of connections, whatever each
    /// can carry, and a request goes to the one that carries least. Otherwise a shared one is filled before the next is
    /// touched, and those that are not needed fall idle.
    pub spread: bool,
    /// Connections that are open or being opened at a time.
    pub max_size: usize,
    /// The longest wait for a connection; `None` for no limit.
    pub acquire_timeout: Option<Duration>,
    /// An idle connection is closed after this time, unless `min_size` keeps it.
    pub idle_timeout: Option<Duration>,
    /// A connection takes no more requests after this time, less up to a tenth of it at random so that those opened
    /// together do not end together.
    pub max_age: Option<Duration>,
    /// An idle connection that proved itself neither by a request nor by a check for this time is checked.
    pub health_interval: Option<Duration>,
    /// The longest that a health check may take.
    pub health_timeout: Duration,
    /// A connection used within this time is not checked, however short `health_interval` is.
    pub bypass: Duration,
    /// False where there is no pool to speak of: every request opens a connection, has it for itself, and closes it.
    pub reuse: bool,
    /// A connection held longer is reported, once, with the place that it was taken at.
    pub held_too_long: Option<Duration>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            min_size: 10,
            spread: false,
            max_size: 100,
            acquire_timeout: Some(Duration::from_secs(2)),
            idle_timeout: Some(Duration::from_mins(5)),
            max_age: Some(Duration::from_mins(10)),
            health_interval: Some(Duration::from_secs(30)),
            health_timeout: Duration::from_secs(5),
            bypass: Duration::from_millis(500),
            reuse: true,
            held_too_long: Some(Duration::from_mins(5)),
        }
    }
}

impl PoolSettings {
    /// Answers whether the settings agree with one another.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the setting that does not.
    pub fn check(&self) -> Result<()> {
        if self.max_size == 0 {
            return refuse("max_size must be at least 1".to_owned());
        }
        if self.min_size > self.max_size {
            return refuse(format!("min_size={} is more than max_size={}", self.min_size, self.max_size));
        }
        let times = [
            ("acquire_timeout", self.acquire_timeout),
            ("idle_timeout", self.idle_timeout),
            ("max_age", self.max_age),
            ("health_interval", self.health_interval),
            ("health_timeout", Some(self.health_timeout)),
            ("held_too_long", self.held_too_long),
        ];
        match times.into_iter().find(|(_, time)| time.is_some_and(|time| time.is_zero())) {
            Some((name, _)) => refuse(format!("{name} must be more than 0 seconds")),
            None => Ok(()),
        }
    }

    /// How long an idle connection goes unproved before it is checked.
    pub(super) fn unproved(&self) -> Option<Duration> {
        self.health_interval.map(|interval| interval.max(self.bypass))
    }
}

fn refuse(message: String) -> Result<()> {
    Err(Error::new(ErrorKind::Config, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_themselves_are_named() {
        let said = |settings: PoolSettings| settings.check().unwrap_err().to_string();
        let usual = PoolSettings::default();
        usual.check().unwrap();
        PoolSettings { min_size: 0, max_size: 1, ..usual.clone() }.check().unwrap();
        assert_eq!(
            said(PoolSettings { min_size: 5, max_size: 4, ..usual.clone() }),
            "min_size=5 is more than max_size=4"
        );
        assert_eq!(said(PoolSettings { max_size: 0, ..usual.clone() }), "max_size must be at least 1");
        assert_eq!(
            said(PoolSettings { max_age: Some(Duration::ZERO), ..usual }),
            "max_age must be more than 0 seconds"
        );
    }
}
