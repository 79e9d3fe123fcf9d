//! Whose certificates are believed: the public authorities', those of given ones, or anyone's.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, ErrorKind, Result};

/// The variables that `OpenSSL`, and what is built on it, reads; rustls-native-certs honours them.
const ROOT_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The public authorities, read once for all clients while the variables stay as they are.
static PUBLIC: Mutex<Option<Public>> = Mutex::new(None);

struct Public {
    variables: [Option<OsString>; 2],
    roots: Arc<RootCertStore>,
}

/// Authorities that take the place of the public ones.
pub(super) struct Given {
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

impl Given {
    /// Those of a PEM file or of a directory of such files, as `openssl rehash` leaves it, and those of PEM data.
    pub(super) fn read(file: Option<&Path>, data: Option<&[u8]>) -> Result<Self> {
        let mut given = Self { roots: RootCertStore::empty(), certificates: Vec::new() };
        if let Some(path) = file {
            given.add(read_path(path)?, &path.display().to_string())?;
        }
        if let Some(data) = data {
            given.add(read_pem(data, "the CA data")?, "the CA data")?;
        }
        Ok(given)
    }

    fn add(&mut self, certificates: Vec<CertificateDer<'static>>, origin: &str) -> Result<()> {
        if certificates.is_empty() {
            return Err(Error::new(ErrorKind::Config, format!("{origin} holds no certificate in PEM form")));
        }
        for certificate in certificates {
            self.roots.add(certificate.clone()).map_err(|error| unreadable(origin, error))?;
            self.certificates.push(certificate);
        }
        Ok(())
    }

    pub(super) fn verifier(self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        let chain = chain_verifier(Arc::new(self.roots), provider)?;
        Ok(Arc::new(GivenVerifier { chain, certificates: self.certificates }))
    }
}

/// Believes the public authorities: those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or else the system's, or else,
/// on a system without any, Mozilla's as they were built in. Reads files.
pub(super) fn public_verifier(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    Ok(chain_verifier(public_roots()?, provider)?)
}

/// Believes every certificate.
pub(super) fn no_verifier(provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(NoVerifier(Arc::clone(provider)))
}

fn chain_verifier(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Config, "the authorities cannot be used", error))
}

fn public_roots() -> Result<Arc<RootCertStore>> {
    let variables = ROOT_VARIABLES.map(|name| env::var_os(name).filter(|value| !value.is_empty()));
    if let Some(public) = PUBLIC.lock().as_ref().filter(|public| public.variables == variables) {
        return Ok(Arc::clone(&public.roots));
    }
    // Not under the lock, which a fork might leave locked for good.
    let roots = Arc::new(read_public_roots(variables.iter().any(Option::is_some))?);
    *PUBLIC.lock() = Some(Public { variables, roots: Arc::clone(&roots) });
    Ok(roots)
}

fn read_public_roots(chosen: bool) -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems hold a few certificates of old that cannot be read: they are no reason to believe none.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    if chosen {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        let message = format!("no certificate can be read where SSL_CERT_FILE or SSL_CERT_DIR says{why}");
        return Err(Error::new(ErrorKind::Config, message));
    }
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(roots)
}

fn read_path(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = path.display().to_string();
    if !path.is_dir() {
        let data = std::fs::read(path).map_err(|error| unreadable(&shown, error))?;
        return read_pem(&data, &shown);
    }
    let found = rustls_native_certs::load_certs_from_paths(None, Some(path));
    match found.errors.into_iter().next() {
        Some(error) if found.certs.is_empty() => Err(unreadable(&shown, error)),
        _ => Ok(found.certs),
    }
}

pub(super) fn read_pem(data: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(data)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| unreadable(origin, error))
}

pub(super) fn unreadable(origin: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Config, format!("{origin} cannot be read: {error}"), error)
}

/// Believes what given authorities signed, and the given certificates themselves. The latter is what OpenSSL does with a
/// certificate that signed itself: `openssl req -x509` marks it as an authority's, and as such rustls would refuse it
/// from a server.
struct GivenVerifier {
    chain: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for GivenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenVerifier")
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}

impl GivenVerifier {
    fn is_given(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|given| given == certificate)
    }
}

impl ServerCertVerifier for GivenVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        match self.chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // Its dates have been looked at by then, its name has not.
            Err(error) if is_authority(&error) && self.is_given(certificate) => {
                let parsed = ParsedCertificate::try_from(certificate)?;
                rustls::client::verify_server_name(&parsed, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Whether a certificate was refused because it is an authority's own. webpki's error has no type that rustls shows.
fn is_authority(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other))
        if other.to_string().contains("CaUsedAsEndEntity"))
}

/// Where nothing is verified, the signatures of the handshake prove nothing either; not to look at them admits old
/// certificates that rustls cannot read.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
