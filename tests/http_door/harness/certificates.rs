//! Certificates of a server, in files, and clients that believe them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use penstock::serve::{SecuritySettings, TlsFiles};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use super::{Authority, Signed};

/// The files of a server, and the authority that signed them.
pub(crate) struct Certificates {
    pub(crate) authority: Authority,
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let made = Self { authority: Authority::new(), folder: tempfile::tempdir().unwrap() };
        made.write(&made.authority.server(&["127.0.0.1"]));
        fs::write(made.path("ca.pem"), made.authority.pem()).unwrap();
        made
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another certificate in the place of the server's.
    pub(crate) fn write(&self, signed: &Signed) {
        fs::write(self.path("cert.pem"), &signed.certificate).unwrap();
        fs::write(self.path("key.pem"), &signed.key).unwrap();
    }

    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles { cert: self.path("cert.pem"), key: Some(self.path("key.pem")), client_ca: None }
    }

    /// The settings of a server with these files.
    pub(crate) fn settings(&self) -> SecuritySettings {
        SecuritySettings { tls: Some(self.files()), ..SecuritySettings::default() }
    }

    /// As [`settings`](Self::settings), of one that asks clients for a certificate of the same authority.
    pub(crate) fn mutual(&self) -> SecuritySettings {
        let tls = TlsFiles { client_ca: Some(self.path("ca.pem")), ..self.files() };
        SecuritySettings { tls: Some(tls), ..SecuritySettings::default() }
    }

    /// A client that believes the authority and offers these protocols.
    pub(crate) fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        trusting(&self.authority, None, protocols)
    }
}

/// A client that believes an authority, shows a certificate and offers protocols.
pub(crate) fn trusting(
    authority: &Authority,
    shown: Option<&Signed>,
    protocols: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(signed) => builder.with_client_auth_cert(signed.chain(), signed.private_key()).unwrap(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
