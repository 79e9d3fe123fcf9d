//! Who may come in: certificates, keys, and pages of other origins.

mod cors;
mod files;
mod gate;
mod identity;
mod keys;
mod tls;

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use cors::Cors;
use files::Fresh;
use keys::Keys;
use tls::Tls;
pub(super) use tls::{Secured, Unsecured};

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Registry, SecurityMetrics};

/// Who may come in through a door. Without any of it, everybody may, in the clear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecuritySettings {
    /// The files with which connections are encrypted; `None` for connections in the clear.
    pub tls: Option<TlsFiles>,
    /// Keys, of which a request has to show one.
    pub keys: Option<KeySource>,
    /// Whether `/metrics` is answered without a key.
    pub metrics_open: bool,
    /// Pages of which origins may ask.
    pub cors: Option<CorsSettings>,
}

/// Files in PEM form, read when the door is made and whenever they have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The certificate's key, without a password; `None` where `cert` holds it, too.
    pub key: Option<PathBuf>,
    /// The authorities of which a client's certificate has to be; `None` asks clients for none.
    pub client_ca: Option<PathBuf>,
}

/// Where the keys are written down, each as the SHA-256 hash of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file, a line each: `name = "sha256:HEX"`. It is read again whenever it has changed.
    File(PathBuf),
    /// Here: a name, and one hash or several, each as `sha256:HEX`.
    Given(Vec<(String, Vec<String>)>),
}

/// Pages of which origins a browser lets ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsSettings {
    /// Origins such as `https://app.example`, or `*` for every one.
    pub origins: Vec<String>,
    /// For how long a browser may keep the answer that they may.
    pub max_age: Duration,
}

/// What a door asks of those who come.
pub struct Security {
    tls: Option<Fresh<Tls>>,
    keys: Option<Fresh<Keys>>,
    metrics_open: bool,
    cors: Option<Cors>,
    metrics: Option<SecurityMetrics>,
}

/// A file that is written at this moment is read again after so long, before anybody is told that it is bad.
const SECOND_LOOK: Duration = Duration::from_millis(200);

impl Security {
    /// Lets everybody in, in the clear.
    pub(super) fn none() -> Arc<Self> {
        Arc::new(Self { tls: None, keys: None, metrics_open: true, cors: None, metrics: None })
    }

    /// Reads the files that the settings name; counters go into `registry`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a file that cannot be read or does not hold what it should, and for a setting that cannot
    /// be.
    pub fn open(settings: SecuritySettings, registry: &Registry) -> Result<Arc<Self>> {
        let tls = settings.tls.map(Fresh::<Tls>::open).transpose()?;
        let keys = settings.keys.map(Fresh::<Keys>::open).transpose()?;
        let cors = settings.cors.as_ref().map(Cors::new).transpose()?;
        let metrics =
            (tls.is_some() || keys.is_some()).then(|| SecurityMetrics::new(registry, tls.is_some()));
        let security = Self { tls, keys, metrics_open: settings.metrics_open, cors, metrics };
        security.note_expiry();
        Ok(Arc::new(security))
    }

    /// Reads the files again; answers whether anything has changed. What cannot be used leaves what was before in force.
    /// Blocks as long as reading takes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a file that cannot be read or does not hold what it should.
    pub fn reload(&self) -> Result<bool> {
        let tls = self.tls.as_ref().map_or(Ok(false), Fresh::reload);
        let keys = self.keys.as_ref().map_or(Ok(false), Fresh::reload);
        for (what, outcome) in [("tls", &tls), ("api_keys", &keys)] {
            if let (Some(metrics), Ok(true) | Err(_)) = (&self.metrics, outcome) {
                metrics.reloaded(what, outcome.is_ok());
            }
        }
        self.note_expiry();
        // Both have been read by now, whatever became of the first.
        Ok(tls? | keys?)
    }

    /// Looks at the files every so often, from a thread that may wait for them, for as long as this lives.
    pub fn keep_fresh(self: &Arc<Self>, every: Duration, runtime: &Handle) {
        if self.tls.is_none() && !self.keys.as_ref().is_some_and(|keys| keys.source().has_files()) {
            return;
        }
        drop(runtime.spawn(look_again_and_again(Arc::downgrade(self), every)));
    }

    fn note_expiry(&self) {
        if let (Some(tls), Some(metrics)) = (&self.tls, &self.metrics) {
            metrics.set_expiry(tls.held().not_after);
        }
    }
}

async fn look_again_and_again(security: Weak<Security>, every: Duration) {
    let mut said = None;
    loop {
        tokio::time::sleep(every).await;
        let Some(security) = security.upgrade() else { return };
        let mut outcome = look(&security).await;
        if outcome.is_err() {
            tokio::time::sleep(SECOND_LOOK).await;
            outcome = look(&security).await;
        }
        match outcome {
            Ok(changed) => {
                said = None;
                if changed {
                    tracing::info!(target: "penstock::serve", "certificates or keys have changed, and are in force");
                }
            }
            Err(error) => {
                let error = error.to_string();
                if said.as_ref() != Some(&error) {
                    tracing::warn!(
                        target: "penstock::serve", error,
                        "what has changed of certificates and keys cannot be used: what was before stays in force"
                    );
                    said = Some(error);
                }
            }
        }
    }
}

async fn look(security: &Arc<Security>) -> Result<bool> {
    let security = Arc::clone(security);
    match tokio::task::spawn_blocking(move || security.reload()).await {
        Ok(outcome) => outcome,
        Err(error) => {
            Err(Error::with_source(ErrorKind::Internal, "reading certificates and keys failed", error))
        }
    }
}
