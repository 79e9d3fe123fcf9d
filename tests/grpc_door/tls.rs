//! Calls over TLS, and keys as metadata.

use std::sync::Arc;

use penstock::serve::{HttpServer, KeySource, SecuritySettings, listen};
use sha2::{Digest, Sha256};

use crate::harness::{Certificates, Client, Door, INFER, LIVE, STREAM, Setup, one, trusting, until};

fn open(security: SecuritySettings) -> Door {
    Door::with(Setup { security, ..Setup::default() })
}

#[test]
fn calls_are_answered_on_either_port_agreed_upon_or_not() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let runtime = penstock::runtime::handle().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let second =
        HttpServer::open_grpc(listen(any).unwrap(), Arc::clone(&door.inside), true, &runtime).unwrap();
    for address in [door.address(), second.address()] {
        // Without ALPN, the first bytes tell.
        for protocols in [&["h2"][..], &["h2", "http/1.1"], &[]] {
            let client = Client::encrypted(address, certificates.client(protocols));
            for number in 0..20_u8 {
                let number = f32::from(number);
                assert_eq!(client.call(INFER, one(number)).end().numbers(), [number * 2.0]);
            }
        }
    }
}

#[test]
fn a_stream_of_requests_goes_on_for_as_long_as_it_likes() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    let client = Client::encrypted(door.address(), certificates.client(&["h2"]));
    let mut call = client.begin(STREAM, &[]);
    for _ in 0..100 {
        call.push(one(1.0));
        assert!(call.next().is_some());
    }
    call.finish();
    assert_eq!(call.end().code, Some(0));
}

#[test]
fn a_client_that_leaves_takes_its_requests_along() {
    let certificates = Certificates::new();
    let door = open(certificates.settings());
    door.gate.close();
    let client = Client::encrypted(door.address(), certificates.client(&["h2"]));
    let _running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    let other = Client::encrypted(door.address(), certificates.client(&["h2"]));
    let queued = other.call(INFER, one(2.0));
    door.wait_queued(1);
    drop(queued);
    other.hang_up();
    until("the server saw it leave", || door.inside.connections() == 1);
    door.gate.open();
    until("the queue was left", || door.endpoint.stats().abandoned == 1);
    assert_eq!(door.seen(), [1.0]);
}

#[test]
fn a_client_is_noted_by_its_certificate_and_its_key() {
    let certificates = Certificates::new();
    let hash: [u8; 32] = Sha256::digest("the-secret").into();
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = KeySource::Given(vec![("team-a".to_owned(), vec![format!("sha256:{digits}")])]);
    let door = open(SecuritySettings { keys: Some(keys), ..certificates.mutual() });
    let authority = &certificates.authority;
    let shown = authority.client_named(&[(rcgen::DnType::CommonName, "me")], "spiffe://x");
    let client = Client::encrypted(door.address(), trusting(authority, Some(&shown), &["h2"]));
    for field in [("authorization", "Bearer the-secret"), ("x-api-key", "the-secret")] {
        for path in [INFER, STREAM] {
            let ended = client.call_with(path, &[field], one(1.0)).end();
            assert_eq!(ended.code, Some(0), "{ended:?}");
            until("it was noted", || !door.noted.0.lock().is_empty());
            let noted = door.noted.0.lock().pop().unwrap();
            assert_eq!((noted.key.as_deref(), noted.client.as_deref()), (Some("team-a"), Some("CN=me")));
            assert!(!format!("{noted:?} {noted}").contains("secret"));
        }
    }
    let grpc_health = "/grpc.health.v1.Health/";
    for (path, fields, code) in [
        (INFER.to_owned(), &[][..], 16),
        (STREAM.to_owned(), &[], 16),
        (INFER.to_owned(), &[("x-api-key", "wrong")], 16),
        ("/a.B/C".to_owned(), &[], 16),
        (format!("{grpc_health}List"), &[], 16),
        (format!("{grpc_health}Watch"), &[], 16),
        ("/inference.GRPCInferenceService/ServerMetadata".to_owned(), &[], 16),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned(), &[], 16),
        (format!("{grpc_health}Check"), &[], 0),
        (LIVE.to_owned(), &[], 0),
        ("/inference.GRPCInferenceService/ServerReady".to_owned(), &[], 0),
    ] {
        let ended = client.call_with(&path, fields, penstock::wire::grpc::framed(&())).end();
        assert_eq!(ended.code, Some(code), "{path} {ended:?}");
        assert_eq!(ended.message.contains("api key"), code == 16, "{ended:?}");
    }
    assert_eq!(door.refused("api_keys"), 8);
}
