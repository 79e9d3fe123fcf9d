//! Calls that go well: what the server is told, what comes back, and over which connection.

use std::time::Duration;

use http::Version;
use penstock::client::{ConnectSettings, Http2Choice, Http2Settings, Protocol, Timeouts, TlsSettings};
use penstock::error::ErrorKind;
use penstock::wire::grpc::{Code, parse_timeout};

use crate::answers::{answer, echo, failure, framed, head, status};
use crate::asking::*;
use crate::server::{Server, Step};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

#[tokio::test]
async fn a_call_brings_its_message_and_gets_one_back() {
    let server = Server::start(|_| {
        let fields = [("content-type", "application/grpc+proto"), ("server-timing", "model;dur=1")];
        let fields = fields.map(|(name, value)| (name, value.to_owned())).to_vec();
        let trailers = vec![("grpc-status", "0".to_owned()), ("later", "yes".to_owned())];
        vec![Step::Head(200, fields), Step::Data(framed(b"answer")), Step::Trailers(trailers)]
    })
    .await;
    let client = client(&server);
    let request = with_fields(call(INFER, b"question"), &[("x-tenant", "a"), ("key-bin", "AAEC")]);
    let response = ask(&client, request).await.unwrap();
    assert_eq!((code(&response), &response.body[..]), (Code::Ok, &b"answer"[..]));
    assert_eq!((response.status.as_u16(), response.version), (200, Version::HTTP_2));
    assert_eq!((&*response.endpoint, response.target.as_str()), (&*server.url, INFER));
    assert_eq!(response.fields.get("server-timing"), Some(&b"model;dur=1"[..]));
    assert_eq!(response.fields.get("later"), Some(&b"yes"[..]));
    let asked = &server.asked()[0];
    assert_eq!((&*asked.path, &asked.body[..]), (INFER, &framed(b"question")[..]));
    assert_eq!(asked.authority, server.address().to_string());
    for (name, value) in
        [("te", "trailers"), ("content-type", "application/grpc"), ("x-tenant", "a"), ("key-bin", "AAEC")]
    {
        assert_eq!(asked.fields[name], value, "{name}");
    }
    assert!(asked.fields["user-agent"].to_str().unwrap().starts_with("penstock/"));
}

#[tokio::test]
async fn messages_of_any_length_go_both_ways() {
    let server = Server::start(echo).await;
    let client = client(&server);
    for length in [0, 1, 11, 1024, 16_379, 16_380, 65_531, 65_532, 3_000_000] {
        let sent: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
        assert!(message(&client, call("/s/Echo", &sent)).await == sent, "{length}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let server = Server::start(echo).await;
    let client = client(&server);
    let calls: Vec<_> =
        (0..200_u8).map(|number| (number, begin(&client, call("/s/Echo", &[number; 64])))).collect();
    for (number, call) in calls {
        assert_eq!(soon(call).await.unwrap().unwrap().body, vec![number; 64]);
    }
    assert!(server.connections() <= 2, "{}", server.connections());
    eventually(|| is_at_rest(&client)).await;
}

#[tokio::test]
async fn packed_messages_are_unpacked() {
    use std::io::Write;
    let server = Server::start(|_| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&[7; 1000]).unwrap();
        let mut packed = framed(&gzip.finish().unwrap());
        packed[0] = 1;
        let fields = [("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
        let fields = fields.map(|(name, value)| (name, value.to_owned())).to_vec();
        vec![Step::Head(200, fields), Step::Data(packed), status(0)]
    })
    .await;
    assert_eq!(message(&client(&server), call("/s/m", b"")).await, vec![7; 1000]);
    assert_eq!(server.asked()[0].fields["grpc-accept-encoding"], "identity,gzip,deflate");
}

#[tokio::test]
async fn a_failure_keeps_its_code_and_its_words() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/only" => failure(5, "no m%C3%B6del"),
        "/late" => vec![head(), Step::Data(framed(b"x")), status(8)],
        _ => failure(99, ""),
    })
    .await;
    let client = client(&server);
    let response = ask(&client, call("/only", b"")).await.unwrap();
    let end = response.grpc.clone().unwrap();
    assert_eq!((end.code, &*end.message, response.status.as_u16()), (Code::NotFound, "no mödel", 404));
    let error = end.error(&response.endpoint).unwrap();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(error.message().contains("no mödel") && error.message().contains("grpc://"), "{error}");
    let response = ask(&client, call("/late", b"")).await.unwrap();
    assert_eq!((code(&response), response.status.as_u16()), (Code::ResourceExhausted, 503));
    assert!(response.body.is_empty());
    assert_eq!(code(&ask(&client, call("/odd", b"")).await.unwrap()), Code::Unknown);
}

#[tokio::test]
async fn the_server_is_told_how_long_the_call_may_take() {
    let server = Server::start(echo).await;
    let client = client(&server);
    let timeouts = Timeouts { total: Some(Duration::from_secs(20)), ..Timeouts::default() };
    message(&client, within(call("/s/m", b""), timeouts)).await;
    let told = parse_timeout(server.asked()[0].fields["grpc-timeout"].as_bytes()).unwrap();
    assert!(told <= Duration::from_secs(20) && told > Duration::from_secs(10), "{told:?}");
    let endless = Timeouts { total: None, ..timeouts };
    message(&client, within(call("/s/m", b""), endless)).await;
    assert!(!server.asked()[1].fields.contains_key("grpc-timeout"));
}

#[tokio::test]
async fn calls_go_over_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x y.sock");
    let server = Server::unix(&path, echo);
    let encoded =
        format!("grpc+unix://{}", path.display().to_string().replace('/', "%2F").replace(' ', "%20"));
    let client = client_of(&[&encoded], settings());
    assert_eq!(message(&client, call("/s/m", b"here")).await, &b"here"[..]);
    assert_eq!(server.asked()[0].authority, "localhost");
    assert_eq!(*client.stats()[0].endpoint, *server.url);
}

fn signed() -> (rcgen::CertifiedKey<rcgen::KeyPair>, String) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = signed.cert.pem();
    (signed, pem)
}

fn tls_server(signed: &rcgen::CertifiedKey<rcgen::KeyPair>, protocols: &[&[u8]]) -> rustls::ServerConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

#[tokio::test]
async fn calls_go_over_tls_whatever_is_set_for_http() {
    let (signed, pem) = signed();
    let server = Server::tls(tls_server(&signed, &[b"h2", b"http/1.1"]), echo).await;
    for http2 in [Http2Choice::Never, Http2Choice::Alpn, Http2Choice::PriorKnowledge] {
        let mut settings = settings();
        let tls = TlsSettings { ca_data: Some(pem.clone().into_bytes()), ..TlsSettings::default() };
        settings.connect = ConnectSettings { tls, http2, ..settings.connect };
        let client = client_of(&[&server.url], settings);
        assert_eq!(message(&client, call("/s/m", b"secret")).await, &b"secret"[..]);
    }
}

#[tokio::test]
async fn a_server_that_does_not_agree_on_http2_is_refused() {
    let (signed, pem) = signed();
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let server = Server::tls(tls_server(&signed, protocols), echo).await;
        let mut settings = settings();
        settings.connect.tls.ca_data = Some(pem.clone().into_bytes());
        let error = fails(&client_of(&[&server.url], settings), call("/s/m", b"")).await;
        assert_eq!(error.kind(), ErrorKind::ConnectFailed, "{error}");
        assert!(protocols.len() == 1 || error.message().contains("ALPN"), "{error}");
    }
}

#[tokio::test]
async fn a_further_connection_is_opened_when_one_is_full() {
    let server =
        Server::start(|_| vec![Step::Wait(millis(100)), head(), Step::Data(framed(b"")), status(0)]).await;
    let settings = penstock::client::ClientSettings {
        http2: Http2Settings { streams: 4, ..Http2Settings::default() },
        ..settings()
    };
    let client = client_of(&[&server.url], settings);
    let calls: Vec<_> = (0..16).map(|_| begin(&client, call("/s/m", b""))).collect();
    for call in calls {
        assert_eq!(code(&soon(call).await.unwrap().unwrap()), Code::Ok);
    }
    assert_eq!((server.connections(), server.most_streams()), (4, 16));
}

#[tokio::test]
async fn an_origin_of_grpc_is_one_of_its_own() {
    let server = Server::start(|_| answer(b"x")).await;
    let client = client_of(&[], settings());
    let (route, _) = client.route(&server.url).unwrap();
    let response = soon(penstock::client::Client::send(route, call("/s/m", b""))).await.unwrap();
    assert_eq!(response.body, &b"x"[..]);
    assert_eq!(*client.stats()[0].endpoint, *server.url);
    let origin = penstock::client::Origin::parse(&server.url).unwrap();
    assert_eq!(origin.protocol(), Protocol::Grpc);
}
