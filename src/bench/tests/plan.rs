//! What is refused before anything is sent.

use std::time::Duration;

use bytes::Bytes;

use super::{closed, open};
use crate::bench::{Mode, Order, Plan, Protocol, Spacing, Target, run};
use crate::error::ErrorKind;

#[test]
fn targets_off_this_machine_are_refused() {
    for authority in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "localhost:80"] {
        assert!(Target::new(authority, "/").is_ok(), "{authority}");
    }
    let outside = [
        "10.0.0.1:80",
        "0.0.0.0:80",
        "[::]:80",
        "[2001:db8::1]:80",
        "example.org:80",
        "127.0.0.1",
        "localhost.example.org:80",
        "localhost:",
    ];
    for authority in outside {
        let error = Target::new(authority, "/").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("not a loopback address"), "{error}");
        assert!(error.message().contains("rule of this workplace"), "{error}");
    }
}

#[test]
fn targets_that_are_not_http_are_refused() {
    assert_eq!(Target::new("[::1]:80", "no-slash").unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(Target::new("[::1]:80", "/a b").unwrap_err().kind(), ErrorKind::Config);
    let target = Target::new("[::1]:80", "/").unwrap();
    assert!(target.clone().header("a b", "c").is_err());
    assert!(target.clone().header("a", "b\nc").is_err());
    assert!(target.header("Content-Length", "3").is_err());
}

#[tokio::test]
async fn plans_that_cannot_be_carried_out_are_refused_by_the_limit_they_break() {
    let change = |text: &'static str, change: fn(&mut Plan)| async move {
        let target = Target::new("127.0.0.1:9", "/").unwrap();
        let mut plan = Plan::new(target, vec![Bytes::new()], 1, closed(1));
        change(&mut plan);
        let error = run(&plan).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(text), "{error}");
    };
    change("0 clients", |plan| plan.clients = 0).await;
    change("10000", |plan| plan.clients = 10_001).await;
    change("deadline", |plan| plan.deadline = Duration::MAX).await;
    change("no body", |plan| plan.bodies.clear()).await;
    change("list of bodies", |plan| {
        plan.order = Order::Listed(Vec::new());
    })
    .await;
    change("body 1", |plan| plan.order = Order::Listed(vec![0, 1])).await;
    change("timeout", |plan| plan.timeout = Duration::ZERO).await;
    change("warmup", |plan| plan.warmup = Duration::MAX).await;
    change("CONNECT", |plan| plan.method = http::Method::CONNECT).await;
    change("0 streams", |plan| plan.protocol = Protocol::Http2 { streams: 0 }).await;
    change("0 streams", |plan| plan.protocol = Protocol::Grpc { streams: 0 }).await;
    change("method GET is not POST", |plan| {
        (plan.protocol, plan.method) = (Protocol::Grpc { streams: 1 }, http::Method::GET);
    })
    .await;
    change("0 requests are", |plan| plan.mode = Mode::Shared { requests: 0 }).await;
    change("duration", |plan| plan.mode = Mode::Timed { duration: Duration::ZERO }).await;
    change("connection has no place", |plan| {
        plan.target = plan.target.clone().header("connection", "x").unwrap();
        plan.protocol = Protocol::Http2 { streams: 1 };
    })
    .await;
    change("0 requests", |plan| plan.mode = closed(0)).await;
    change("rate 0 ", |plan| {
        plan.mode = open(0.0, 1, Spacing::Constant);
    })
    .await;
    change("rate NaN", |plan| {
        plan.mode = open(f64::NAN, 1, Spacing::Constant);
    })
    .await;
    change("duration", |plan| {
        plan.mode = open(1.0, 0, Spacing::Constant);
    })
    .await;
}
