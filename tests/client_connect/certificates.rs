//! Certificates: whose are believed, and which are shown.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use penstock::client::{ConnectSettings, Dialer, Stream, TlsSettings};
use penstock::error::{Error, ErrorKind};

use crate::harness::{Authority, Listener, Signed, believing, dial, exchange, refused, with_tls};

fn data(pem: &str) -> ConnectSettings {
    with_tls(TlsSettings { ca_data: Some(pem.as_bytes().to_vec()), ..TlsSettings::default() })
}

fn invalid(error: &Error, why: &str) {
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    let words = error.to_string();
    assert!(words.starts_with("the certificate of ") && words.contains(why), "{words}");
}

#[tokio::test]
async fn an_authority_is_believed_from_data_a_file_and_a_directory() {
    let authority = Authority::new();
    let listener = Listener::tls(&authority.server(&["127.0.0.1", "localhost"]), &[]).await;
    let folder = tempfile::tempdir().unwrap();
    // Named as `openssl rehash` does it.
    let file = folder.path().join("0123abcd.0");
    fs::write(&file, format!("Some words first.\n{}", authority.pem())).unwrap();
    let from = |path: PathBuf| with_tls(TlsSettings { ca_file: Some(path), ..TlsSettings::default() });
    let by_name = format!("https://localhost:{}", listener.address.port());
    for settings in [believing(&authority), from(file), from(folder.path().to_owned())] {
        for url in [&by_name, &listener.url("https")] {
            let mut connected = dial(settings.clone(), url).await.unwrap();
            assert!(matches!(connected.stream, Stream::Tls(_)));
            assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
        }
    }
}

#[tokio::test]
async fn given_authorities_take_the_place_of_others() {
    let (authority, other) = (Authority::new(), Authority::new());
    let listener = Listener::tls(&authority.server(&["127.0.0.1"]), &[]).await;
    for settings in [believing(&other), ConnectSettings::default()] {
        let error = refused(settings, &listener.url("https")).await;
        invalid(&error, "give verify= the authority's file");
    }
    let both = TlsSettings {
        ca_data: Some((other.pem() + &authority.pem()).into_bytes()),
        ..TlsSettings::default()
    };
    dial(with_tls(both), &listener.url("https")).await.unwrap();
}

#[tokio::test]
async fn a_wrong_name_and_a_date_that_has_passed_are_told() {
    let authority = Authority::new();
    let listener = Listener::tls(&authority.server(&["other.example"]), &[]).await;
    invalid(&refused(believing(&authority), &listener.url("https")).await, "other.example");
    let listener = Listener::tls(&authority.expired(&["127.0.0.1"]), &[]).await;
    invalid(&refused(believing(&authority), &listener.url("https")).await, "expired");
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_believed_where_it_is_given() {
    for marked in [true, false] {
        let signed = Signed::by_itself(&["127.0.0.1"], marked);
        let listener = Listener::tls(&signed, &[]).await;
        dial(data(&signed.certificate), &listener.url("https")).await.unwrap();
        let other = Signed::by_itself(&["127.0.0.1"], marked);
        invalid(&refused(data(&other.certificate), &listener.url("https")).await, "verify=");
        invalid(&refused(ConnectSettings::default(), &listener.url("https")).await, "verify=");
        // Its name counts all the same.
        let misnamed = Signed::by_itself(&["other.example"], marked);
        let listener = Listener::tls(&misnamed, &[]).await;
        invalid(&refused(data(&misnamed.certificate), &listener.url("https")).await, "other.example");
    }
}

#[tokio::test]
async fn without_verification_any_certificate_will_do() {
    let unverified = with_tls(TlsSettings { verify: false, ..TlsSettings::default() });
    let authority = Authority::new();
    for signed in [
        authority.expired(&["127.0.0.1"]),
        authority.server(&["other.example"]),
        Signed::by_itself(&["x"], true),
    ] {
        let listener = Listener::tls(&signed, &[]).await;
        let mut connected = dial(unverified.clone(), &listener.url("https")).await.unwrap();
        assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_it_is_demanded() {
    let authority = Authority::new();
    let listener = Listener::demanding(&authority.server(&["127.0.0.1"]), &authority).await;
    let folder = tempfile::tempdir().unwrap();
    let own = authority.client();
    let (cert, key, both) =
        (folder.path().join("cert.pem"), folder.path().join("key.pem"), folder.path().join("both.pem"));
    fs::write(&cert, &own.certificate).unwrap();
    fs::write(&key, &own.key).unwrap();
    fs::write(&both, own.key + &own.certificate).unwrap();
    for (cert_file, key_file) in [(cert, Some(key)), (both, None)] {
        let mut settings = believing(&authority);
        settings.tls.cert_file = Some(cert_file);
        settings.tls.key_file = key_file;
        let mut connected = dial(settings, &listener.url("https")).await.unwrap();
        assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
    }
    // The alert comes after the client's side of the handshake is done (RFC 8446, section 4.4.2.4).
    let mut connected = dial(believing(&authority), &listener.url("https")).await.unwrap();
    let error = exchange(&mut connected.stream, "you").await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    assert_eq!(
        penstock::client::failure_words(&error),
        "the other side demands a client certificate; give cert="
    );
}

#[test]
fn files_that_do_not_hold_what_they_should_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        Some(path)
    };
    let authority = Authority::new();
    let (one, other) = (authority.client(), authority.client());
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let (cert, key) = (file("cert", &one.certificate), file("key", &one.key));
    let (wrong_key, empty) = (file("other", &other.key), file("empty", ""));
    let missing = Some(folder.path().join("missing"));
    let hollow = Some(folder.path().join("hollow"));
    fs::create_dir(hollow.as_ref().unwrap()).unwrap();
    let base = TlsSettings::default;
    for (tls, why) in [
        (TlsSettings { ca_file: missing.clone(), ..base() }, "missing cannot be read"),
        (TlsSettings { ca_file: empty.clone(), ..base() }, "no certificate"),
        (TlsSettings { ca_file: hollow, ..base() }, "no certificate"),
        (TlsSettings { ca_data: Some(b"words".to_vec()), ..base() }, "no certificate"),
        (TlsSettings { verify: false, ca_file: cert.clone(), ..base() }, "verify is off"),
        (TlsSettings { cert_file: missing, ..base() }, "missing cannot be read"),
        (TlsSettings { cert_file: empty.clone(), key_file: key.clone(), ..base() }, "no certificate"),
        (TlsSettings { cert_file: cert.clone(), key_file: empty, ..base() }, "no private key"),
        (TlsSettings { cert_file: cert.clone(), ..base() }, "no private key"),
        (TlsSettings { cert_file: cert.clone(), key_file: file("enc", encrypted), ..base() }, "is encrypted"),
        (TlsSettings { cert_file: cert, key_file: wrong_key, ..base() }, "cannot be used together"),
        (TlsSettings { key_file: key, ..base() }, "without its certificate"),
    ] {
        let error = Dialer::new(with_tls(tls)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.to_string().contains("BEGIN"), "{error}");
    }
}

/// Variables of the environment are those of a whole process: the dial happens in another one.
#[tokio::test]
async fn ssl_cert_file_takes_the_place_of_the_systems_authorities() {
    let authority = Authority::new();
    let listener = Listener::tls(&authority.server(&["127.0.0.1"]), &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorities.pem");
    fs::write(&file, authority.pem()).unwrap();
    let (url, missing) = (listener.url("https"), folder.path().join("missing.pem"));
    for (path, expected) in [(file, ""), (missing, "no certificate can be read where SSL_CERT_FILE")] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "certificates::dials_by_the_environment", "--ignored"])
            .env("PENSTOCK_TEST_URL", &url)
            .env("PENSTOCK_TEST_EXPECTED", expected)
            .env("SSL_CERT_FILE", path)
            .env_remove("SSL_CERT_DIR");
        let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
    }
}

#[tokio::test]
#[ignore = "the test above runs it in a process of its own"]
async fn dials_by_the_environment() {
    let variable = |name| std::env::var(name).unwrap();
    let (url, expected) = (variable("PENSTOCK_TEST_URL"), variable("PENSTOCK_TEST_EXPECTED"));
    let words = dial(ConnectSettings::default(), &url).await.err().map(|error| error.to_string());
    if expected.is_empty() {
        assert_eq!(words, None);
    } else {
        assert!(words.unwrap().starts_with(&expected));
    }
}
