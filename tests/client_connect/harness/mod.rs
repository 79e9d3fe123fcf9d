//! Listeners that answer, authorities that sign, proxies that pass on.

#[allow(dead_code, reason = "the doors' tests use all of it")]
mod authority;
mod http2;
mod listener;
mod proxy;

pub(crate) use authority::{Authority, Signed};
pub(crate) use http2::{Server, collect, connect, get, open, raw};
pub(crate) use listener::{Listener, exchange, server_config};
pub(crate) use proxy::{Manner, RunningProxy};

use std::future::Future;
use std::time::Duration;

use penstock::client::{ConnectSettings, Connected, Dialer, Origin, TlsSettings};
use penstock::error::{Error, Result};

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails where it never comes.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it never came")
}

pub(crate) async fn dial(settings: ConnectSettings, url: &str) -> Result<Connected> {
    soon(Dialer::new(settings)?.dial(&Origin::parse(url)?)).await
}

/// Dials and fails; whatever is said must not tell secrets.
pub(crate) async fn refused(settings: ConnectSettings, url: &str) -> Error {
    let error = dial(settings, url).await.map(|_| ()).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    error
}

/// Settings that believe one authority.
pub(crate) fn believing(authority: &Authority) -> ConnectSettings {
    with_tls(TlsSettings { ca_data: Some(authority.pem().into_bytes()), ..TlsSettings::default() })
}

pub(crate) fn with_tls(tls: TlsSettings) -> ConnectSettings {
    ConnectSettings { tls, ..ConnectSettings::default() }
}
