//! The floor that streamed answers are measured against: bare hyper on one thread, which writes the frames of a chat
//! completion that were made beforehand.
//!
//! Takes the port to listen on. A request says how fast it wants them: `max_tokens` frames, and as its last message
//! `BURST PAUSE`, so many frames at once and so many milliseconds between. Pauses end at the same moment for all
//! streams, as they do where one batch makes a step for all of them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::{Instant, Sleep, sleep_until};

const TOKEN: &[u8] =
    b"data: {\"id\":\"chatcmpl-7f1c9a525b7e4f0c9a550f3a2c1d9e4b\",\"object\":\"chat.completion.chunk\",\
    \"created\":1790000000,\"model\":\"drip\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\
    \"finish_reason\":null}]}\n\n";
const LAST: &[u8] = b"data: {\"id\":\"chatcmpl-7f1c9a525b7e4f0c9a550f3a2c1d9e4b\",\"object\":\"chat.completion.chunk\",\
    \"created\":1790000000,\"model\":\"drip\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n\
    data: [DONE]\n\n";

#[derive(Deserialize)]
struct Ask {
    max_tokens: u64,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

/// What is still to be written of one answer.
struct Tokens {
    began: Instant,
    left: u64,
    burst: u64,
    pause: Duration,
    ready: u64,
    until: Pin<Box<Sleep>>,
    ended: bool,
}

impl Tokens {
    fn new(ask: &Ask, began: Instant) -> Self {
        let mut words = ask.messages.last().map_or("", |message| &message.content).split(' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
        let (burst, pause) = (number(), Duration::from_millis(number()));
        Self {
            began,
            left: ask.max_tokens,
            burst,
            pause,
            ready: 0,
            until: Box::pin(sleep_until(after(began, pause))),
            ended: false,
        }
    }
}

/// The next moment at which all streams of such a pause go on.
fn after(began: Instant, pause: Duration) -> Instant {
    let passed = began.elapsed().as_micros() / pause.as_micros().max(1);
    began + pause * u32::try_from(passed + 1).unwrap_or(u32::MAX)
}

impl Body for Tokens {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if this.left == 0 {
            this.ended = true;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(LAST)))));
        }
        if this.ready == 0 {
            ready!(this.until.as_mut().poll(cx));
            this.until.as_mut().reset(after(this.began, this.pause));
            this.ready = this.burst.min(this.left);
        }
        this.ready -= 1;
        this.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(TOKEN)))))
    }
}

async fn answer(request: Request<Incoming>, began: Instant) -> Result<Response<Tokens>, Infallible> {
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let ask = serde_json::from_slice(&body).unwrap_or(Ask { max_tokens: 0, messages: Vec::new() });
    let mut response = Response::new(Tokens::new(&ask, began));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

#[allow(clippy::print_stdout, reason = "whoever starts it reads the port there")]
fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let began = Instant::now();
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(std::net::SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap_or(0))))?;
        let listener: TcpListener = socket.listen(4096)?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(
                http1::Builder::new().serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| answer(request, began)),
                ),
            );
        }
    }))
}
