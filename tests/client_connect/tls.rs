//! Connections over TLS: what is agreed on, what takes too long, what arrives unasked.

use std::time::Duration;

use penstock::client::{ConnectSettings, Dialer, Http2Choice, Idle, Origin};
use penstock::error::ErrorKind;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::harness::{Authority, Listener, believing, dial, exchange, refused, soon};

#[tokio::test]
async fn the_server_chooses_among_the_protocols_that_are_offered() {
    let authority = Authority::new();
    let signed = authority.server(&["127.0.0.1"]);
    for (spoken, http2, agreed) in [
        (&["h2", "http/1.1"][..], Http2Choice::Alpn, true),
        (&["http/1.1"], Http2Choice::Alpn, false),
        (&[], Http2Choice::Alpn, false),
        (&["h2", "http/1.1"], Http2Choice::Never, false),
        (&["h2", "http/1.1"], Http2Choice::PriorKnowledge, true),
        (&[], Http2Choice::PriorKnowledge, true),
    ] {
        let listener = Listener::tls(&signed, spoken).await;
        let settings = ConnectSettings { http2, ..believing(&authority) };
        let mut connected = dial(settings, &listener.url("https")).await.unwrap();
        assert_eq!(connected.http2, agreed, "{spoken:?} {http2:?}");
        assert_eq!(connected.stream.peer_address(), Some(listener.address));
        assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
    }
}

#[tokio::test]
async fn no_protocol_in_common_is_told() {
    let authority = Authority::new();
    let listener = Listener::tls(&authority.server(&["127.0.0.1"]), &["http/1.1"]).await;
    let settings = ConnectSettings { http2: Http2Choice::PriorKnowledge, ..believing(&authority) };
    let error = refused(settings, &listener.url("https")).await;
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_fails() {
    let authority = Authority::new();
    let listener = Listener::start(async |mut stream| {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let error = refused(believing(&authority), &listener.url("https")).await;
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.to_string().ends_with("the other side does not speak TLS"), "{error}");

    let listener = Listener::start(async |mut stream| drop(stream.read(&mut [0; 4096]).await)).await;
    let error = refused(believing(&authority), &listener.url("https")).await;
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.to_string().contains("the TLS handshake with 127.0.0.1:"), "{error}");
    assert!(error.to_string().contains("closed"), "{error}");
}

#[tokio::test]
async fn a_black_hole_ends_in_a_time_out_that_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let settings = ConnectSettings { timeout: Duration::from_millis(250), ..believing(&Authority::new()) };
    let error = refused(settings, &url).await;
    assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
    let words = error.to_string();
    assert!(
        words.contains(&url) && words.contains("connect=0.25 s") && words.contains("TLS handshake"),
        "{words}"
    );
}

#[tokio::test]
async fn a_dial_that_is_given_up_closes_its_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
    let dialer = Dialer::new(believing(&Authority::new())).unwrap();
    let mut dialing = Box::pin(dialer.dial(&origin));
    let (mut accepted, _) = soon(async {
        tokio::select! {
            _ = &mut dialing => panic!("nobody answered"),
            accepted = listener.accept() => accepted.unwrap(),
        }
    })
    .await;
    drop(dialing);
    let mut read = Vec::new();
    // What was sent may come first; then the end, or a reset.
    let _ = soon(accepted.read_to_end(&mut read)).await;
}

#[tokio::test]
async fn session_tickets_do_not_end_an_idle_connection() {
    let authority = Authority::new();
    let listener = Listener::tls(&authority.server(&["127.0.0.1"]), &[]).await;
    let mut stream = dial(believing(&authority), &listener.url("https")).await.unwrap().stream;
    // The tickets come with the end of the handshake, before anything is asked.
    soon(async {
        while stream.idle() == Idle::Quiet {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(stream.idle(), Idle::Readable);
    assert_eq!(stream.settle(), Idle::Quiet);
    assert_eq!(stream.idle(), Idle::Quiet, "they have been taken in");
    assert_eq!(exchange(&mut stream, "you").await.unwrap(), "hello you");
    assert_eq!(stream.settle(), Idle::Quiet);
    assert_eq!(exchange(&mut stream, "bye").await.unwrap(), "");
    soon(async {
        while stream.settle() != Idle::Closed {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_comes_unasked_over_tls_is_seen() {
    let authority = Authority::new();
    let listener = Listener::tls(&authority.server(&["127.0.0.1"]), &[]).await;
    let mut stream = dial(believing(&authority), &listener.url("https")).await.unwrap().stream;
    assert_eq!(exchange(&mut stream, "you").await.unwrap(), "hello you");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"one\n").await.unwrap();
    soon(async {
        while stream.settle() != Idle::Readable {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(stream.idle(), Idle::Readable, "what is decrypted already counts, too");
}
