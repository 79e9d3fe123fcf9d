//! The client's side of a test: the crate h2, which sends what it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest, handshake};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use penstock::wire::grpc::{Encoding, Messages, Status};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::PATIENCE;

/// A connection.
pub(crate) struct Client {
    runtime: Handle,
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A call that goes on.
pub(crate) struct Duplex {
    runtime: Handle,
    up: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    /// Status and fields of the answer's head.
    head: Option<(u16, HeaderMap)>,
    down: Option<RecvStream>,
    messages: Messages,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) http_status: u16,
    pub(crate) head: HeaderMap,
    /// None where the status stands in the head.
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) messages: Vec<Bytes>,
    /// All that came, where it was none of messages.
    pub(crate) bytes: BytesMut,
    pub(crate) code: Option<u8>,
    pub(crate) message: String,
}

impl Client {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let runtime = penstock::runtime::handle().unwrap();
        let (sender, connection) = wait(&runtime, async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            handshake(stream).await.unwrap()
        });
        let connection = runtime.spawn(connection);
        Self { runtime, sender, connection }
    }

    /// As [`open`](Self::open), encrypted.
    pub(crate) fn encrypted(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let runtime = penstock::runtime::handle().unwrap();
        let (sender, connection) = wait(&runtime, async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let name = ServerName::from(address.ip());
            handshake(TlsConnector::from(config).connect(name, stream).await.unwrap()).await.unwrap()
        });
        let connection = runtime.spawn(connection);
        Self { runtime, sender, connection }
    }

    /// Closes the socket without a word.
    pub(crate) fn hang_up(self) {
        self.connection.abort();
    }

    /// Begins a call, with fields besides those that every call has; a field given here replaces one of those.
    pub(crate) fn begin(&self, path: &str, fields: &[(&str, &str)]) -> Duplex {
        let mut request = Request::post(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        for (name, value) in fields {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        self.send(request, false)
    }

    /// Sends the head of a request as it is.
    pub(crate) fn send(&self, request: Request<()>, ends: bool) -> Duplex {
        let mut sender = wait(&self.runtime, self.sender.clone().ready()).unwrap();
        let (response, up) = sender.send_request(request, ends).unwrap();
        Duplex {
            runtime: self.runtime.clone(),
            up,
            response: Some(response),
            head: None,
            down: None,
            messages: Messages::new(Encoding::Identity, 1 << 30, "the test's own"),
        }
    }

    /// A whole call with this body.
    pub(crate) fn call(&self, path: &str, body: impl Into<Bytes>) -> Duplex {
        self.call_with(path, &[], body)
    }

    pub(crate) fn call_with(&self, path: &str, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Duplex {
        let mut call = self.begin(path, fields);
        call.push(body);
        call.finish();
        call
    }

    /// Waits until the server has closed the connection.
    pub(crate) fn wait_closed(self) {
        let Self { runtime, sender, connection } = self;
        let _ = wait(&runtime, connection).unwrap();
        drop(sender);
    }
}

impl Duplex {
    /// Sends bytes; a server that has had enough may have closed the stream.
    pub(crate) fn push(&mut self, bytes: impl Into<Bytes>) {
        let _ = self.up.send_data(bytes.into(), false);
    }

    /// Says that no more comes.
    pub(crate) fn finish(&mut self) {
        let _ = self.up.send_data(Bytes::new(), true);
    }

    /// Gives the call up.
    pub(crate) fn reset(mut self) {
        self.up.send_reset(h2::Reason::CANCEL);
    }

    /// The next message, or none at the end.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let runtime = self.runtime.clone();
        wait(&runtime, self.read())
    }

    /// True where nothing comes for that long.
    pub(crate) fn is_silent(&mut self, time: std::time::Duration) -> bool {
        let runtime = self.runtime.clone();
        runtime.block_on(async { tokio::time::timeout(time, self.read()).await.is_err() })
    }

    async fn read(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.messages.take().unwrap() {
                return Some(message);
            }
            let piece = self.piece().await.unwrap()?;
            self.messages.push(piece);
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, h2::Error> {
        if let Some(response) = &mut self.response {
            let (head, body) = response.await?.into_parts();
            self.response = None;
            self.head = Some((head.status.as_u16(), head.headers));
            self.down = Some(body);
        }
        let down = self.down.as_mut().unwrap();
        let Some(piece) = down.data().await else { return Ok(None) };
        let piece = piece?;
        down.flow_control().release_capacity(piece.len())?;
        Ok(Some(piece))
    }

    /// Waits for the end.
    pub(crate) fn end(self) -> Ended {
        self.result().unwrap()
    }

    pub(crate) fn result(mut self) -> Result<Ended, h2::Error> {
        let runtime = self.runtime.clone();
        wait(&runtime, async {
            let mut bytes = BytesMut::new();
            while let Some(piece) = self.piece().await? {
                bytes.extend_from_slice(&piece);
                self.messages.push(piece);
            }
            let trailers = self.down.as_mut().unwrap().trailers().await?;
            let (http_status, head) = self.head.take().unwrap();
            let is_call = head.get("content-type").is_some_and(|kind| kind == "application/grpc");
            let mut messages = Vec::new();
            while let Some(message) = if is_call { self.messages.take().unwrap() } else { None } {
                messages.push(message);
            }
            let fields = trailers.as_ref().unwrap_or(&head);
            let code = fields.get("grpc-status").map(|code| code.to_str().unwrap().parse().unwrap());
            let message = fields.get("grpc-message").map(|text| Status::message_of(text.as_bytes()));
            let message = message.unwrap_or_default();
            Ok(Ended { http_status, head, trailers, messages, bytes, code, message })
        })
    }
}

fn wait<T>(runtime: &Handle, future: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it never came") })
}
