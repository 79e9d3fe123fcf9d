//! A server of HTTP/2, from the crate h2 or byte by byte.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use penstock::client::{ConnectSettings, Http2, Http2Body, Http2Choice, Http2Settings, SendError};
use penstock::error::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{dial, soon};

/// A request that a server got.
pub(crate) struct Asked {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
}

/// A server of one connection, whose requests the test answers itself.
pub(crate) struct Server {
    pub(crate) asked: UnboundedReceiver<Asked>,
    pub(crate) address: SocketAddr,
    shut: tokio::sync::mpsc::UnboundedSender<()>,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(builder: Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asking, asked) = unbounded_channel();
        let (shut, mut shutting) = unbounded_channel();
        let serving = tokio::runtime::Handle::current().spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection: Connection<_, Bytes> = builder.handshake(stream).await.unwrap();
            loop {
                tokio::select! {
                    accepted = connection.accept() => {
                        let Some(Ok((request, respond))) = accepted else { break };
                        let _ = asking.send(Asked { request, respond });
                    }
                    Some(()) = shutting.recv() => connection.graceful_shutdown(),
                }
            }
        });
        Self { asked, address, shut, serving }
    }

    pub(crate) async fn next(&mut self) -> Asked {
        soon(self.asked.recv()).await.expect("the connection ended")
    }

    /// Says GOAWAY and finishes what it has.
    pub(crate) fn leave(&self) {
        self.shut.send(()).unwrap();
    }

    /// Drops the connection and whatever it carries.
    pub(crate) fn break_off(&self) {
        self.serving.abort();
    }

    /// Waits for the connection's end.
    pub(crate) async fn ended(self) {
        soon(self.serving).await.unwrap();
    }
}

impl Asked {
    pub(crate) fn answer(&mut self, end: bool) -> SendStream<Bytes> {
        self.respond.send_response(Response::new(()), end).unwrap()
    }

    pub(crate) fn answer_with(&mut self, body: impl Into<Bytes>) {
        self.answer(false).send_data(body.into(), true).unwrap();
    }
}

pub(crate) async fn open(address: SocketAddr, settings: Http2Settings) -> Result<Http2> {
    let choice = ConnectSettings { http2: Http2Choice::PriorKnowledge, ..ConnectSettings::default() };
    let connected = dial(choice, &format!("http://{address}")).await?;
    assert!(connected.http2);
    soon(Http2::handshake(connected.stream, settings)).await
}

pub(crate) async fn connect(server: &Server) -> Http2 {
    open(server.address, Http2Settings::default()).await.unwrap()
}

/// Sends a request without a body from a task of its own.
pub(crate) fn get(
    http2: &Http2,
    path: &str,
) -> tokio::task::JoinHandle<std::result::Result<(Response<()>, Http2Body), SendError>> {
    let (http2, head) = (http2.clone(), Request::get(format!("http://test{path}")).body(()).unwrap());
    tokio::runtime::Handle::current().spawn(async move { soon(http2.send(head, Bytes::new())).await })
}

/// The whole body.
pub(crate) async fn collect(body: &mut Http2Body) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(piece) = soon(body.next()).await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

/// A server that greets, waits for a request's head, and sends these bytes; then it is silent.
pub(crate) async fn raw(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::runtime::Handle::current().spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        while frame_type(&mut stream).await != 1 {}
        stream.write_all(answer).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    (address, task)
}

/// Reads a frame and gives its type (RFC 9113, section 4.1).
async fn frame_type(stream: &mut TcpStream) -> u8 {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    stream.read_exact(&mut vec![0; usize::try_from(length).unwrap()]).await.unwrap();
    head[3]
}
