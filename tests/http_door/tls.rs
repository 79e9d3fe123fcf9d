//! Encrypted connections: who comes in, with which certificate, and by which protocol.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use penstock::error::ErrorKind;
use penstock::metrics::Registry;
use penstock::serve::{HttpSettings, Security, SecuritySettings, TlsFiles};
use rcgen::DnType;
use rustls::ClientConfig;

use crate::harness::{
    Authority, Certificates, Door, PATIENCE, Setup, Signed, Wire, bare, body, infer, trusting, until,
};

fn open(security: SecuritySettings) -> Door {
    Door::with(Setup { security, ..Setup::default() })
}

#[test]
fn requests_are_answered_as_in_the_clear_whatever_the_client_offers() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    for protocols in [&["http/1.1"][..], &[], &["spdy/1", "http/1.1"]] {
        let mut wire = Wire::encrypted(door.address(), &certificates.client(protocols));
        for number in 0..50_u8 {
            assert_eq!(wire.ask(infer(&[f32::from(number)])).numbers(), [f64::from(number) * 2.0]);
        }
        assert_eq!(wire.ask(bare("GET", "/v2/health/live")).status, 200);
    }
    assert!((door.metric("penstock_tls_handshakes_total{outcome=\"ok\"}") - 3.0).abs() < 0.1);
    assert!(door.metric("penstock_tls_certificate_expiry_timestamp_seconds") > 1e9);
}

#[test]
fn requests_of_one_record_are_answered_in_their_order() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    let ahead: String = (0..20_u8).map(|number| infer(&[f32::from(number)])).collect();
    wire.send(ahead);
    for number in 0..20_u8 {
        assert_eq!(wire.answer().numbers(), [f64::from(number) * 2.0]);
    }
}

#[test]
fn large_bodies_and_answers_of_many_records_come_whole() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let numbers: Vec<f32> =
        (0..200_000_u32).map(|number| f32::from(u16::try_from(number % 60_000).unwrap())).collect();
    let shape = numbers.len();
    let text =
        format!(r#"{{"inputs":[{{"name":"x","shape":[1,{shape}],"datatype":"FP32","data":{numbers:?}}}]}}"#);
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&["http/1.1"]));
    for _ in 0..3 {
        let answer = wire.ask(crate::harness::post_with("", text.as_bytes())).numbers();
        assert_eq!(answer.len(), shape);
        assert!(
            answer
                .iter()
                .zip(&numbers)
                .all(|(answer, number)| (*answer - f64::from(*number) * 2.0).abs() < 1e-6)
        );
    }
}

#[test]
fn older_versions_than_one_and_two_are_not_spoken() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificates.authority.der()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut wire = Wire::encrypted(door.address(), &Arc::new(config));
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
    // A ClientHello of TLS 1.1, with one suite of its time.
    let hello = [&[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let mut old = TcpStream::connect(door.address()).unwrap();
    old.set_read_timeout(Some(PATIENCE)).unwrap();
    old.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&0x15), "an alert, and nothing else: {answer:?}");
}

#[test]
fn who_speaks_in_the_clear_is_told_so_in_the_clear() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    for request in [infer(&[1.0]), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()] {
        let mut wire = Wire::open(door.address());
        wire.send(request);
        let answer = wire.answer();
        answer.assert_last_words(400);
        assert!(answer.error().contains("https://"), "{}", answer.error());
        assert!(wire.is_ended());
    }
    assert!(door.seen().is_empty());
    assert!((door.metric("penstock_tls_handshakes_total{outcome=\"failed\"}") - 2.0).abs() < 0.1);
}

#[test]
fn a_client_needs_a_certificate_where_one_is_asked_for_and_is_noted_by_its_name() {
    let certificates = Certificates::new();
    let door = open(certificates.mutual());
    let authority = &certificates.authority;
    let people = [(DnType::OrganizationName, "Example"), (DnType::CommonName, "team a")];
    let person = authority.client_named(&people, "spiffe://example/x");
    let service = authority.client_named(&[], "spiffe://example/b");
    for (shown, name) in [(&person, "CN=team a,O=Example"), (&service, "spiffe://example/b")] {
        let mut wire = Wire::encrypted(door.address(), &trusting(authority, Some(shown), &[]));
        assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
        let noted = door.noted.0.lock().pop().unwrap();
        assert_eq!(noted.client.as_deref(), Some(name));
    }
    let stranger = Authority::new().client();
    for shown in [None, Some(&stranger)] {
        let mut wire = Wire::encrypted(door.address(), &trusting(authority, shown, &[]));
        wire.try_send(infer(&[3.0]));
        assert!(refused(&mut wire), "somebody came in");
    }
    assert_eq!(door.seen(), [1.0, 1.0]);
}

/// True where the server says by an alert that it wants nothing of this client.
fn refused(wire: &mut Wire) -> bool {
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wire.try_answer().is_none()));
    read.unwrap_or(true)
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused_in_the_handshake() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&["spdy/3"]));
    let error = wire.handshake().unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn bytes_that_only_begin_as_a_handshake_end_the_connection_and_nothing_else() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let mut state = 7_u64;
    for round in 0..60_usize {
        let mut bytes = vec![0x16, 3, 1];
        if round % 2 == 0 {
            // A record of a length that may be.
            bytes.extend([0x10, 0]);
        }
        for _ in 0..4_200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((state >> 33).to_le_bytes()[0]);
        }
        let mut wire = TcpStream::connect(door.address()).unwrap();
        wire.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = wire.write_all(&bytes);
        // Where the bytes begin a longer record, the rest of it does not come.
        let _ = wire.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = wire.read_to_end(&mut answer);
        assert!(answer.len() < 100 && !answer.starts_with(b"HTTP"), "{answer:?}");
    }
    until("no connection was left", || door.inside.connections() == 0);
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
}

#[test]
fn a_head_that_is_too_large_is_refused_in_words() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    let many = "a: b\r\n".repeat(101);
    wire.send(format!("GET /v2 HTTP/1.1\r\nhost: t\r\n{many}\r\n"));
    wire.answer().assert_last_words(431);
    assert!(wire.is_ended());
}

#[test]
fn a_connection_too_many_is_closed_without_a_handshake() {
    let certificates = Certificates::new();
    let http = HttpSettings { max_connections: 1, ..HttpSettings::default() };
    let door = Door::with(Setup { http, security: certificates.settings(), ..Setup::default() });
    let client = certificates.client(&[]);
    let mut first = Wire::encrypted(door.address(), &client);
    assert_eq!(first.ask(infer(&[1.0])).numbers(), [2.0]);
    let mut second = Wire::encrypted(door.address(), &client);
    assert!(second.handshake().is_err());
    assert_eq!(door.refused("max_connections"), 1);
    assert_eq!(first.ask(infer(&[2.0])).numbers(), [4.0]);
}

/// The subject of the certificate that a new connection is shown.
fn shown(door: &Door, authority: &Authority) -> Vec<u8> {
    let mut wire = Wire::encrypted(door.address(), &trusting(authority, None, &[]));
    wire.handshake().unwrap();
    wire.tls().peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_a_bad_one_to_nobody() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let authority = &certificates.authority;
    let client = certificates.client(&[]);
    let mut lasting = Wire::encrypted(door.address(), &client);
    assert_eq!(lasting.ask(infer(&[1.0])).numbers(), [2.0]);
    let first = shown(&door, authority);
    assert!(!door.security.reload().unwrap(), "nothing has changed");
    certificates.write(&authority.server(&["127.0.0.1"]));
    assert!(door.security.reload().unwrap());
    let second = shown(&door, authority);
    assert_ne!(first, second);
    assert_eq!(lasting.ask(infer(&[2.0])).numbers(), [4.0], "who is connected stays so");
    let other = authority.server(&["127.0.0.1"]);
    let mismatched = Signed { certificate: other.certificate, key: authority.server(&["x"]).key };
    let expired = authority.expired(&["127.0.0.1"]);
    let none = Signed { certificate: String::new(), key: String::new() };
    for (bad, why) in [(mismatched, "together"), (expired, "has expired"), (none, "no certificate")] {
        certificates.write(&bad);
        for _ in 0..2 {
            let error = door.security.reload().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(why), "{error}");
        }
        assert_eq!(shown(&door, authority), second);
    }
    fs::remove_file(certificates.path("key.pem")).unwrap();
    assert!(door.security.reload().unwrap_err().message().contains("key.pem cannot be read"));
    assert_eq!(shown(&door, authority), second);
    certificates.write(&authority.server(&["127.0.0.1"]));
    assert!(door.security.reload().unwrap());
    assert_ne!(shown(&door, authority), second);
    assert!((door.metric("penstock_security_reloads_total{files=\"tls\",outcome=\"ok\"}") - 2.0).abs() < 0.1);
    assert!(
        (door.metric("penstock_security_reloads_total{files=\"tls\",outcome=\"failed\"}") - 7.0).abs() < 0.1
    );
}

#[test]
fn files_are_looked_at_by_themselves() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    door.security.keep_fresh(Duration::from_millis(20), &penstock::runtime::handle().unwrap());
    let first = shown(&door, &certificates.authority);
    // First the one, and later the other: what does not fit is not taken up.
    let next = certificates.authority.server(&["127.0.0.1"]);
    fs::write(certificates.path("cert.pem"), &next.certificate).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(shown(&door, &certificates.authority), first);
    fs::write(certificates.path("key.pem"), &next.key).unwrap();
    until("the new certificate was shown", || shown(&door, &certificates.authority) != first);
}

#[test]
fn files_that_do_not_hold_what_they_should_are_told_by_setting_and_file() {
    let certificates = Certificates::new();
    let file = |name: &str, content: &str| {
        let path = certificates.path(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (empty, large) = (file("empty", ""), file("large", &"x".repeat(2 << 20)));
    let encrypted = file(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let files = || certificates.files();
    for (tls, why) in [
        (TlsFiles { cert: certificates.path("missing"), ..files() }, "missing cannot be read"),
        (TlsFiles { cert: empty.clone(), ..files() }, "tls_cert: "),
        (TlsFiles { cert: large, ..files() }, "larger than 1048576 bytes"),
        (TlsFiles { key: Some(empty.clone()), ..files() }, "tls_key: "),
        (TlsFiles { key: Some(encrypted), ..files() }, "without its password"),
        (TlsFiles { key: None, ..files() }, "holds no private key"),
        (TlsFiles { cert: broken.clone(), ..files() }, "tls_cert"),
        (TlsFiles { client_ca: Some(empty), ..files() }, "tls_client_ca: "),
        (TlsFiles { client_ca: Some(broken), ..files() }, "tls_client_ca cannot be used"),
    ] {
        let settings = SecuritySettings { tls: Some(tls), ..SecuritySettings::default() };
        let error = Security::open(settings, &Registry::new()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(why), "{error}");
    }
    let both = file("both", &(certificates.authority.server(&["127.0.0.1"]).key + "\n"));
    let signed = certificates.authority.server(&["127.0.0.1"]);
    fs::write(&both, signed.key + &signed.certificate).unwrap();
    let settings = TlsFiles { cert: both, key: None, client_ca: None };
    let door = open(SecuritySettings { tls: Some(settings), ..SecuritySettings::default() });
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    assert_eq!(wire.ask(crate::harness::post(crate::harness::INFER, &body(&[4.0]))).numbers(), [8.0]);
}
