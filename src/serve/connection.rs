//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::routes::{self, Reply, Route};
use super::{AccessRecord, HttpSettings, Service};
use crate::error::{Error, ErrorKind, Result};

/// Serves a connection until its other side leaves, or until `closing` says so and its last answer is out.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    service: Arc<Service>,
    settings: Arc<HttpSettings>,
    mut closing: watch::Receiver<bool>,
) {
    // Answers are whole: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let header_timeout = settings.header_timeout;
    let answer = service_fn(move |request| {
        let (service, settings) = (Arc::clone(&service), Arc::clone(&settings));
        async move { Ok::<_, Infallible>(noted(&service, &settings, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .pipeline_flush(true)
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // Whatever ended it, the other side knows or is gone.
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Answers a request and notes that it did.
async fn noted(
    service: &Service,
    settings: &HttpSettings,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Reply {
    let Some(log) = &settings.access_log else {
        return handle(service, settings, request).await;
    };
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let request_bytes = request.body().size_hint().lower();
    let reply = handle(service, settings, request).await;
    log.access(AccessRecord {
        at: SystemTime::now(),
        peer: Some(peer),
        protocol: "http/1.1",
        method,
        path,
        status: reply.status().as_u16(),
        took: began.elapsed(),
        request_bytes,
        response_bytes: reply.body().size_hint().lower(),
        id: None,
        model: None,
        rows: None,
        batch: None,
        queue: None,
        batched: None,
        computed: None,
        encoded: None,
    });
    reply
}

async fn handle(service: &Service, settings: &HttpSettings, request: Request<Incoming>) -> Reply {
    let Some(route) = Route::of(request.uri().path()) else {
        return routes::refusal(StatusCode::NOT_FOUND, "there is nothing at this path");
    };
    let fits = *request.method() == route.method()
        || (*request.method() == Method::HEAD && route.method() == Method::GET);
    if !fits {
        let message = format!("this path answers to {}", route.method());
        let mut refusal = routes::refusal(StatusCode::METHOD_NOT_ALLOWED, &message);
        if let Ok(allowed) = route.method().as_str().parse() {
            refusal.headers_mut().insert(http::header::ALLOW, allowed);
        }
        return refusal;
    }
    let answer = match &route {
        Route::Infer { name, version } => match service.model(name, *version) {
            Ok(model) => {
                let model = Arc::clone(model);
                infer(&model, settings, request.into_body()).await
            }
            Err(error) => Err(error),
        },
        other => routes::answer(service, other),
    };
    answer.unwrap_or_else(|error| routes::failure(&error))
}

async fn infer(
    model: &Arc<crate::pipeline::Endpoint>,
    settings: &HttpSettings,
    body: Incoming,
) -> Result<Reply> {
    match Limited::new(body, settings.max_body).collect().await {
        Ok(body) => routes::infer(model, body.to_bytes()).await,
        Err(error) if error.is::<LengthLimitError>() => {
            model.count_invalid();
            let message = format!("the body is larger than max_body={} bytes", settings.max_body);
            Ok(routes::refusal(StatusCode::PAYLOAD_TOO_LARGE, &message))
        }
        Err(error) => Err(Error::new(ErrorKind::Item, format!("the body could not be read: {error}"))),
    }
}
