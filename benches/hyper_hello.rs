//! The floor that the HTTP door is measured against: bare hyper on one thread, which answers a POST with its body.
//!
//! Takes the port to listen on, or any that is free where none is given; prints it and serves until it is killed.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A client that leaves in the middle of its body gets an empty answer, if any.
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}

#[allow(clippy::print_stdout, reason = "whoever starts it reads the port there")]
fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(
                http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service_fn(echo)),
            );
        }
    }))
}
