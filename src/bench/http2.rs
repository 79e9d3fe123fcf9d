//! HTTP/2 connections, each shared by several clients; and calls of gRPC over them.

use std::error::Error as _;
use std::io;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::http1::connect;
use super::link::{Lost, Whole};
use super::prepared::Prepared;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::grpc::{Code, PREFIX};

/// A connection that clients share. Whoever finds it broken opens it anew, for all of them.
#[derive(Default)]
pub(super) struct Line {
    current: Mutex<Option<Opened>>,
}

struct Opened {
    sender: SendRequest<Full<Bytes>>,
    /// The task that drives the connection, which ends with it.
    _driver: JoinSet<()>,
}

/// A client's share of a connection: one stream at a time.
pub(super) struct Stream {
    sender: SendRequest<Full<Bytes>>,
    usable: bool,
}

impl Stream {
    /// Joins the connection, or opens it where it is not open: then the second value is true.
    pub(super) async fn open(line: &Line, prepared: &Prepared) -> Result<(Self, bool)> {
        let mut current = line.current.lock().await;
        if let Some(opened) = current.as_ref().filter(|opened| !opened.sender.is_closed()) {
            return Ok((Self { sender: opened.sender.clone(), usable: true }, false));
        }
        let opened = current.insert(dial(prepared).await?);
        Ok((Self { sender: opened.sender.clone(), usable: true }, true))
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable && !self.sender.is_closed()
    }

    /// Sends a request and reads its answer. One that takes too long costs its stream alone.
    pub(super) async fn exchange(
        &mut self,
        prepared: &Prepared,
        body_index: usize,
    ) -> std::result::Result<Whole, Lost> {
        let late = Lost::Failed(ErrorKind::DeadlineExceeded, 0);
        let answer = timeout(prepared.timeout, self.ask(prepared, body_index)).await;
        let answer = answer.unwrap_or(Err(late));
        // Others may go on with the connection; whether it still stands, they and this client will see.
        self.usable = !self.sender.is_closed();
        answer
    }

    async fn ask(&mut self, prepared: &Prepared, body_index: usize) -> std::result::Result<Whole, Lost> {
        if self.sender.ready().await.is_err() {
            return Err(Lost::Untouched);
        }
        let request = prepared.request(body_index).ok_or(Lost::Failed(ErrorKind::Internal, 0))?;
        match self.sender.send_request(request).await {
            Ok(response) if prepared.calls => collect_call(response, prepared.keep).await,
            Ok(response) => collect(response, prepared.keep).await,
            Err(error) => Err(Lost::Failed(kind_of(&error), 0)),
        }
    }
}

async fn dial(prepared: &Prepared) -> Result<Opened> {
    let address = prepared.address;
    let stream = TokioIo::new(connect(prepared).await?);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(|source| {
        let message = format!("the connection to {address} could not be set up");
        Error::with_source(ErrorKind::ConnectFailed, message, source)
    })?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // How it ended, the requests on it are told.
        let _ = connection.await;
    });
    Ok(Opened { sender, _driver: driver })
}

async fn collect(response: Response<Incoming>, keep: bool) -> std::result::Result<Whole, Lost> {
    let began = Instant::now();
    let json_length = response.headers().get("inference-header-content-length");
    let json_length = json_length.and_then(|length| length.to_str().ok()?.parse().ok());
    let retry_after = response.headers().contains_key("retry-after");
    let status = response.status();
    let mut read = Read::new(if keep { usize::MAX } else { 0 });
    read.all_of(response.into_body()).await?;
    let Read { length, kept: body, .. } = read;
    Ok(Whole { status, length, body, json_length, retry_after, code: None, began, ended: Instant::now() })
}

/// The answer to a call: one message, and in the trailers how the call ended.
async fn collect_call(response: Response<Incoming>, keep: bool) -> std::result::Result<Whole, Lost> {
    let began = Instant::now();
    let (head, body) = response.into_parts();
    let mut read = Read::new(if keep { usize::MAX } else { PREFIX });
    let trailers = read.all_of(body).await?;
    // Where nothing went before it, the end may be said in the head.
    let end = trailers.as_ref().or((read.length == 0).then_some(&head.headers));
    let code = match end.and_then(|fields| fields.get("grpc-status")) {
        _ if head.status != StatusCode::OK => Code::of_http(head.status.as_u16()),
        Some(code) => Code::of_header(code.as_bytes()),
        None => Code::Unknown,
    };
    if code == Code::Ok && !read.is_one_message() {
        return Err(Lost::Failed(ErrorKind::ProtocolError, read.length));
    }
    let retry_after = end.is_some_and(|fields| fields.contains_key("retry-after"));
    let (status, code, json_length) = (head.status, Some(code), None);
    let Read { length, kept: body, .. } = read;
    Ok(Whole { status, length, body, json_length, retry_after, code, began, ended: Instant::now() })
}

/// What was read of a body.
struct Read {
    length: u64,
    /// Its first bytes, as many as are wanted.
    kept: Vec<u8>,
    wanted: usize,
}

impl Read {
    fn new(wanted: usize) -> Self {
        Self { length: 0, kept: Vec::new(), wanted }
    }

    /// Gives the trailers, where there are any.
    async fn all_of(&mut self, mut body: Incoming) -> std::result::Result<Option<HeaderMap>, Lost> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Lost::Failed(kind_of(&error), self.length))?;
            match frame.into_data() {
                Ok(data) => self.add(&data),
                Err(frame) => return Ok(frame.into_trailers().ok()),
            }
        }
        Ok(None)
    }

    fn add(&mut self, data: &[u8]) {
        self.length += data.len() as u64;
        let more = data.len().min(self.wanted.saturating_sub(self.kept.len()));
        // A copy, since a slice of the read buffer would keep all of that buffer in memory.
        self.kept.extend_from_slice(data.get(..more).unwrap_or_default());
    }

    fn is_one_message(&self) -> bool {
        let Some(([_, length @ ..], _)) = self.kept.split_first_chunk::<PREFIX>() else {
            return false;
        };
        self.length == PREFIX as u64 + u64::from(u32::from_be_bytes(*length))
    }
}

fn kind_of(error: &hyper::Error) -> ErrorKind {
    let Some(cause) = error.source() else {
        return if error.is_canceled() || error.is_closed() {
            ErrorKind::WriteFailed
        } else {
            ErrorKind::ReadFailed
        };
    };
    let spoken = cause.downcast_ref::<h2::Error>();
    let socket = cause.downcast_ref::<io::Error>().or_else(|| spoken.and_then(h2::Error::get_io));
    match socket.map(io::Error::kind) {
        Some(io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero) => ErrorKind::WriteFailed,
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => ErrorKind::ProtocolError,
        // The other side spoke something else; a stream that it reset is one that it did not answer.
        None if spoken
            .is_some_and(|error| error.is_library() || (error.is_remote() && error.is_go_away())) =>
        {
            ErrorKind::ProtocolError
        }
        _ => ErrorKind::ReadFailed,
    }
}
