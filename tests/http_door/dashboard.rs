//! The page that shows the metrics, as far as a door can tell; what it shows is for a browser (`tests/interop`).

use penstock::serve::HttpSettings;

use crate::harness::{Door, Setup, Wire, bare};

#[test]
fn the_page_comes_with_a_policy_that_lets_it_ask_this_server_alone() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for path in ["/dashboard", "/dashboard/", "/dashboard?model=digits"] {
        let answer = wire.ask(bare("GET", path));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(answer.text().starts_with("<!doctype html>"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'"]
        {
            assert!(policy.contains(part), "{part} is not in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn the_page_is_not_there_where_it_is_switched_off() {
    let http = HttpSettings { dashboard: false, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let mut wire = Wire::open(door.address());
    assert_eq!(wire.ask(bare("GET", "/dashboard")).status, 404);
    assert_eq!(wire.ask(bare("POST", "/dashboard")).status, 404);
    assert_eq!(wire.ask(bare("GET", "/metrics")).status, 200);
}

#[test]
fn the_page_is_only_read() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let answer = wire.ask(bare("POST", "/dashboard"));
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
}
