//! Pages of other origins, as browsers send what they ask.

use std::time::Duration;

use penstock::serve::{CorsSettings, KeySource, SecuritySettings};

use crate::harness::{Answer, Door, INFER, Setup, Wire, body};

const APP: &str = "https://app.example";

fn cors(origins: &[&str]) -> SecuritySettings {
    let origins = origins.iter().map(ToString::to_string).collect();
    let cors = Some(CorsSettings { origins, max_age: Duration::from_mins(10) });
    SecuritySettings { cors, ..SecuritySettings::default() }
}

fn open(security: SecuritySettings) -> Door {
    Door::with(Setup { security, ..Setup::default() })
}

fn ask(door: &Door, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    Wire::open(door.address()).ask(format!(
        "{method} {path} HTTP/1.1\r\nhost: own:1\r\n{fields}content-length: {length}\r\n\r\n{body}"
    ))
}

fn preflight(door: &Door, origin: &str) -> Answer {
    let fields = format!(
        "origin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: x-api-key\r\n"
    );
    ask(door, "OPTIONS", INFER, &fields, "")
}

#[test]
fn pages_of_a_named_origin_may_ask_and_read() {
    let door = open(cors(&[APP]));
    let answer = preflight(&door, APP);
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-api-key"));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    for (path, status) in [(INFER, 200), ("/v2/models/none/infer", 404)] {
        let answer = ask(&door, "POST", path, &format!("origin: {APP}\r\n"), &body(&[1.0]));
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP), "{path}");
        assert!(answer.header("access-control-expose-headers").is_some());
        assert_eq!(answer.header("vary"), Some("origin"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn pages_of_other_origins_may_neither_read_nor_send() {
    let door = open(cors(&[APP]));
    for origin in ["https://evil.example", "null", "https://app.example.evil"] {
        let answer = preflight(&door, origin);
        assert_eq!(answer.status, 403);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        // What looks like a form is sent without a question before.
        let fields = format!("origin: {origin}\r\ncontent-type: text/plain\r\n");
        let answer = ask(&door, "POST", INFER, &fields, &body(&[1.0]));
        assert_eq!(answer.status, 403);
        assert!(answer.error().contains("cors_origins"));
        let answer = ask(&door, "GET", "/v2", &format!("origin: {origin}\r\n"), "");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
    }
    assert!(door.seen().is_empty());
    let own = ask(&door, "POST", INFER, "origin: http://own:1\r\n", &body(&[1.0]));
    assert_eq!(own.status, 200, "a page of the server's own");
    assert_eq!(ask(&door, "POST", INFER, "", &body(&[1.0])).status, 200, "no page at all");
}

#[test]
fn every_page_may_where_that_is_said() {
    let door = open(cors(&["*"]));
    assert_eq!(preflight(&door, APP).header("access-control-allow-origin"), Some("*"));
    let answer = ask(&door, "POST", INFER, "origin: null\r\n", &body(&[1.0]));
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
}

#[test]
fn a_preflight_needs_no_key_and_a_page_reads_that_it_needs_one() {
    let keys = Some(KeySource::Given(Vec::new()));
    let door = open(SecuritySettings { keys, ..cors(&[APP]) });
    assert_eq!(preflight(&door, APP).status, 204);
    let answer = ask(&door, "GET", "/v2", &format!("origin: {APP}\r\n"), "");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, Some(APP)));
}

/// Any page that somebody looks at may send forms to a server on his own machine.
#[test]
fn no_page_loads_or_unloads_models_of_a_server_that_names_no_origins() {
    let door = open(SecuritySettings::default());
    for path in ["/v2/repository/index", "/v2/repository/models/double/unload"] {
        let answer = ask(&door, "POST", path, "origin: https://evil.example\r\n", "");
        assert_eq!(answer.status, 403, "{path}");
        let own = ask(&door, "POST", path, "origin: http://own:1\r\n", "");
        assert_ne!(own.status, 403, "{path}");
    }
    assert_eq!(preflight(&door, APP).status, 405);
    assert_eq!(ask(&door, "POST", INFER, "origin: https://x.example\r\n", &body(&[1.0])).status, 200);
}
