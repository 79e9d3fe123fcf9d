//! The floor that the gateway is measured against: bare hyper on one thread, which hands each request on as it is.
//!
//! Takes the port of the upstream, and the port to listen on, or any that is free where none is given; prints it and serves
//! until it is killed. A connection of a client has a connection upstream of its own, which saves it a pool.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::LocalSet;

type Upstream = SendRequest<Full<Bytes>>;

async fn connect(port: u16) -> Option<Upstream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (upstream, connection) = client::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::task::spawn_local(connection);
    Some(upstream)
}

async fn pass(
    upstream: &Mutex<Option<Upstream>>,
    request: Request<Incoming>,
) -> Option<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let mut upstream = upstream.lock().await;
    let sender = upstream.as_mut()?;
    sender.ready().await.ok()?;
    let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await.ok()?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).ok()?;
    Some(Response::from_parts(head, Full::new(body)))
}

#[allow(clippy::print_stdout, reason = "whoever starts it reads the port there")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let wrong = |what| std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
    let there =
        arguments.next().and_then(|port| port.parse().ok()).ok_or_else(|| wrong("no port upstream"))?;
    let here = arguments.next().unwrap_or_else(|| "0".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let listener = TcpListener::bind(format!("127.0.0.1:{here}")).await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                let upstream = Mutex::new(connect(there).await);
                let answer = async |request| {
                    let answer = pass(&upstream, request).await.unwrap_or_else(|| {
                        let mut answer = Response::new(Full::default());
                        *answer.status_mut() = StatusCode::BAD_GATEWAY;
                        answer
                    });
                    Ok::<_, Infallible>(answer)
                };
                let serving = http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                // A client that leaves ends its connection.
                let _ = serving.await;
            });
        }
    }))
}
