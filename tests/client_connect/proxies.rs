//! Connections through a proxy.

use std::sync::Arc;
use std::time::Duration;

use penstock::client::{ConnectSettings, Http2Choice, Proxies, Stream};
use penstock::error::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Authority, Listener, Manner, RunningProxy, believing, dial, exchange, refused, server_config, soon,
};

fn via(settings: ConnectSettings, url: String) -> ConnectSettings {
    ConnectSettings { proxies: Proxies::Url(url), ..settings }
}

#[tokio::test]
async fn requests_in_the_clear_are_told_to_the_proxy_itself() {
    let (listener, proxy) = (Listener::plain().await, RunningProxy::start(Manner::Demands, None).await);
    let settings = via(ConnectSettings::default(), format!("http://me:secret@{}", proxy.address()));
    let connected = dial(settings, &listener.url("http")).await.unwrap();
    assert!(connected.forward_proxy && !connected.http2);
    assert!(!format!("{connected:?}").contains("bWU6"), "{connected:?}");
    let authorization = connected.proxy_authorization.unwrap();
    let mut stream = connected.stream;
    assert_eq!(stream.peer_address(), Some(proxy.address()));
    let head = format!(
        "GET http://{}/path HTTP/1.1\r\nProxy-Authorization: {}\r\n\r\n",
        listener.address,
        authorization.to_str().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"hello GET /path");
}

#[tokio::test]
async fn encrypted_connections_go_through_a_tunnel() {
    let authority = Authority::new();
    let listener = Listener::tls(&authority.server(&["127.0.0.1"]), &["h2"]).await;
    let proxy = RunningProxy::start(Manner::Demands, None).await;
    let settings = via(believing(&authority), format!("http://me:secret@{}", proxy.address()));
    let mut connected = dial(settings, &listener.url("https")).await.unwrap();
    assert!(connected.http2 && !connected.forward_proxy && connected.proxy_authorization.is_none());
    assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
    let heads = proxy.heads();
    let address = listener.address;
    assert!(heads[0].starts_with(&format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n")), "{heads:?}");
}

#[tokio::test]
async fn the_way_to_a_proxy_can_be_encrypted_itself() {
    let authority = Authority::new();
    let signed = authority.server(&["127.0.0.1"]);
    let acceptor = || Some(TlsAcceptor::from(Arc::new(server_config(&signed, &["h2", "http/1.1"], None))));
    let listener = Listener::tls(&signed, &["h2"]).await;
    let proxy = RunningProxy::start(Manner::Passes, acceptor()).await;
    let settings = via(believing(&authority), format!("https://{}", proxy.address()));
    let mut connected = dial(settings.clone(), &listener.url("https")).await.unwrap();
    assert!(connected.http2);
    assert!(matches!(&connected.stream, Stream::Tls(_)));
    assert_eq!(connected.stream.peer_address(), Some(proxy.address()));
    assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
    let connected = dial(settings, &listener.url("http")).await.unwrap();
    assert!(connected.forward_proxy && !connected.http2);

    let unbelieved = via(ConnectSettings::default(), format!("https://{}", proxy.address()));
    let error = refused(unbelieved, &listener.url("http")).await;
    assert!(error.to_string().starts_with("the certificate of the proxy 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn http2_in_the_clear_takes_a_tunnel() {
    let (listener, proxy) = (Listener::plain().await, RunningProxy::start(Manner::Passes, None).await);
    let settings = ConnectSettings { http2: Http2Choice::PriorKnowledge, ..ConnectSettings::default() };
    let mut connected =
        dial(via(settings, proxy.address().to_string()), &listener.url("http")).await.unwrap();
    assert!(connected.http2 && !connected.forward_proxy);
    assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
}

#[tokio::test]
async fn a_refused_tunnel_says_who_and_why() {
    for (manner, user, why) in [
        (Manner::Demands, "", "407 Proxy Authentication Required; give user and password in the proxy's URL"),
        (Manner::Demands, "me:secretly@", "407 Proxy Authentication Required; it does not accept the user"),
        (Manner::Answers("HTTP/1.1 502 Bad Gateway\r\n\r\n"), "", "502 Bad Gateway"),
        (
            Manner::Answers("HTTP/1.1 103\r\n\r\nHTTP/1.1 403 \r\n\r\n"),
            "me:secret@",
            "tunnel to https://h.example: 403",
        ),
        (Manner::Answers("HTTP/1.1 200 OK\r\n\r\nsurprise"), "", "it sent more than its answer"),
        (Manner::Answers("SSH-2.0-OpenSSH_9\r\n"), "", "its answer is not HTTP"),
        (Manner::Answers("HTTP/1.1 200"), "", "closed the connection"),
    ] {
        let proxy = RunningProxy::start(manner, None).await;
        let settings = via(ConnectSettings::default(), format!("http://{user}{}", proxy.address()));
        let error = refused(settings, "https://h.example").await;
        assert_eq!(error.kind(), ErrorKind::ConnectFailed);
        let words = error.to_string();
        assert!(words.contains(&format!("the proxy http://{}", proxy.address())), "{words}");
        assert!(words.contains(why), "{words}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_without_end() {
    let listener = Listener::start(async |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
    })
    .await;
    let settings = via(ConnectSettings::default(), listener.url("http"));
    let error = refused(settings, "https://h.example").await;
    assert!(error.to_string().contains("longer than 16 KiB"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_silent_or_absent_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let settings = ConnectSettings { timeout: Duration::from_millis(250), ..ConnectSettings::default() };
    let error = refused(via(settings.clone(), url.clone()), "https://h.example").await;
    assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
    assert!(error.to_string().contains(&format!("the tunnel through the proxy {url}")), "{error}");
    drop(listener);
    let error = refused(via(settings, url.clone()), "http://h.example").await;
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(
        error.to_string().contains(&format!("no connection to the proxy {url}: connection refused")),
        "{error}"
    );
}

#[test]
fn settings_do_not_show_the_password() {
    let settings = via(ConnectSettings::default(), "http://me:secret@proxy".to_owned());
    assert!(!format!("{settings:?}").contains("secret"), "{settings:?}");
}
