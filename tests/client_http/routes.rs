//! Which URL leads where.

use penstock::client::Client;
use penstock::error::ErrorKind;
use tokio::runtime::Handle;

use crate::asking::*;
use crate::server::Server;

async fn get_url(client: &Client, url: &str) -> String {
    let (route, target) = client.route(url).unwrap();
    let request = penstock::client::Request::new(http::Method::GET, target);
    String::from_utf8(soon(Client::send(route, request)).await.unwrap().body.into()).unwrap()
}

#[tokio::test]
async fn a_path_leads_to_the_own_endpoints_and_a_url_to_its_origin() {
    let (own, other) = (Server::echo().await, Server::echo().await);
    let client = client(&own);
    assert_eq!(get_url(&client, "/a?b").await, "GET /a?b ");
    assert_eq!(get_url(&client, &format!("{}/c", own.url)).await, "GET /c ");
    for rest in ["/d", "/d#part", "?e", "", "#part", "/?e#part"] {
        let path = rest.split('#').next().unwrap();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        assert_eq!(get_url(&client, &format!("{}{rest}", other.url)).await, format!("GET {path} "));
    }
    assert_eq!(get_url(&client, "/f#part").await, "GET /f ");
    assert_eq!((own.connections(), other.connections()), (1, 1), "an origin has one pool");
    assert_eq!(client.stats().len(), 2);
}

#[tokio::test]
async fn an_origin_has_one_pool_however_it_is_written() {
    let (own, other) = (Server::echo().await, Server::echo().await);
    let client = client(&own);
    for server in [&own, &other] {
        for scheme in ["http://", "HTTP://", "Http://"] {
            get_url(&client, &server.url.replace("http://", scheme)).await;
        }
        assert_eq!((server.count(), server.connections()), (3, 1));
    }
    let labels: Vec<_> = client.stats().iter().map(|stats| stats.endpoint.to_string()).collect();
    assert_eq!(labels, [own.url.clone(), other.url.clone()]);
    client.close();
    soon(client.closed()).await;
    eventually(|| own.open() + other.open() == 0).await;
}

#[tokio::test]
async fn one_of_several_endpoints_can_be_asked_for_by_its_url() {
    let (first, second) = (Server::echo().await, Server::echo().await);
    let client = client_with(&[&first, &second], settings());
    for _ in 0..6 {
        get_url(&client, &format!("{}/x", second.url)).await;
    }
    assert_eq!((first.count(), second.count(), second.connections()), (0, 6, 1));
    assert_eq!(client.stats().len(), 2);
}

#[tokio::test]
async fn what_is_no_url_is_refused_in_words() {
    let client = Client::new(&[], settings(), Handle::current()).unwrap();
    for (url, words) in [
        ("/a", "has no host"),
        ("a", "no scheme"),
        ("ftp://h/", "scheme"),
        ("http://", "no host"),
        ("http://h:99999/", "port"),
        ("http://h/a b", "percent-encoded"),
        ("", "no scheme"),
    ] {
        let error = client.route(url).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(error.message().contains(words), "{url}: {error}");
    }
    let (route, target) = client.route("http://nowhere.invalid/").unwrap();
    let request = penstock::client::Request::new(http::Method::GET, target);
    let error = soon(Client::send(route, request)).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.message().contains("nowhere.invalid"), "{error}");
}

#[tokio::test]
async fn endpoints_that_cannot_be_are_refused() {
    let made = |urls: &[&str]| {
        let urls: Vec<_> = urls.iter().map(ToString::to_string).collect();
        Client::new(&urls, settings(), Handle::current()).map(|_| ()).unwrap_err()
    };
    for urls in [&["http://h/path"][..], &["h:80"], &["http://h", "http://H:80"]] {
        assert_eq!(made(urls).kind(), ErrorKind::Config, "{urls:?}");
    }
    assert!(made(&["http://h", "http://H:80"]).message().contains("twice"));
}

#[tokio::test]
async fn thousands_of_origins_are_not_kept() {
    let server = Server::echo().await;
    let client = client(&server);
    for number in 0..2500 {
        client.route(&format!("http://host-{number}.invalid/")).unwrap();
    }
    assert!(client.stats().len() <= 1002, "{}", client.stats().len());
    assert_eq!(text(&client, "/").await, "GET / ");
    assert_eq!(get_url(&client, &format!("{}/c", server.url)).await, "GET /c ");
    assert_eq!(server.connections(), 1);
}
