//! A proxy: tunnels, and requests that name the whole URL.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::listener::Listener;

/// How it treats who asks.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    Passes,
    /// Wants `me` and `secret`.
    Demands,
    Answers(&'static str),
}

pub(crate) struct RunningProxy {
    listener: Listener,
    heads: Arc<Mutex<Vec<String>>>,
}

impl RunningProxy {
    pub(crate) async fn start(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let listener = Listener::start(move |stream| {
            let (seen, tls) = (Arc::clone(&seen), tls.clone());
            async move {
                match tls {
                    None => serve(stream, manner, &seen).await,
                    Some(tls) => serve(tls.accept(stream).await.unwrap(), manner, &seen).await,
                }
            }
        })
        .await;
        Self { listener, heads }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// What it was asked, head by head.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, manner: Manner, seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().push(head.clone());
    match manner {
        Manner::Answers(answer) => {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let _ = stream.shutdown().await;
        }
        // me:secret
        Manner::Demands if !head.contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n") => {
            let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n";
            stream.write_all(refusal.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
        _ => pass_on(stream, &head).await,
    }
}

async fn pass_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) {
    let target = head.split(' ').nth(1).unwrap();
    if head.starts_with("CONNECT ") {
        let mut other = TcpStream::connect(target).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut other).await;
        return;
    }
    let (host, path) = target.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut other = TcpStream::connect(host).await.unwrap();
    other.write_all(format!("GET /{path}\n").as_bytes()).await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut other).await;
}
