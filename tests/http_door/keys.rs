//! Keys: who shows one comes in, and nobody else.

use std::fs;

use penstock::serve::{KeySource, SecuritySettings};
use sha2::{Digest, Sha256};

use crate::harness::{Door, INFER, Setup, Wire, bare, body, infer, post_with};

fn hash(key: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(key).into();
    let digits = hash.map(|byte| format!("{byte:02x}")).concat();
    format!("sha256:{digits}")
}

fn guarded() -> SecuritySettings {
    let keys = [("team-a", "first-secret"), ("team-b", "second-secret")];
    let keys = keys.map(|(name, key)| (name.to_owned(), vec![hash(key)]));
    SecuritySettings { keys: Some(KeySource::Given(keys.to_vec())), ..SecuritySettings::default() }
}

fn open(security: SecuritySettings) -> Door {
    Door::with(Setup { security, ..Setup::default() })
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n{fields}\r\n")
}

#[test]
fn a_request_with_a_known_key_is_answered_and_noted_by_its_name() {
    let door = open(guarded());
    let mut wire = Wire::open(door.address());
    for (field, name) in [
        ("x-api-key: first-secret\r\n", "team-a"),
        ("authorization: Bearer second-secret\r\n", "team-b"),
        ("Authorization: bearer first-secret\r\n", "team-a"),
    ] {
        let answer = wire.ask(post_with(field, body(&[1.0]).as_bytes()));
        assert_eq!(answer.numbers(), [2.0]);
        let noted = door.noted.0.lock().pop().unwrap();
        assert_eq!(noted.key.as_deref(), Some(name));
        assert!(!format!("{noted:?} {noted}").contains("secret"), "{noted:?}");
    }
}

#[test]
fn a_request_without_one_is_refused_before_its_path_means_anything() {
    let door = open(guarded());
    for (request, challenge) in [
        (infer(&[1.0]), "Bearer realm=\"penstock\""),
        (get("/v2", ""), "Bearer realm=\"penstock\""),
        (get("/nowhere", ""), "Bearer realm=\"penstock\""),
        (get("/metrics", ""), "Bearer realm=\"penstock\""),
        (get("/v1/models", ""), "Bearer realm=\"penstock\""),
        (bare("POST", "/v2/repository/index"), "Bearer realm=\"penstock\""),
        (bare("OPTIONS", INFER), "Bearer realm=\"penstock\""),
        (get("/v2", "x-api-key: wrong\r\n"), "Bearer realm=\"penstock\", error=\"invalid_token\""),
        (get("/v2", "authorization: Basic Zmlyc3Qtc2VjcmV0\r\n"), "Bearer realm=\"penstock\""),
    ] {
        let mut wire = Wire::open(door.address());
        let answer = wire.ask(&request);
        assert_eq!(answer.status, 401, "{request}");
        assert_eq!(answer.header("www-authenticate"), Some(challenge), "{request}");
        assert!(answer.text().contains("api key"), "{}", answer.text());
        // A client that has sent little goes on by the same connection.
        assert_eq!(wire.ask(get("/v2", "x-api-key: first-secret\r\n")).status, 200);
    }
    assert!(door.seen().is_empty());
    assert_eq!(door.refused("api_keys"), 9);
}

#[test]
fn a_body_without_a_key_is_not_asked_for_and_not_held() {
    let door = open(guarded());
    let mut wire = Wire::open(door.address());
    let length = 60 << 20;
    let answer = wire.ask(format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    ));
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn probes_need_no_key_and_metrics_need_none_where_they_are_open() {
    let door = open(guarded());
    let mut wire = Wire::open(door.address());
    for path in ["/v2/health/live", "/v2/health/ready", "/dashboard", "/openapi.json"] {
        assert_eq!(wire.ask(get(path, "")).status, 200, "{path}");
    }
    assert_eq!(wire.ask(get("/metrics", "")).status, 401);
    let door = open(SecuritySettings { metrics_open: true, ..guarded() });
    let mut wire = Wire::open(door.address());
    assert_eq!(wire.ask(get("/metrics", "")).status, 200);
    assert_eq!(wire.ask(get("/v2", "")).status, 401);
}

#[test]
fn keys_come_and_go_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let write = |keys: &[(&str, &str)]| {
        let lines = keys.iter().map(|(name, key)| format!("{name} = \"{}\"\n", hash(key)));
        fs::write(&path, lines.collect::<Vec<_>>().concat()).unwrap();
    };
    write(&[("a", "first")]);
    let keys = Some(KeySource::File(path.clone()));
    let door = open(SecuritySettings { keys, ..SecuritySettings::default() });
    let mut wire = Wire::open(door.address());
    let mut status = |key: &str| wire.ask(get("/v2", &format!("x-api-key: {key}\r\n"))).status;
    assert_eq!((status("first"), status("second")), (200, 401));
    write(&[("a", "first"), ("b", "second")]);
    assert!(door.security.reload().unwrap());
    assert_eq!((status("first"), status("second")), (200, 200));
    write(&[("b", "second")]);
    assert!(door.security.reload().unwrap());
    assert_eq!((status("first"), status("second")), (401, 200));
    fs::write(&path, "b = \"second\"\n").unwrap();
    let error = door.security.reload().unwrap_err();
    assert!(error.message().contains("line 1: 'b' needs sha256:"), "{error}");
    assert!(!error.message().contains("second"), "{error}");
    assert_eq!((status("first"), status("second")), (401, 200), "what was before stays in force");
}
