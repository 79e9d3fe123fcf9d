//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::answer::ReplyBody;
use super::door::{Door, Origin};
use super::grpc::{self, AnswerBody};
use super::http::Speaks;
use super::security::{Secured, Unsecured};
use super::socket::{self, Socket};
use super::transport::Transport;
use super::watch::{Phase, Verdict, Watch, Watched};

/// How HTTP/2 begins where both sides know that they speak it (RFC 9113, section 3.4); no method begins so.
const PREFACE: &[u8] = b"PRI";

/// A pause before a look at whether the rest of the first three bytes has come.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Time in which a client that is refused can read why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves a connection until its other side leaves, until it takes too long over something, or until the door closes and
/// its last answer is out.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    speaks: Speaks,
    door: Arc<Door>,
    watched: Watched,
) {
    // Answers are whole: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    if door.security.is_encrypted() {
        return Box::pin(serve_encrypted(stream, peer, speaks, door, watched)).await;
    }
    let is_http2 = tokio::select! {
        biased;
        is_http2 = speaks_http2(&stream) => is_http2,
        // A server that closes may still be sent a request that is on its way, but not for longer than this.
        verdict = watched.watch.ended() => match verdict {
            Verdict::Closing => {
                let is_http2 = tokio::time::timeout(LOOK_AGAIN, speaks_http2(&stream)).await;
                // Whoever serves the connection has to hear of it, too.
                watched.watch.end(Verdict::Closing);
                is_http2.unwrap_or(Ok(false))
            }
            _ => return,
        },
    };
    match is_http2 {
        // Apart, so that the many connections that speak HTTP/1 have no room for its state.
        Ok(true) => {
            let from = Came { peer, client: None, speaks };
            Box::pin(serve_http2(Transport::Plain(stream), from, door, &watched.watch)).await;
        }
        Ok(false) => {
            let from = Came { peer, client: None, speaks };
            serve_http1(Transport::Plain(stream), from, door, &watched.watch).await;
        }
        // It was gone before it said a word.
        Err(_) => {}
    }
}

/// Where a connection came from, and by which way in.
struct Came {
    peer: SocketAddr,
    /// Whom the client's certificate names.
    client: Option<Arc<str>>,
    speaks: Speaks,
}

/// As [`serve`], where connections are encrypted. The handshake has the time for a request's head.
async fn serve_encrypted(
    stream: TcpStream,
    peer: SocketAddr,
    speaks: Speaks,
    door: Arc<Door>,
    watched: Watched,
) {
    let secured = {
        let mut handshake = pin!(door.security.handshake(stream, PREFACE));
        tokio::select! {
            biased;
            secured = &mut handshake => secured,
            verdict = watched.watch.ended() => match verdict {
                Verdict::Closing => {
                    // Whoever has come in before the server closed may have more to say, but soon.
                    let Ok(secured) = tokio::time::timeout(LAST_WORDS, handshake).await else { return };
                    watched.watch.end(Verdict::Closing);
                    secured
                }
                _ => return door.security.shook_hands(false),
            },
        }
    };
    door.security.shook_hands(secured.is_ok());
    let Secured { stream, is_http2, client } = match secured {
        Ok(secured) => secured,
        Err(Unsecured::InTheClear(stream)) => return say(stream, &socket::in_the_clear()).await,
        Err(Unsecured::Failed(error)) => {
            tracing::debug!(target: "penstock::serve", %peer, %error, "a tls handshake failed");
            return;
        }
    };
    watched.watch.enter(Phase::New);
    let from = Came { peer, client, speaks };
    let stream = Transport::Tls(stream);
    if is_http2 {
        serve_http2(stream, from, door, &watched.watch).await;
    } else {
        serve_http1(stream, from, door, &watched.watch).await;
    }
}

/// Tells a client that there are too many, and gives it time to read that.
pub(super) async fn refuse(stream: TcpStream, most: usize, encrypted: bool) {
    // In the clear, one who waits for a handshake would not understand it; and a handshake is what costs.
    if !encrypted {
        say(stream, &socket::one_too_many(most)).await;
    }
}

/// Says something in the clear, hangs up, and gives the other side time to read it.
async fn say(mut stream: TcpStream, words: &[u8]) {
    let told = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        // Closing on bytes that were not read would reset the connection, and take the answer with it.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LAST_WORDS, told).await;
}

async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        let begun = first.get(..seen).unwrap_or_default();
        if seen == PREFACE.len() || seen == 0 || !PREFACE.starts_with(begun) {
            return Ok(begun == PREFACE);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn serve_http1(stream: Transport, from: Came, door: Arc<Door>, watch: &Arc<Watch>) {
    let Came { peer, client, speaks } = from;
    let grpc_only = speaks == Speaks::Grpc;
    let max_head = door.settings.max_head;
    let counts = Arc::clone(&door);
    let answer = {
        let watch = Arc::clone(watch);
        service_fn(move |request: Request<Incoming>| {
            let (door, watch, client) = (Arc::clone(&door), Arc::clone(&watch), client.clone());
            watch.enter(Phase::Body);
            async move {
                let client = client.as_ref();
                let origin = Origin { watch: Some(&watch), peer: Some(peer), client, grpc_only };
                let mut reply = door.answer(request, origin).await;
                if watch.is_leaving() {
                    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                match reply.body_mut() {
                    ReplyBody::Whole(_) => watch.enter(Phase::Sending),
                    ReplyBody::Stream(body) => body.watched_by(&watch),
                }
                Ok::<_, Infallible>(reply)
            }
        })
    };
    let mut connection = http1::Builder::new()
        // An answer leaves when it is there, whatever lies in the read buffer: `pipeline_flush` would hold it back, and
        // lose it where that is no request.
        .writev(false)
        .max_header_size(max_head)
        .max_buf_size(max_head.max(LEAST_BUFFER))
        .serve_connection(TokioIo::new(Socket::new(stream, Arc::clone(watch))), answer);
    if drive(&mut connection, watch).await == Left::LateHead {
        counts.metrics.refused("header_timeout");
        let mut stream = connection.into_parts().io.into_inner();
        let answer = socket::late_head();
        let told = async {
            stream.write_all(&answer).await?;
            stream.shutdown().await
        };
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
    }
}

/// A body is read in pieces of at most this size.
const LEAST_BUFFER: usize = 128 << 10;

async fn serve_http2(stream: Transport, from: Came, door: Arc<Door>, watch: &Arc<Watch>) {
    let Came { peer, client, speaks } = from;
    let grpc_only = speaks == Speaks::Grpc;
    watch.enter(Phase::Quiet);
    let settings = door.settings.clone();
    let answer = {
        let watch = Arc::clone(watch);
        service_fn(move |request: Request<Incoming>| {
            let (door, client) = (Arc::clone(&door), client.clone());
            let stream = OpenStream::begin(Arc::clone(&watch));
            async move {
                if grpc::is_call(&request) {
                    return Ok::<_, Infallible>(door.call(request, peer, client, stream).await);
                }
                let client = client.as_ref();
                let origin = Origin { watch: None, peer: Some(peer), client, grpc_only };
                let mut reply = door.answer(request, origin).await;
                if let ReplyBody::Stream(body) = reply.body_mut() {
                    body.hold(stream);
                }
                Ok(reply.map(AnswerBody::Reply))
            }
        })
    };
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(u32::try_from(settings.max_head).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(Socket::new(stream, Arc::clone(watch))), answer);
    drive(&mut connection, watch).await;
}

/// A request of an HTTP/2 connection, for as long as it is open.
pub(super) struct OpenStream(Arc<Watch>);

impl OpenStream {
    fn begin(watch: Arc<Watch>) -> Self {
        watch.stream_begins();
        Self(watch)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.stream_ends();
    }
}

/// How a connection was left.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// Over, whoever ended it.
    Ended,
    /// In the middle of a head that takes too long.
    LateHead,
}

/// A connection of either version.
trait Connection: Future<Output = hyper::Result<()>> + Unpin {
    /// Ends when the answers that it owes are out.
    fn finish(&mut self);
}

impl<S> Connection for http1::Connection<TokioIo<Socket>, S>
where
    S: HttpService<Incoming, ResBody = ReplyBody> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future<Output = hyper::Result<()>> + Unpin,
{
    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

impl<S> Connection for http2::Connection<TokioIo<Socket>, S, TokioExecutor>
where
    S: HttpService<Incoming, ResBody = AnswerBody> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future<Output = hyper::Result<()>> + Unpin,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, AnswerBody>,
{
    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

/// Lets a connection run until it ends or is to end.
async fn drive<C: Connection>(connection: &mut C, watch: &Watch) -> Left {
    let mut finishing = false;
    loop {
        let verdict = tokio::select! {
            biased;
            // Whatever ended it, the other side knows or is gone.
            _ = &mut *connection => return Left::Ended,
            verdict = watch.ended() => verdict,
        };
        match verdict {
            Verdict::LateHead => return Left::LateHead,
            Verdict::Drop => return Left::Ended,
            Verdict::Idle if finishing => return Left::Ended,
            Verdict::Idle | Verdict::Closing => {
                // What the kernel has received already is still read, and answered.
                tokio::task::yield_now().await;
                let last = poll_fn(|context| Poll::Ready(Pin::new(&mut *connection).poll(context)));
                if last.await.is_ready() {
                    return Left::Ended;
                }
                connection.finish();
                finishing = true;
            }
        }
    }
}
