//! What is counted of certificates and keys.

use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFiles {
    files: &'static str,
    outcome: &'static str,
}

/// The counters of a door that asks for certificates or keys.
#[derive(Debug, Clone)]
pub struct SecurityMetrics {
    handshakes: Family<ByOutcome, Counter>,
    reloads: Family<ByFiles, Counter>,
    expiry: Gauge,
}

impl SecurityMetrics {
    /// Counters by their names in `registry`; those of TLS where it is `encrypted`.
    pub fn new(registry: &Registry, encrypted: bool) -> Self {
        let counted =
            Self { handshakes: Family::default(), reloads: Family::default(), expiry: Gauge::default() };
        let names = &mut registry.names();
        names.register(
            "security_reloads",
            "Files of certificates or keys that had changed, and could be used or not",
            counted.reloads.clone(),
        );
        if encrypted {
            names.register("tls_handshakes", "TLS handshakes by how they ended", counted.handshakes.clone());
            names.register(
                "tls_certificate_expiry_timestamp_seconds",
                "When the server's certificate expires, in seconds since 1970",
                counted.expiry.clone(),
            );
        }
        counted
    }

    /// Counts a handshake.
    pub fn shook_hands(&self, went_well: bool) {
        self.handshakes.get_or_create(&ByOutcome { outcome: outcome(went_well) }).inc();
    }

    /// Counts files that had changed.
    pub fn reloaded(&self, files: &'static str, went_well: bool) {
        self.reloads.get_or_create(&ByFiles { files, outcome: outcome(went_well) }).inc();
    }

    /// Says when the certificate expires.
    pub fn set_expiry(&self, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.expiry.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    }
}

fn outcome(went_well: bool) -> &'static str {
    if went_well { "ok" } else { "failed" }
}
