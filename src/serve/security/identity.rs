//! Whom a certificate names.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::serve::access::fit_for_a_log;

/// What of a certificate people want to know. Whether it is to be believed has been found out before.
#[derive(Debug, Default)]
pub(super) struct Identity {
    /// The subject (RFC 4514: `CN=client,O=Example`), or else the first other name: a URI as SPIFFE has it, or a host.
    pub(super) name: Option<Arc<str>>,
    pub(super) not_before: Option<SystemTime>,
    pub(super) not_after: Option<SystemTime>,
}

impl Identity {
    /// Nothing, where the certificate cannot be read.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok(certificate) = Certificate::from_der(certificate) else { return Self::default() };
        let signed = certificate.tbs_certificate();
        let subject = signed.subject();
        let name = if subject.is_empty() { other_name(&certificate) } else { Some(subject.to_string()) };
        Self {
            name: name.map(|name| fit_for_a_log(&name).into()),
            not_before: Some(signed.validity().not_before.to_system_time()),
            not_after: Some(signed.validity().not_after.to_system_time()),
        }
    }
}

fn other_name(certificate: &Certificate) -> Option<String> {
    let (_, names) = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok()??;
    let known = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(name)
        | GeneralName::DnsName(name)
        | GeneralName::Rfc822Name(name) => Some(name.to_string()),
        _ => None,
    };
    names.0.iter().find_map(known)
}
