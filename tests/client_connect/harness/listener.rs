//! Listeners that answer `hello` and the line that they read, line by line.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use penstock::client::Stream;

use super::{Authority, Signed, soon};

pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    pub(crate) async fn plain() -> Self {
        Self::start(greet).await
    }

    pub(crate) async fn tls(signed: &Signed, protocols: &[&str]) -> Self {
        Self::with_config(server_config(signed, protocols, None)).await
    }

    /// One that demands a certificate of the client, signed by that authority.
    pub(crate) async fn demanding(signed: &Signed, clients: &Authority) -> Self {
        Self::with_config(server_config(signed, &[], Some(clients))).await
    }

    async fn with_config(config: ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    greet(stream).await;
                }
            }
        })
        .await
    }

    /// One that serves each connection so.
    pub(crate) async fn start<F>(serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        let task = tokio::runtime::Handle::current().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream));
            }
        });
        Self { address, task }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }
}

pub(crate) fn server_config(
    signed: &Signed,
    protocols: &[&str],
    clients: Option<&Authority>,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(signed.chain(), signed.private_key()).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Until `bye`, after which it closes without more words.
pub(crate) async fn greet(stream: impl AsyncRead + AsyncWrite) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "bye" || writer.write_all(format!("hello {line}\n").as_bytes()).await.is_err() {
            break;
        }
        let _ = writer.flush().await;
    }
    let _ = writer.shutdown().await;
}

/// Sends a line and gives the line that comes back; empty at the end.
pub(crate) async fn exchange(stream: &mut Stream, line: &str) -> std::io::Result<String> {
    soon(async {
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") && stream.read_buf(&mut answer).await? > 0 {}
        Ok(String::from_utf8(answer).unwrap().trim_end().to_owned())
    })
    .await
}
