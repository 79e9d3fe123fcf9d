//! Encryption: the certificate that is shown, the clients' that are believed, and the handshake.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientCertVerifierBuilder, ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto};
use tokio::io::AsyncBufRead;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::files::Made;
use super::identity::Identity;
use super::{Security, TlsFiles};
use crate::error::{Error, ErrorKind, Result};

/// How a handshake begins: the type of its record (RFC 8446, section 5.1). No method of HTTP does.
const HANDSHAKE: u8 = 0x16;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What connections are encrypted with.
pub(in crate::serve) struct Tls {
    acceptor: TlsAcceptor,
    /// The end of the time for which the server's certificate is valid.
    pub(super) not_after: SystemTime,
}

/// A connection after its handshake.
pub(in crate::serve) struct Secured {
    pub(in crate::serve) stream: Box<TlsStream<TcpStream>>,
    pub(in crate::serve) is_http2: bool,
    /// Whom the client's certificate names, where one was asked for.
    pub(in crate::serve) client: Option<Arc<str>>,
}

/// Why there is no connection.
pub(in crate::serve) enum Unsecured {
    /// The other side does not speak TLS, and may be told so in the clear.
    InTheClear(TcpStream),
    /// The handshake failed, or the other side left.
    Failed(io::Error),
}

impl Made for Tls {
    type Source = TlsFiles;

    fn files(source: &TlsFiles) -> Vec<&Path> {
        [Some(&source.cert), source.key.as_ref(), source.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(std::path::PathBuf::as_path)
            .collect()
    }

    fn make(source: &TlsFiles, held: &[Vec<u8>], anew: bool) -> Result<Self> {
        let mut held = held.iter();
        let cert = held.next().map(Vec::as_slice).unwrap_or_default();
        let key = source.key.as_ref().and_then(|_| held.next()).map_or(cert, Vec::as_slice);
        let authorities = held.next().map(Vec::as_slice);
        let chain = certificates("tls_cert", &source.cert, cert)?;
        let key = private_key(source.key.as_ref().unwrap_or(&source.cert), key)?;
        let leaf = chain.first().map(Identity::of).unwrap_or_default();
        check_dates(&leaf, &source.cert, anew)?;
        let authorities = match (&source.client_ca, authorities) {
            (Some(path), Some(held)) => certificates("tls_client_ca", path, held)?,
            _ => Vec::new(),
        };
        let config = config(chain, key, authorities)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            not_after: leaf.not_after.unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn certificates(setting: &str, path: &Path, held: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(held).collect();
    let read = read.map_err(|error| {
        Error::with_source(ErrorKind::Config, format!("{setting}: {shown} cannot be read: {error}"), error)
    })?;
    if read.is_empty() {
        return Err(wrong(format!("{setting}: {shown} holds no certificate in PEM form")));
    }
    Ok(read)
}

fn private_key(path: &Path, held: &[u8]) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(held).map_err(|error| {
        let shown = path.display();
        // `BEGIN ENCRYPTED PRIVATE KEY`, or the older `Proc-Type: 4,ENCRYPTED`.
        let message = if held.windows(b"ENCRYPTED".len()).any(|window| window == b"ENCRYPTED") {
            format!(
                "tls_key: the key in {shown} is encrypted: write it without its password, with 'openssl pkey'"
            )
        } else {
            format!("tls_key: {shown} holds no private key in PEM form")
        };
        Error::with_source(ErrorKind::Config, message, error)
    })
}

/// A certificate whose time is over replaces none that clients still believe. A server that starts with one says so:
/// to serve those who do not look is better than nobody.
fn check_dates(leaf: &Identity, path: &Path, anew: bool) -> Result<()> {
    let now = SystemTime::now();
    let (over, early) =
        (leaf.not_after.is_some_and(|end| end < now), leaf.not_before.is_some_and(|start| start > now));
    if !over && !early {
        return Ok(());
    }
    let why = if over { "has expired" } else { "is not valid yet" };
    if anew {
        return Err(wrong(format!("tls_cert: the certificate in {} {why}", path.display())));
    }
    tracing::warn!(target: "penstock::serve", path = %path.display(), "the certificate {why}");
    Ok(())
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<ServerConfig> {
    let unusable = |error: rustls::Error| {
        Error::with_source(
            ErrorKind::Config,
            format!("tls_cert and tls_key cannot be used together: {error}"),
            error,
        )
    };
    // Never the process's default: who embeds this library may have chosen another one.
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = if authorities.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| wrong(format!("tls_client_ca cannot be used: {error}")))?;
        }
        let verifier: ClientCertVerifierBuilder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier =
            verifier.build().map_err(|error| wrong(format!("tls_client_ca cannot be used: {error}")))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(config)
}

impl Security {
    /// True where connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Shakes hands, and finds out which protocol is spoken: by what was agreed on, or else by the first bytes.
    ///
    /// # Cancellation
    /// The connection is closed.
    pub(in crate::serve) async fn handshake(
        &self,
        stream: TcpStream,
        preface: &[u8],
    ) -> std::result::Result<Secured, Unsecured> {
        let Some(tls) = &self.tls else { return Err(Unsecured::InTheClear(stream)) };
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) => return Err(Unsecured::Failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) if first != [HANDSHAKE] => return Err(Unsecured::InTheClear(stream)),
            Ok(_) => {}
            Err(error) => return Err(Unsecured::Failed(error)),
        }
        let acceptor = tls.held().acceptor.clone();
        let mut stream = Box::new(acceptor.accept(stream).await.map_err(Unsecured::Failed)?);
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let client = certificate.and_then(|certificate| Identity::of(certificate).name);
        let is_http2 = match session.alpn_protocol() {
            Some(protocol) => protocol == HTTP2,
            None => begins_with(&mut stream, preface).await.map_err(Unsecured::Failed)?,
        };
        Ok(Secured { stream, is_http2, client })
    }

    /// Counts a handshake.
    pub(in crate::serve) fn shook_hands(&self, went_well: bool) {
        if let Some(metrics) = &self.metrics {
            metrics.shook_hands(went_well);
        }
    }
}

/// Whether that is what comes first; it is left where it is. Where less than that comes in one piece, it is not.
async fn begins_with(stream: &mut TlsStream<TcpStream>, preface: &[u8]) -> io::Result<bool> {
    let mut stream = pin!(stream);
    poll_fn(|context| stream.as_mut().poll_fill_buf(context).map_ok(|first| first.starts_with(preface))).await
}
