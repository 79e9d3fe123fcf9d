//! Who may come in through a server's doors, as `penstock.settings.SecuritySettings` says it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Registry;
use crate::serve::{CorsSettings, KeySource, Security, SecuritySettings, TlsFiles};

/// Who may come in; times in seconds.
#[derive(FromPyObject)]
pub(crate) struct Guards {
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    tls_reload_seconds: f64,
    api_keys: Option<GivenKeys>,
    metrics_open: bool,
    cors_origins: Vec<String>,
    cors_max_age: f64,
}

/// The path of a file of keys, or their hashes by name.
#[derive(FromPyObject)]
enum GivenKeys {
    #[pyo3(transparent)]
    File(PathBuf),
    #[pyo3(transparent)]
    Named(BTreeMap<String, Vec<String>>),
}

impl Guards {
    /// Reads the files that are named, and looks after them from here on.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for what cannot be used.
    pub(crate) fn open(self, registry: &Registry) -> Result<Arc<Security>> {
        let reload = time("tls_reload_seconds", self.tls_reload_seconds)?;
        let reload = (!reload.is_zero()).then_some(reload);
        let max_age = time("cors_max_age", self.cors_max_age)?;
        let origins = self.cors_origins;
        let security = Security::open(
            SecuritySettings {
                tls: self.tls_cert.map(|cert| TlsFiles {
                    cert,
                    key: self.tls_key,
                    client_ca: self.tls_client_ca,
                }),
                keys: self.api_keys.map(|keys| match keys {
                    GivenKeys::File(path) => KeySource::File(path),
                    GivenKeys::Named(named) => KeySource::Given(named.into_iter().collect()),
                }),
                metrics_open: self.metrics_open,
                cors: (!origins.is_empty()).then_some(CorsSettings { origins, max_age }),
            },
            registry,
        )?;
        if let Some(reload) = reload {
            security.keep_fresh(reload, &crate::runtime::handle()?);
        }
        Ok(security)
    }
}

fn time(name: &str, seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Error::new(ErrorKind::Config, format!("{name} is no duration in seconds")))
}
