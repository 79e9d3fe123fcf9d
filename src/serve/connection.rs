//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
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
use super::socket::{self, Socket};
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
        Ok(true) => Box::pin(serve_http2(stream, peer, speaks, door, &watched.watch)).await,
        Ok(false) => serve_http1(stream, peer, speaks, door, &watched.watch).await,
        // It was gone before it said a word.
        Err(_) => {}
    }
}

/// Tells a client that there are too many, and gives it time to read that.
pub(super) async fn refuse(mut stream: TcpStream, most: usize) {
    let told = async {
        stream.write_all(&socket::one_too_many(most)).await?;
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

async fn serve_http1(
    stream: TcpStream,
    peer: SocketAddr,
    speaks: Speaks,
    door: Arc<Door>,
    watch: &Arc<Watch>,
) {
    let grpc_only = speaks == Speaks::Grpc;
    let max_head = door.settings.max_head;
    let counts = Arc::clone(&door);
    let answer = {
        let watch = Arc::clone(watch);
        service_fn(move |request: Request<Incoming>| {
            let (door, watch) = (Arc::clone(&door), Arc::clone(&watch));
            watch.enter(Phase::Body);
            async move {
                let origin = Origin { watch: Some(&watch), peer: Some(peer), grpc_only };
                let mut reply = door.answer(request, origin).await;
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
        let told = stream.write_all(&answer);
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
    }
}

/// A body is read in pieces of at most this size.
const LEAST_BUFFER: usize = 128 << 10;

async fn serve_http2(
    stream: TcpStream,
    peer: SocketAddr,
    speaks: Speaks,
    door: Arc<Door>,
    watch: &Arc<Watch>,
) {
    let grpc_only = speaks == Speaks::Grpc;
    watch.enter(Phase::Quiet);
    let settings = door.settings.clone();
    let answer = {
        let watch = Arc::clone(watch);
        service_fn(move |request: Request<Incoming>| {
            let door = Arc::clone(&door);
            let stream = OpenStream::begin(Arc::clone(&watch));
            async move {
                if grpc::is_call(&request) {
                    return Ok::<_, Infallible>(door.call(request, peer, stream).await);
                }
                let origin = Origin { watch: None, peer: Some(peer), grpc_only };
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
