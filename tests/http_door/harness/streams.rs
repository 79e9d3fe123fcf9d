//! The client's side of a test that speaks HTTP/2: hyper's own client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::wire::Answer;
use super::{INFER, PATIENCE, body};

/// A request's body.
pub(crate) type Sent = BoxBody<Bytes, Infallible>;

/// A connection.
pub(crate) struct Client {
    runtime: Handle,
    sender: SendRequest<Sent>,
    connection: JoinHandle<hyper::Result<()>>,
}

/// An answer that is to come.
pub(crate) struct Stream {
    runtime: Handle,
    answer: JoinHandle<hyper::Result<Response<Bytes>>>,
}

impl Client {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let runtime = penstock::runtime::handle().unwrap();
        let (sender, connection) = wait(&runtime, async {
            let stream = TcpStream::connect(address).await.unwrap();
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap()
        });
        let connection = runtime.spawn(connection);
        Self { runtime, sender, connection }
    }

    pub(crate) fn send(&self, request: Request<Sent>) -> Stream {
        let mut sender = self.sender.clone();
        let answer = self.runtime.spawn(async move {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        });
        Stream { runtime: self.runtime.clone(), answer }
    }

    pub(crate) fn infer(&self, numbers: &[f32]) -> Stream {
        self.send(post(body(numbers)))
    }

    pub(crate) fn get(&self, path: &str) -> Stream {
        self.send(Request::get(uri(path)).body(Full::default().boxed()).unwrap())
    }

    /// Asks for an answer that comes in pieces.
    pub(crate) fn send_early(&self, request: Request<Sent>) -> Asked {
        let mut sender = self.sender.clone();
        let answer = self.runtime.spawn(async move {
            sender.ready().await?;
            sender.send_request(request).await
        });
        Asked { runtime: self.runtime.clone(), answer }
    }

    /// Waits until the server has closed the connection.
    pub(crate) fn wait_closed(self) {
        let Self { runtime, sender, connection } = self;
        // Its last words may cross the server's.
        let _ = wait(&runtime, connection).unwrap();
        drop(sender);
    }
}

impl Stream {
    pub(crate) fn answer(self) -> Answer {
        self.result().unwrap()
    }

    pub(crate) fn result(self) -> hyper::Result<Answer> {
        let (head, body) = wait(&self.runtime, self.answer).unwrap()?.into_parts();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Ok(Answer::new(head.status.as_u16(), headers.collect(), body.to_vec()))
    }

    /// Takes the request back.
    pub(crate) fn reset(self) {
        self.answer.abort();
    }
}

/// An answer in pieces whose head is to come.
pub(crate) struct Asked {
    runtime: Handle,
    answer: JoinHandle<hyper::Result<Response<Incoming>>>,
}

impl Asked {
    /// Waits for the head.
    pub(crate) fn begun(self) -> Streamed {
        let answer = wait(&self.runtime, self.answer).unwrap().unwrap();
        Streamed { runtime: self.runtime, answer }
    }

    /// Takes the request back.
    pub(crate) fn reset(self) {
        self.answer.abort();
    }
}

/// An answer that comes in pieces. Dropping it takes the request back.
pub(crate) struct Streamed {
    runtime: Handle,
    pub(crate) answer: Response<Incoming>,
}

impl Streamed {
    /// The next piece of the body, or none at its end.
    pub(crate) fn piece(&mut self) -> Option<Bytes> {
        let frame = wait(&self.runtime, self.answer.body_mut().frame())?.unwrap();
        Some(frame.into_data().unwrap())
    }

    /// The rest of the body.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.piece()).flatten().collect()
    }
}

pub(crate) fn post_to(path: &str, body: &'static str) -> Request<Sent> {
    Request::post(uri(path)).body(Full::new(body.into()).boxed()).unwrap()
}

pub(crate) fn post(body: impl Into<Bytes>) -> Request<Sent> {
    Request::post(uri(INFER)).body(Full::new(body.into()).boxed()).unwrap()
}

fn uri(path: &str) -> String {
    format!("http://test{path}")
}

/// A request whose body never comes.
pub(crate) fn endless() -> Request<Sent> {
    Request::post(uri(INFER)).body(Silent.boxed()).unwrap()
}

struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn wait<T>(runtime: &Handle, future: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it never came") })
}
