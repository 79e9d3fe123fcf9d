//! Connections in the clear.

use std::time::Duration;

use penstock::client::{ConnectSettings, Dialer, Http2Choice, Idle, Origin, Stream};
use penstock::error::ErrorKind;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::harness::{Listener, dial, exchange, refused, soon};

async fn eventually(stream: &Stream, seen: Idle) {
    soon(async {
        while stream.idle() != seen {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_carries_bytes_both_ways() {
    let listener = Listener::plain().await;
    for http2 in [Http2Choice::Never, Http2Choice::Alpn, Http2Choice::PriorKnowledge] {
        let settings = ConnectSettings { http2, ..ConnectSettings::default() };
        let mut connected = dial(settings, &listener.url("http")).await.unwrap();
        assert_eq!(connected.http2, http2 == Http2Choice::PriorKnowledge);
        assert!(!connected.forward_proxy && connected.proxy_authorization.is_none());
        assert_eq!(connected.stream.peer_address(), Some(listener.address));
        assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
    }
}

#[tokio::test]
async fn a_name_with_several_addresses_reaches_the_one_that_listens() {
    let listener = Listener::plain().await;
    let url = format!("http://localhost:{}", listener.address.port());
    let dialer = Dialer::new(ConnectSettings::default()).unwrap();
    for _ in 0..4 {
        let mut connected = soon(dialer.dial(&Origin::parse(&url).unwrap())).await.unwrap();
        assert_eq!(exchange(&mut connected.stream, "you").await.unwrap(), "hello you");
    }
}

#[tokio::test]
async fn who_refuses_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = refused(ConnectSettings::default(), &format!("http://{address}")).await;
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert_eq!(
        error.to_string(),
        format!("no connection to http://{address}: connection refused by {address}")
    );
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_named() {
    let settings = ConnectSettings { timeout: Duration::from_secs(15), ..ConnectSettings::default() };
    let error = refused(settings, "http://nowhere.invalid:81").await;
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.to_string().starts_with("the name nowhere.invalid is not known"), "{error}");
}

#[tokio::test]
async fn a_unix_socket_is_reached_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    let url = format!("unix://{}", path.display());
    let error = refused(ConnectSettings::default(), &url).await;
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert_eq!(error.to_string(), format!("no connection to {url}: there is no such socket"));

    let listener = UnixListener::bind(&path).unwrap();
    let mut connected = dial(ConnectSettings::default(), &url).await.unwrap();
    assert_eq!((connected.http2, connected.stream.peer_address()), (false, None));
    let (mut accepted, _) = soon(listener.accept()).await.unwrap();
    accepted.write_all(b"hi").await.unwrap();
    eventually(&connected.stream, Idle::Readable).await;
    let mut read = [0; 2];
    connected.stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hi");
    assert_eq!(connected.stream.idle(), Idle::Quiet);
    drop(accepted);
    eventually(&connected.stream, Idle::Closed).await;

    drop(listener);
    let error = refused(ConnectSettings::default(), &url).await;
    assert!(error.to_string().contains("nobody listens"), "{error}");
}

#[tokio::test]
async fn an_idle_connection_shows_what_happens_and_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut stream = dial(ConnectSettings::default(), &url).await.unwrap().stream;
    let (mut accepted, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(stream.idle(), Idle::Quiet);
    assert_eq!(stream.settle(), Idle::Quiet);

    accepted.write_all(b"unasked").await.unwrap();
    eventually(&stream, Idle::Readable).await;
    assert_eq!(stream.settle(), Idle::Readable);
    let mut read = [0; 7];
    soon(stream.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"unasked");
    assert_eq!(stream.idle(), Idle::Quiet);

    accepted.write_all(b"last words").await.unwrap();
    drop(accepted);
    eventually(&stream, Idle::Closed).await;
    let mut read = Vec::new();
    soon(stream.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"last words");
    assert_eq!(stream.idle(), Idle::Closed);
}

#[tokio::test]
async fn a_reset_connection_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stream = dial(ConnectSettings::default(), &url).await.unwrap().stream;
    let (accepted, _) = soon(listener.accept()).await.unwrap();
    SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).unwrap();
    drop(accepted);
    eventually(&stream, Idle::Closed).await;
}

#[tokio::test]
async fn the_socket_is_tuned() {
    let listener = Listener::plain().await;
    for (nodelay, keep_alive) in [(true, Some(Duration::from_secs(33))), (false, None)] {
        let settings = ConnectSettings { nodelay, keep_alive, ..ConnectSettings::default() };
        let Stream::Tcp(stream) = dial(settings, &listener.url("http")).await.unwrap().stream else {
            panic!("no TCP connection");
        };
        assert_eq!(stream.nodelay().unwrap(), nodelay);
        let socket = SockRef::from(&stream);
        assert_eq!(socket.keepalive().unwrap(), keep_alive.is_some());
        if let Some(after) = keep_alive {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), after);
        }
    }
}

#[tokio::test]
async fn a_time_out_of_nothing_is_refused() {
    let settings = ConnectSettings { timeout: Duration::ZERO, ..ConnectSettings::default() };
    assert_eq!(refused(settings, "http://h").await.kind(), ErrorKind::Config);
}
