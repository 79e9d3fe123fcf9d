//! HTTP/2 over one connection (RFC 9113): many requests at a time, each a stream of its own.
//!
//! Over the crate h2 rather than hyper, which does not tell how many streams the server allows.

mod body;
mod driver;
mod signals;
mod stream;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response};
use tokio::runtime::Handle;
use tokio::time::timeout;

pub use body::Http2Body;
pub(super) use body::{PIECE, Upload};
pub(super) use stream::Inbound;

use driver::Driver;
use signals::{Counted, Signals};

use super::io::Stream;
use super::pieces::Pieces;
use super::timer::Timers;
use super::tls::failure_words;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Condition;

/// Stands for "the server has not said yet"; no server allows so many.
const UNTOLD: usize = usize::MAX - 1;

/// The most that a window can be (RFC 9113, section 6.9.1).
const MOST_WINDOW: u32 = (1 << 31) - 1;

/// How many bytes of bookkeeping h2 may keep for small frames that nobody has read yet, in connection windows. Its
/// default is a half, and then it ends the connection: eight readers that pause over a stream of tokens would do.
const SMALL_FRAMES: usize = 8;

/// How many requests that were given up h2 remembers, to ignore what is still under way for them.
const REMEMBERED: usize = 1024;

/// How a connection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Settings {
    /// The most requests that it carries at a time, where the server does not allow fewer.
    pub streams: usize,
    /// How many bytes of a response may lie unread before the server has to wait. The connection's own window is as large
    /// as those of all streams together (up to what the protocol allows), so that readers who pause stall no other.
    pub stream_window: u32,
    /// How long the server may take for its first frame.
    pub handshake_timeout: Duration,
    /// After how long without a byte the server is asked whether it is still there, while it owes an answer.
    pub ping_after: Duration,
    /// How long it may take to answer that.
    pub ping_timeout: Duration,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            streams: 128,
            stream_window: 1 << 20,
            handshake_timeout: Duration::from_secs(5),
            ping_after: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

impl Http2Settings {
    fn check(&self) -> Result<()> {
        if self.streams == 0 {
            return Err(Error::new(ErrorKind::Config, "the number of streams of a connection is 0"));
        }
        if !(1..=MOST_WINDOW).contains(&self.stream_window) {
            return Err(Error::new(
                ErrorKind::Config,
                "the window of a stream is not between 1 and 2147483647 bytes",
            ));
        }
        Ok(())
    }

    fn connection_window(&self) -> u32 {
        let all = self.streams.saturating_mul(usize::try_from(self.stream_window).unwrap_or(usize::MAX));
        u32::try_from(all).map_or(MOST_WINDOW, |all| all.clamp(u32::from(u16::MAX), MOST_WINDOW))
    }
}

/// A connection that speaks HTTP/2. Clones are handles of the same one; it is closed when the last of them and the last
/// response are gone.
#[derive(Clone)]
pub struct Http2 {
    shared: Arc<Shared>,
}

struct Shared {
    sender: SendRequest<Bytes>,
    timers: Arc<Timers>,
    signals: Arc<Signals>,
    streams: usize,
}

/// Why a request got no answer.
#[derive(Debug)]
pub struct SendError {
    /// What went wrong.
    pub error: Error,
    /// Whether the server certainly did nothing about it, so that it may be sent again whatever its method.
    pub unsent: bool,
    /// Why the server reset this one stream, where it did.
    pub reset: Option<Reason>,
}

impl SendError {
    /// A request that did not leave.
    pub(super) fn before(error: Error) -> Self {
        Self { error, unsent: true, reset: None }
    }

    /// A request that may have arrived.
    pub(super) fn after(error: Error) -> Self {
        Self { error, unsent: false, reset: None }
    }
}

impl Http2 {
    /// Greets the server and waits for its greeting, which says how many streams it allows. Then a task of the runtime
    /// that this runs on drives the connection.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectFailed`] where the other side does not speak HTTP/2 or closes the connection,
    /// [`ErrorKind::ConnectTimeout`] where it says nothing in time, [`ErrorKind::Config`] where a setting makes no sense.
    pub async fn handshake(stream: Stream, settings: Http2Settings) -> Result<Self> {
        settings.check()?;
        let runtime = Handle::try_current().map_err(|error| {
            Error::with_source(ErrorKind::Internal, "there is no runtime to drive it", error)
        })?;
        let signals = Arc::new(Signals::default());
        let greeting = greet(Counted::new(stream, Arc::clone(&signals)), &settings);
        let greeted = timeout(settings.handshake_timeout, greeting).await.map_err(|_| {
            let limit = settings.handshake_timeout.as_secs_f64();
            let message = format!("the other side sent no HTTP/2 settings within {limit} s");
            Error::new(ErrorKind::ConnectTimeout, message)
        })?;
        let (sender, connection) = greeted.map_err(|error| {
            let why = words(&error);
            let message = match error.get_io() {
                Some(_) if why.ends_with("give cert=") => why,
                _ => format!("the other side does not speak HTTP/2: {why}"),
            };
            Error::with_source(ErrorKind::ConnectFailed, message, error)
        })?;
        signals.allow(connection.max_concurrent_send_streams());
        let timers = Arc::default();
        let shared = Shared { sender, timers, signals: Arc::clone(&signals), streams: settings.streams };
        let shared = Arc::new(shared);
        drop(runtime.spawn(Driver::new(connection, Arc::downgrade(&shared), signals, &settings)));
        Ok(Self { shared })
    }

    /// How many requests it carries at a time: as many as both the server and the settings allow. Changes when the server
    /// says so.
    pub fn capacity(&self) -> usize {
        self.shared.signals.allowed().min(self.shared.streams)
    }

    /// Whether it takes requests. No system call.
    pub fn condition(&self) -> Condition {
        self.shared.signals.condition()
    }

    /// Timers for whoever waits for something of this connection.
    pub(super) fn timers(&self) -> Arc<Timers> {
        Arc::clone(&self.shared.timers)
    }

    /// How many requests it carries now; one counts until its response's body is dropped.
    pub fn open_streams(&self) -> usize {
        self.shared.signals.open()
    }

    /// Sends a request, and gives the head of its response and what follows. The URL of `head` is absolute. Headers that
    /// concern a connection of HTTP/1.1, `Host` included, are left out (RFC 9113, section 8.2.2). To drop the future, or
    /// the body later, resets the stream, and the connection goes on.
    ///
    /// # Errors
    /// A [`SendError`] that tells whether the server can have seen the request.
    pub async fn send(
        &self,
        head: Request<()>,
        body: Bytes,
    ) -> std::result::Result<(Response<()>, Http2Body), SendError> {
        self.send_with(head, body.is_empty(), |stream| Upload::new(stream, body)).await
    }

    /// As [`Http2::send`], with a body that is made while it is sent.
    pub(super) async fn send_pieces(
        &self,
        head: Request<()>,
        pieces: Pieces,
    ) -> std::result::Result<(Response<()>, Http2Body), SendError> {
        self.send_with(head, false, |stream| Upload::of_pieces(stream, pieces)).await
    }

    async fn send_with(
        &self,
        mut head: Request<()>,
        is_bodiless: bool,
        upload: impl FnOnce(SendStream<Bytes>) -> Upload,
    ) -> std::result::Result<(Response<()>, Http2Body), SendError> {
        let signals = &self.shared.signals;
        strip(head.headers_mut());
        let before = signals.written();
        let opened = signals.open_stream();
        let mut sender = self.shared.sender.clone();
        let unsent = |error| signals.not_sent(error);
        poll_fn(|context| sender.poll_ready(context)).await.map_err(unsent)?;
        let (mut response, stream) = sender.send_request(head, is_bodiless).map_err(unsent)?;
        drop(sender);
        let mut upload = upload(stream);
        match poll_fn(|context| poll_response(&mut upload, &mut response, context)).await {
            Ok(response) => {
                let (head, stream) = response.into_parts();
                Ok((Response::from_parts(head, ()), Http2Body::new(stream, upload, opened)))
            }
            Err(error) => {
                // Where not a byte has left since, nothing of it can have arrived.
                let unsent = refused(&error) || signals.written() == before;
                let reset = error.reason().filter(|_| error.is_remote() && error.is_reset());
                Err(SendError { error: signals.failure("the server gave no answer", error), unsent, reset })
            }
        }
    }
}

/// The server may answer before it has the whole body.
fn poll_response(
    upload: &mut Upload,
    response: &mut ResponseFuture,
    context: &mut Context<'_>,
) -> Poll<std::result::Result<Response<h2::RecvStream>, h2::Error>> {
    upload.advance(context);
    std::pin::Pin::new(response).poll(context)
}

type Greeted = (SendRequest<Bytes>, Connection<Counted, Bytes>);

async fn greet(stream: Counted, settings: &Http2Settings) -> std::result::Result<Greeted, h2::Error> {
    let window = settings.connection_window();
    let (sender, mut connection) = Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(window)
        .data_frame_budget(usize::try_from(window).unwrap_or(usize::MAX).saturating_mul(SMALL_FRAMES))
        .max_concurrent_reset_streams(REMEMBERED)
        .initial_max_send_streams(UNTOLD)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await?;
    poll_fn(|context| {
        let ended = std::pin::Pin::new(&mut connection).poll(context);
        match ended {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => Poll::Ready(Err(Reason::NO_ERROR.into())),
            Poll::Pending if connection.max_concurrent_send_streams() == UNTOLD => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        }
    })
    .await?;
    Ok((sender, connection))
}

/// Whether the server says that it did nothing about the request (RFC 9113, section 8.7). h2 gives a GOAWAY to those
/// streams only that stand above the last one which the server took up.
fn refused(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

fn strip(headers: &mut HeaderMap) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, HOST] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|value| value != "trailers") {
        headers.remove(TE);
    }
}

/// What went wrong, in words.
fn words(error: &h2::Error) -> String {
    match (error.get_io(), error.reason()) {
        (Some(error), _) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            "the connection was closed".to_owned()
        }
        (Some(error), _) => failure_words(error),
        (None, Some(Reason::NO_ERROR)) => "the server closed the connection".to_owned(),
        (None, Some(reason)) if error.is_remote() && error.is_reset() => {
            format!("the server reset the stream ({reason})")
        }
        (None, Some(reason)) if error.is_remote() => format!("the server ended the connection ({reason})"),
        (None, Some(reason)) => format!("the server broke the protocol ({reason})"),
        (None, None) => error.to_string(),
    }
}
