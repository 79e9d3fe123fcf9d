//! A server of hyper's on a simulated host: it notes which requests it has computed, and answers each with its number.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;
use turmoil::net::TcpListener;

pub(crate) const PORT: u16 = 80;

/// Numbers of requests in the order in which they were computed, on whichever host.
pub(crate) type Computed = Rc<RefCell<Vec<(&'static str, String)>>>;

/// Serves until its host crashes. HTTP/1.1 or HTTP/2, as the client opens with. A request takes `time` to be computed.
pub(crate) async fn serve(
    host: &'static str,
    http2: bool,
    time: Duration,
    computed: Computed,
) -> turmoil::Result {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let computed = Rc::clone(&computed);
        let service = service_fn(move |request| answer(host, time, Rc::clone(&computed), request));
        spawn_local(async move {
            let stream = TokioIo::new(stream);
            // A connection that breaks is what this is about.
            let _ = if http2 {
                hyper::server::conn::http2::Builder::new(LocalExecutor)
                    .serve_connection(stream, service)
                    .await
            } else {
                hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
            };
        });
    }
}

#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

async fn answer(
    host: &'static str,
    time: Duration,
    computed: Computed,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = request.uri().path().trim_start_matches('/').to_owned();
    // A body that breaks off is no request.
    let Ok(body) = request.into_body().collect().await else { return Ok(Response::default()) };
    computed.borrow_mut().push((host, number.clone()));
    tokio::time::sleep(time).await;
    let mut said = number.into_bytes();
    said.push(b' ');
    said.extend_from_slice(&body.to_bytes());
    Ok(Response::new(Full::new(said.into())))
}
