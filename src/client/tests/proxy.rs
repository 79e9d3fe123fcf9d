//! The environment variables, row by row.

use crate::client::address::Origin;
use crate::client::proxy::{Proxies, Routes};
use crate::error::ErrorKind;

fn routes(variables: &[(&str, &str)]) -> Routes {
    Routes::from_variables(|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

/// The proxy towards `url`, or `direct`.
fn way(routes: &Routes, url: &str) -> String {
    let origin = Origin::parse(url).unwrap();
    routes.proxy(&origin).unwrap().map_or_else(|| "direct".to_owned(), ToString::to_string)
}

#[test]
fn each_scheme_has_its_variable_and_all_proxy_fills_the_gaps() {
    let set = routes(&[("HTTP_PROXY", "http://one:1"), ("ALL_PROXY", "https://all")]);
    assert_eq!(way(&set, "http://h"), "http://one:1");
    assert_eq!(way(&set, "https://h"), "https://all:443");
    assert_eq!(way(&set, "unix:///run/x.sock"), "direct");
    let set = routes(&[("https_proxy", "two:2")]);
    assert_eq!(way(&set, "http://h"), "direct");
    assert_eq!(way(&set, "https://h"), "http://two:2", "http:// goes without saying");
    let set = routes(&[("HTTPS_PROXY", "HTTP://[::1]")]);
    assert_eq!(way(&set, "https://h"), "http://[::1]:80");
    assert_eq!(way(&routes(&[]), "https://h"), "direct");
}

#[test]
fn lower_case_goes_first_and_an_empty_one_switches_off() {
    let both = [("HTTP_PROXY", "http://upper"), ("http_proxy", "http://lower")];
    assert_eq!(way(&routes(&both), "http://h"), "http://lower:80");
    let off = [("HTTP_PROXY", "http://upper"), ("http_proxy", "")];
    assert_eq!(way(&routes(&off), "http://h"), "direct");
    let blank = [("HTTP_PROXY", " "), ("all_proxy", "http://all")];
    assert_eq!(way(&routes(&blank), "http://h"), "http://all:80");
}

#[test]
fn a_request_cannot_choose_the_proxy_of_a_cgi_program() {
    let forged = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil"), ("HTTPS_PROXY", "http://good")];
    assert_eq!(way(&routes(&forged), "http://h"), "direct");
    assert_eq!(way(&routes(&forged), "https://h"), "http://good:80");
    let lower = [("REQUEST_METHOD", "GET"), ("http_proxy", "http://good")];
    assert_eq!(way(&routes(&lower), "http://h"), "http://good:80");
}

#[test]
fn no_proxy_by_name_port_address_and_network() {
    for (entries, url, direct) in [
        ("example.com", "http://example.com", true),
        ("example.com", "http://a.b.example.com", true),
        ("example.com", "http://badexample.com", false),
        ("example.com", "http://example.com.evil", false),
        ("EXAMPLE.com.", "http://Example.Com", true),
        ("example.com", "http://example.com.", true),
        (".example.com", "http://a.example.com", true),
        (".example.com", "http://example.com", true),
        ("*.example.com", "http://a.example.com", true),
        ("example.com:8080", "http://example.com:8080", true),
        ("example.com:8080", "http://example.com", false),
        ("other, example.com", "http://example.com", true),
        ("other example.com", "http://example.com", true),
        (",,", "http://example.com", false),
        ("", "http://example.com", false),
        ("*", "http://example.com", true),
        ("a,*", "https://[::1]:1", true),
        ("localhost", "http://localhost", true),
        ("localhost", "http://127.0.0.1", false),
        ("", "http://localhost", false),
        ("127.0.0.1", "http://127.0.0.1:8000", true),
        ("127.0.0.1:80", "http://127.0.0.1:8000", false),
        ("10.0.0.0/8", "http://10.200.0.1", true),
        ("10.0.0.0/8", "http://11.0.0.1", false),
        ("10.0.0.0/8", "http://10.example.com", false),
        ("10.0.0.0/33", "http://10.0.0.0", false),
        ("0.0.0.0/0", "http://8.8.8.8", true),
        ("0.0.0.0/0", "http://[2001:db8::1]", false),
        ("0.0.0.1", "http://10.0.0.1", false),
        ("::1", "http://[::1]", true),
        ("[::1]", "http://[::1]:99", true),
        ("[::1]:80", "http://[::1]:99", false),
        ("2001:db8::/32", "http://[2001:db8:1::1]", true),
        ("2001:db8::/32", "http://[2001:db9::1]", false),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]", true),
    ] {
        let set = routes(&[("ALL_PROXY", "http://proxy"), ("NO_PROXY", entries)]);
        assert_eq!(way(&set, url) == "direct", direct, "NO_PROXY={entries:?} {url}");
    }
}

#[test]
fn credentials_become_a_header_and_are_never_shown() {
    let set = routes(&[("ALL_PROXY", "http://us%20er:p%40ss%3Aword@proxy:3128/")]);
    let origin = Origin::parse("http://h").unwrap();
    let proxy = set.proxy(&origin).unwrap().unwrap();
    let authorization = proxy.authorization.as_ref().unwrap();
    assert_eq!(authorization, "Basic dXMgZXI6cEBzczp3b3Jk");
    assert!(authorization.is_sensitive());
    assert_eq!(proxy.to_string(), "http://proxy:3128");
    let shown = format!("{:?}", Proxies::Url("http://user:secret@proxy".to_owned()));
    assert_eq!(shown, r#"Url("http://...@proxy")"#);
}

#[test]
fn a_proxy_that_cannot_be_used_is_an_error_where_it_would_be_taken() {
    let set = routes(&[("ALL_PROXY", "socks5h://me:secret@proxy:1080"), ("HTTP_PROXY", "http://good")]);
    assert_eq!(way(&set, "http://h"), "http://good:80");
    let error = set.proxy(&Origin::parse("https://h").unwrap()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    let words = error.to_string();
    assert!(words.contains("ALL_PROXY") && words.contains("SOCKS") && !words.contains("secret"), "{words}");
    for url in ["socks5://proxy", "ftp://proxy", "http://", "http://proxy:x", "http://a%3Ab:c@proxy"] {
        let error = Routes::new(&Proxies::Url(url.to_owned())).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    }
}
