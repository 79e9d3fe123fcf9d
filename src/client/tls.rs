//! Encryption: which certificates are believed, which one is shown, which protocol is agreed on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::Host;
use super::io::Stream;
use super::trust::{Given, no_verifier, public_verifier, read_pem, unreadable};
use crate::error::{Error, ErrorKind, Result};

/// What is believed and shown over TLS. The file names are read when the client is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Whether the server's certificate must be valid for its name and signed by an authority that is believed.
    pub verify: bool,
    /// Authorities to believe instead of the public ones: a PEM file, or a directory of them as `openssl rehash` leaves it.
    pub ca_file: Option<PathBuf>,
    /// As `ca_file`, as data. Both together add up.
    pub ca_data: Option<Vec<u8>>,
    /// The client's own certificate and those between it and its authority, PEM.
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate, PEM, without a password; none where `cert_file` holds it, too.
    pub key_file: Option<PathBuf>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { verify: true, ca_file: None, ca_data: None, cert_file: None, key_file: None }
    }
}

/// Makes connections encrypted. What it needs for that is made once, on first use where it takes long.
pub(super) struct Tls {
    trust: Trust,
    identity: Option<Identity>,
    protocols: Vec<Vec<u8>>,
    provider: Arc<CryptoProvider>,
    configs: OnceCell<Configs>,
}

enum Trust {
    /// Read late: it takes milliseconds.
    Public,
    Given(Arc<dyn ServerCertVerifier>),
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

struct Configs {
    origin: TlsConnector,
    /// A server of gRPC, which speaks HTTP/2 and nothing else.
    grpc: TlsConnector,
    /// A proxy is verified as a server is, but is shown no certificate of the client's.
    proxy: TlsConnector,
}

/// Whom a handshake is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Server,
    GrpcServer,
    Proxy,
}

impl Tls {
    /// Reads the files that the settings name. `protocols` are those that the server may choose from, the dearest first.
    pub(super) fn new(settings: &TlsSettings, protocols: Vec<Vec<u8>>) -> Result<Self> {
        // Never the process's default: who embeds this library may have chosen another one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = settings.ca_file.is_some() || settings.ca_data.is_some();
        let trust = match (settings.verify, own) {
            (true, false) => Trust::Public,
            (true, true) => {
                let given = Given::read(settings.ca_file.as_deref(), settings.ca_data.as_deref())?;
                Trust::Given(given.verifier(&provider)?)
            }
            (false, false) => Trust::Given(no_verifier(&provider)),
            (false, true) => {
                let message = "verify is off, and authorities to verify with are given: choose one";
                return Err(Error::new(ErrorKind::Config, message));
            }
        };
        let identity = Identity::read(settings)?;
        let tls = Self { trust, identity, protocols, provider, configs: OnceCell::new() };
        if let Some(identity) = &tls.identity {
            // Tells now, not at the first connection, that a key does not fit.
            tls.config(no_verifier(&tls.provider), Some(identity))?;
        }
        Ok(tls)
    }

    /// Shakes hands with `peer`, known as `host`; `shown` is how errors call it.
    pub(super) async fn handshake(
        &self,
        peer: Peer,
        host: &Host,
        shown: &str,
        stream: Stream,
    ) -> Result<TlsStream<Stream>> {
        let configs = self.configs.get_or_try_init(|| self.configs()).await?;
        let name = match host {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|error| {
                Error::with_source(
                    ErrorKind::Config,
                    format!("{name:?} is no name that TLS can verify"),
                    error,
                )
            })?,
        };
        let connector = match peer {
            Peer::Server => &configs.origin,
            Peer::GrpcServer => &configs.grpc,
            Peer::Proxy => &configs.proxy,
        };
        connector.connect(name, stream).await.map_err(|error| {
            let message = match certificate_words(&error) {
                Some(words) => format!("the certificate of {shown} is not valid: {words}"),
                None => format!("the TLS handshake with {shown} failed: {}", failure_words(&error)),
            };
            Error::with_source(ErrorKind::ConnectFailed, message, error)
        })
    }

    async fn configs(&self) -> Result<Configs> {
        let verifier = match &self.trust {
            Trust::Given(verifier) => Arc::clone(verifier),
            Trust::Public => {
                let provider = Arc::clone(&self.provider);
                spawn_blocking(move || public_verifier(&provider)).await.map_err(|error| {
                    Error::with_source(ErrorKind::Internal, "reading the public authorities failed", error)
                })??
            }
        };
        let mut proxy = self.config(Arc::clone(&verifier), None)?;
        proxy.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut origin = self.config(verifier, self.identity.as_ref())?;
        origin.alpn_protocols.clone_from(&self.protocols);
        let mut grpc = origin.clone();
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Configs {
            origin: Arc::new(origin).into(),
            grpc: Arc::new(grpc).into(),
            proxy: Arc::new(proxy).into(),
        })
    }

    fn config(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        identity: Option<&Identity>,
    ) -> Result<ClientConfig> {
        let unusable =
            |error| Error::with_source(ErrorKind::Config, format!("TLS cannot be set up: {error}"), error);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| {
                    let message =
                        format!("the client certificate and its key cannot be used together: {error}");
                    Error::with_source(ErrorKind::Config, message, error)
                })?,
        };
        config.resumption = Resumption::in_memory_sessions(64);
        Ok(config)
    }
}

impl Identity {
    fn read(settings: &TlsSettings) -> Result<Option<Self>> {
        let Some(cert_file) = &settings.cert_file else {
            if settings.key_file.is_some() {
                return Err(Error::new(ErrorKind::Config, "a client key is given without its certificate"));
            }
            return Ok(None);
        };
        let chain = read_pem(&read(cert_file)?, &cert_file.display().to_string())?;
        if chain.is_empty() {
            let message = format!("{} holds no certificate in PEM form", cert_file.display());
            return Err(Error::new(ErrorKind::Config, message));
        }
        let key = read_key(settings.key_file.as_ref().unwrap_or(cert_file))?;
        Ok(Some(Self { chain, key }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| unreadable(&path.display().to_string(), error))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let data = read(path)?;
    PrivateKeyDer::from_pem_slice(&data).map_err(|error| {
        let shown = path.display();
        // `BEGIN ENCRYPTED PRIVATE KEY`, or the older `Proc-Type: 4,ENCRYPTED`.
        let message = if data.windows(b"ENCRYPTED".len()).any(|window| window == b"ENCRYPTED") {
            format!("the key in {shown} is encrypted: write it without its password, with 'openssl pkey'")
        } else {
            format!("{shown} holds no private key in PEM form")
        };
        Error::with_source(ErrorKind::Config, message, error)
    })
}

fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What is wrong with the other side's certificate, where that is why a connection failed.
fn certificate_words(error: &io::Error) -> Option<String> {
    match cause(error)? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("its authority is not known; give verify= the authority's file".to_owned())
        }
        // Another authority of the same name is known.
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => Some(
            "the authority that is known under its name did not sign it; give verify= the authority's file"
                .to_owned(),
        ),
        rustls::Error::InvalidCertificate(error) if error.to_string().contains("CaUsedAsEndEntity") => {
            Some("it signed itself; give verify= a file that holds it".to_owned())
        }
        rustls::Error::InvalidCertificate(error) => Some(error.to_string()),
        _ => None,
    }
}

/// Why a connection failed, in words, where TLS may be the reason: an alert of the server's can come as late as with its
/// first answer.
pub fn failure_words(error: &io::Error) -> String {
    match cause(error) {
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => demanded(),
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("the other side refused with the TLS alert {alert:?}")
        }
        Some(rustls::Error::InvalidMessage(_)) => "the other side does not speak TLS".to_owned(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other side closed the connection".to_owned()
        }
        // On its way through HTTP/2 it became a text.
        None if error.to_string().contains("CertificateRequired") => demanded(),
        None => super::connect::words(error),
    }
}

fn demanded() -> String {
    "the other side demands a client certificate; give cert=".to_owned()
}
