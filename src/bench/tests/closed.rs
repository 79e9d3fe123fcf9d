//! Clients that wait for one answer before they send the next request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{Server, closed};
use crate::bench::{Order, Protocol, run};

fn with_status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("no"));
    *response.status_mut() = status;
    response
}

#[tokio::test]
async fn a_closed_loop_sends_every_request_of_every_client_once() {
    let server = Server::hello().await;
    let report = run(&server.plan(4, closed(25))).await.unwrap();
    assert_eq!((report.planned, report.sent, report.ok, report.unfinished), (100, 100, 100, 0));
    assert_eq!(report.statuses.get(&200), Some(&100));
    assert_eq!((report.reopened, report.gave_up, report.bytes_read), (0, 0, 500));
    assert_eq!((report.latency.count(), report.lag.count()), (100, 0));
    assert!(report.latency.min() <= report.quantile(0.5));
    assert!(report.quantile(0.5) <= report.quantile(0.999));
    assert!(report.quantile(0.999) <= report.latency.max());
    assert!(report.latency.mean() > Duration::ZERO && report.throughput() > 0.0);
    assert!(report.answers().is_empty());
}

#[tokio::test]
async fn every_body_gets_the_answer_that_belongs_to_it() {
    let server = Server::http(|request| async {
        assert_eq!(request.headers().get("x-tenant").unwrap(), "a");
        assert_eq!(request.uri(), "/any?query=1");
        let mut answer = b"echo ".to_vec();
        answer.extend_from_slice(&request.into_body().collect().await.unwrap().to_bytes());
        Response::new(Full::from(answer))
    })
    .await;
    let mut plan = server.plan(3, closed(10));
    plan.target = plan.target.header("X-Tenant", "a").unwrap();
    // The last one is too long for one read.
    plan.bodies = vec!["zero".into(), "one".into(), "two ".repeat(50_000).into()];
    plan.keep_bodies = true;
    let report = run(&plan).await.unwrap();
    assert_eq!(report.answers().len(), 30);
    for (index, body) in plan.bodies.iter().enumerate() {
        let expected = [b"echo ", &body[..]].concat();
        assert_eq!(report.answers_to(index).len(), 10);
        assert!(report.answers_to(index).iter().all(|answer| answer.body == expected));
    }
    assert!(report.answers_to(3).is_empty());
}

#[tokio::test]
async fn bodies_can_be_chosen_by_index() {
    let server = Server::hello().await;
    let mut plan = server.plan(2, closed(3));
    plan.bodies = vec!["a".into(), "b".into(), "c".into()];
    plan.order = Order::Listed(vec![2, 2, 0]);
    plan.keep_bodies = true;
    let report = run(&plan).await.unwrap();
    let indices: Vec<usize> = report.answers().iter().map(|answer| answer.body_index).collect();
    assert_eq!(indices, [0, 0, 2, 2, 2, 2]);
}

#[tokio::test]
async fn error_statuses_are_counted_as_answers() {
    let turn = Arc::new(AtomicUsize::new(0));
    let server =
        Server::http(move |_| {
            let failing = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(4);
            async move {
                with_status(if failing { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CREATED })
            }
        })
        .await;
    let report = run(&server.plan(2, closed(20))).await.unwrap();
    assert_eq!((report.statuses.get(&500), report.statuses.get(&201)), (Some(&10), Some(&30)));
    assert_eq!((report.ok, report.answered(), report.failed()), (30, 40, 0));
}

#[tokio::test]
async fn the_deadline_cuts_a_closed_loop_short() {
    let server = Server::http(|_| std::future::pending()).await;
    let mut plan = server.plan(3, closed(5));
    plan.deadline = Duration::from_millis(100);
    let began = Instant::now();
    let report = run(&plan).await.unwrap();
    assert!((100..400).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!((report.planned, report.sent, report.answered()), (15, 3, 0));
    assert_eq!((report.unfinished, report.failed()), (15, 0));
    assert_eq!((report.quantile(0.99), report.throughput()), (Duration::ZERO, 0.0));
}

#[tokio::test]
async fn dropping_the_run_closes_its_connections() {
    let closed_by_client = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&closed_by_client);
    let server = Server::raw(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            seen.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let plan = server.plan(3, closed(1));
    assert!(timeout(Duration::from_millis(50), run(&plan)).await.is_err());
    while closed_by_client.load(Ordering::Relaxed) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Says no in the words of the request, or yes.
async fn refusing(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let (status, later) = match asked.as_ref() {
        b"full" => (StatusCode::SERVICE_UNAVAILABLE, true),
        b"many" => (StatusCode::TOO_MANY_REQUESTS, true),
        b"down" => (StatusCode::SERVICE_UNAVAILABLE, false),
        _ => (StatusCode::OK, true),
    };
    let mut response = with_status(status);
    if later {
        response.headers_mut().insert("retry-after", "1".parse().unwrap());
    }
    response
}

#[tokio::test]
async fn a_refusal_that_says_when_to_come_again_is_told_from_another() {
    let servers = [
        (Server::http(refusing).await, Protocol::Http1),
        (Server::http2(refusing).await, Protocol::Http2 { streams: 2 }),
    ];
    for (server, protocol) in servers {
        let mut plan = server.plan(2, closed(4));
        plan.protocol = protocol;
        plan.bodies = ["full", "many", "down", "good"].map(Bytes::from).to_vec();
        let report = run(&plan).await.unwrap();
        assert_eq!((report.answered(), report.ok, report.refused), (8, 2, 4));
    }
}
