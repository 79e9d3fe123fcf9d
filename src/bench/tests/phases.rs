//! Warm-up, runs that end by the clock, requests that take too long, and runs that somebody ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Server, adds_up, closed, open};
use crate::bench::{Mode, Protocol, Spacing, Watch, run, run_watched};
use crate::error::ErrorKind;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Answers everything after so long.
async fn slow(time: Duration) -> Server {
    Server::http(move |_| async move {
        tokio::time::sleep(time).await;
        Response::new(Full::from("slow"))
    })
    .await
}

#[tokio::test]
async fn percentiles_are_those_of_the_server() {
    // Nine of ten answers take 20 ms, the tenth takes 120.
    let turn = Arc::new(AtomicUsize::new(0));
    let server = Server::http(move |_| {
        let tenth = turn.fetch_add(1, Ordering::Relaxed) % 10 == 9;
        async move {
            tokio::time::sleep(MILLISECOND * if tenth { 120 } else { 20 }).await;
            Response::new(Full::from("known"))
        }
    })
    .await;
    let report = run(&server.plan(10, closed(20))).await.unwrap();
    assert_eq!(report.ok, 200);
    // Timers tick in milliseconds, and a busy machine adds to what they take; nothing takes away from it.
    for (quantile, least, most) in [(0.1, 19, 60), (0.5, 19, 60), (0.85, 19, 100), (0.95, 119, 220)] {
        let found = report.quantile(quantile);
        assert!((MILLISECOND * least..MILLISECOND * most).contains(&found), "{quantile}: {found:?}");
    }
    assert!(report.first_byte.quantile(0.5) >= MILLISECOND * 19);
}

#[tokio::test]
async fn the_first_byte_comes_before_the_last() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n")
                .await
                .unwrap();
            tokio::time::sleep(MILLISECOND * 60).await;
            stream.write_all(b"3\r\nllo\r\n0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let mut plan = server.plan(1, closed(3));
    plan.keep_bodies = true;
    let report = run(&plan).await.unwrap();
    assert!(report.answers().iter().all(|answer| answer.body == b"hello"));
    assert_eq!((report.ok, report.reopened), (3, 0));
    assert!(report.first_byte.quantile(0.5) + MILLISECOND * 40 < report.quantile(0.5), "{report:?}");
}

#[tokio::test]
async fn a_timed_loop_ends_by_the_clock_and_waits_for_what_is_out() {
    let server = slow(MILLISECOND * 30).await;
    let report = run(&server.plan(3, Mode::Timed { duration: MILLISECOND * 200 })).await.unwrap();
    assert!(report.elapsed >= MILLISECOND * 200 && report.elapsed < MILLISECOND * 900, "{report:?}");
    assert!(report.ok >= 3 && report.planned == report.ok && report.unfinished == 0, "{report:?}");
}

#[tokio::test]
async fn clients_share_a_number_of_requests() {
    let server = Server::hello().await;
    let report = run(&server.plan(8, Mode::Shared { requests: 101 })).await.unwrap();
    assert_eq!((report.planned, report.sent, report.ok), (101, 101, 101));
}

#[tokio::test]
async fn the_warm_up_is_left_out_of_every_figure() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    // The server is slow until it is warm.
    let born = Instant::now();
    let server = Server::http(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if born.elapsed() < MILLISECOND * 100 {
                tokio::time::sleep(MILLISECOND * 50).await;
            }
            Response::new(Full::from("hello"))
        }
    })
    .await;
    for mode in [closed(10), Mode::Shared { requests: 20 }, open(200.0, 100, Spacing::Constant)] {
        let before = seen.load(Ordering::Relaxed);
        let mut plan = server.plan(2, mode);
        plan.warmup = MILLISECOND * 200;
        plan.keep_bodies = true;
        let report = run(&plan).await.unwrap();
        assert_eq!((report.planned, report.sent, report.ok, report.answers().len()), (20, 20, 20, 20));
        assert_eq!((report.latency.count(), report.bytes_read), (20, 100));
        assert!(report.warmup_answered > 0 && report.warmup_failed == 0);
        let requests = (seen.load(Ordering::Relaxed) - before) as u64;
        assert_eq!(report.warmup_answered + report.ok, requests);
        assert!(report.elapsed < MILLISECOND * 1000, "{:?}", report.elapsed);
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_lost_and_the_client_goes_on() {
    let turn = Arc::new(AtomicUsize::new(0));
    for streams in [None, Some(2)] {
        let turn = Arc::clone(&turn);
        let answer = move |_| {
            let stuck = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(5);
            async move {
                if stuck {
                    std::future::pending::<()>().await;
                }
                Response::new(Full::from("hello"))
            }
        };
        let server = if streams.is_some() { Server::http2(answer).await } else { Server::http(answer).await };
        let mut plan = server.plan(2, closed(10));
        plan.timeout = MILLISECOND * 50;
        plan.protocol = streams.map_or(Protocol::Http1, |streams| Protocol::Http2 { streams });
        let report = run(&plan).await.unwrap();
        assert_eq!((report.ok, report.transport_errors.get(&ErrorKind::DeadlineExceeded)), (16, Some(&4)));
        // A stream of HTTP/2 is given up alone; a connection of HTTP/1.1 cannot go on.
        assert!(if streams.is_some() { report.reopened == 0 } else { report.reopened >= 3 });
        assert!(adds_up(&report));
    }
}

#[tokio::test]
async fn a_run_that_is_stopped_reports_what_was_found() {
    let server = slow(MILLISECOND).await;
    let plan = server.plan(2, Mode::Timed { duration: Duration::from_mins(1) });
    let watch = Watch::new().unwrap();
    assert_eq!(watch.snapshot().elapsed, None);
    let watched = watch.clone();
    let began = Instant::now();
    let (report, seen) = tokio::join!(run_watched(&plan, &watch), async move {
        while watched.snapshot().answered < 10 {
            tokio::time::sleep(MILLISECOND).await;
        }
        let seen = watched.snapshot();
        watched.stop();
        seen
    });
    let report = report.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(report.stopped && !report.timed_out && report.ok >= seen.ok && adds_up(&report));
    assert!(seen.elapsed.is_some() && seen.p50 >= MILLISECOND && seen.p99 >= seen.p50);
    assert_eq!((seen.failed, seen.wrong), (0, 0));
}

#[tokio::test]
async fn a_watch_can_end_a_run_before_it_begins() {
    let server = Server::hello().await;
    let watch = Watch::new().unwrap();
    watch.stop();
    let ended = run_watched(&server.plan(1, closed(1_000_000)), &watch).await;
    assert!(ended.is_err_and(|error| error.kind() == ErrorKind::Closed));
}

#[tokio::test]
async fn an_open_loop_says_how_many_waited_when_the_last_fell_due() {
    let report =
        run(&slow(MILLISECOND * 20).await.plan(2, open(1000.0, 300, Spacing::Constant))).await.unwrap();
    assert!(report.backlog > 150 && report.ok == 300, "{report:?}");
    let report = run(&Server::hello().await.plan(8, open(200.0, 200, Spacing::Constant))).await.unwrap();
    assert!(report.backlog <= 20, "{}", report.backlog);
}
