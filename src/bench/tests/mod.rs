//! The load generator against real servers on free ports of this machine.

mod broken;
mod calls;
mod check;
mod closed;
mod open;
mod phases;
mod plan;
mod wires;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Mode, Plan, Report, Spacing, Target};

/// A server on a free port; dropping it ends it.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Hands every connection to `serve`.
    async fn raw<S, F>(serve: S) -> Self
    where
        S: Fn(TcpStream) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(stream));
            }
        });
        Self { address, accepted, _tasks: tasks }
    }

    /// Where somebody else listens, or nobody.
    fn gone(listener: &TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        Self { address, accepted: Arc::default(), _tasks: JoinSet::new() }
    }

    /// How many connections it has accepted.
    fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Answers every request with `answer`.
    async fn http<S, F>(answer: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::raw(move |stream| {
            let answer = answer.clone();
            async move {
                let _ = stream.set_nodelay(true);
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// Likewise over HTTP/2 by prior knowledge.
    async fn http2<S, F>(answer: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::raw(move |stream| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let builder = http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    async fn hello() -> Self {
        Self::http(|_| async { Response::new(Full::from("hello")) }).await
    }

    fn plan(&self, clients: usize, mode: Mode) -> Plan {
        let target = Target::new(&self.address.to_string(), "/any?query=1").unwrap();
        let mut plan = Plan::new(target, vec![Bytes::from_static(b"{}")], clients, mode);
        plan.deadline = Duration::from_secs(20);
        plan
    }
}

fn closed(requests_per_client: usize) -> Mode {
    Mode::Closed { requests_per_client }
}

fn open(rate_per_second: f64, milliseconds: u64, spacing: Spacing) -> Mode {
    Mode::Open { rate_per_second, duration: Duration::from_millis(milliseconds), spacing }
}

fn adds_up(report: &Report) -> bool {
    report.planned == report.answered() + report.failed() + report.unfinished
}
