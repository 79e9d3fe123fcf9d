//! Requests that fall due by a schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::Full;

use super::{Server, adds_up, open};
use crate::bench::arrivals::Schedule;
use crate::bench::{Spacing, run};

#[tokio::test]
async fn an_open_loop_keeps_to_its_rate() {
    let server = Server::hello().await;
    let report = run(&server.plan(8, open(1000.0, 1000, Spacing::Constant))).await.unwrap();
    assert_eq!((report.planned, report.ok, report.unfinished), (1000, 1000, 0));
    assert!(report.elapsed >= Duration::from_millis(999), "{:?}", report.elapsed);
    assert!(report.elapsed < Duration::from_millis(1500), "{:?}", report.elapsed);
    assert!((650.0..1002.0).contains(&report.throughput()), "{}", report.throughput());
    assert!(report.lag.count() > 500);
    assert!(report.lag.quantile(0.5) < Duration::from_millis(5), "{:?}", report.lag.quantile(0.5));
}

#[tokio::test]
async fn an_open_loop_carries_the_bodies_in_order() {
    let server = Server::hello().await;
    let mut plan = server.plan(2, open(400.0, 50, Spacing::Poisson { seed: 7 }));
    plan.bodies = vec!["a".into(), "b".into()];
    plan.keep_bodies = true;
    let report = run(&plan).await.unwrap();
    let (first, second) = (report.answers_to(0).len(), report.answers_to(1).len());
    assert_eq!((first + second) as u64, report.planned);
    assert!(first == second || first == second + 1);
}

#[test]
fn constant_arrivals_are_evenly_spaced_and_do_not_drift() {
    let due: Vec<Duration> = Schedule::new(3.0, Duration::from_secs(1000), Spacing::Constant).collect();
    assert_eq!(due.len(), 3000);
    assert_eq!(due[2997], Duration::from_secs(999));
}

#[test]
fn poisson_arrivals_are_the_same_for_a_seed_and_keep_to_the_rate() {
    let schedule =
        |seed| Schedule::new(1000.0, Duration::from_secs(10), Spacing::Poisson { seed }).collect::<Vec<_>>();
    let due = schedule(1);
    assert_eq!(due, schedule(1));
    assert_ne!(due, schedule(2));
    assert!((9_600..10_400).contains(&due.len()), "{}", due.len());
    assert!(due.is_sorted());
    // Of exponential gaps, 1 in e is longer than the mean.
    let long = due.windows(2).filter(|pair| pair[1] > pair[0] + Duration::from_millis(1)).count();
    assert!((3_300..4_100).contains(&long), "{long}");
}

/// While the server stalls, four requests are on its four connections and a hundred others fall due. A load generator
/// that counted from the moment of sending would report four slow ones of a thousand, and a p99 that knows of none.
#[tokio::test]
async fn a_server_that_stalls_once_shows_in_the_latency_of_all_that_fell_due_meanwhile() {
    let stall = Duration::from_millis(200);
    let turn = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Mutex::new(()));
    let server = Server::http(move |_| {
        let number = turn.fetch_add(1, Ordering::Relaxed);
        let gate = Arc::clone(&gate);
        async move {
            let _open = gate.lock().await;
            if number == 300 {
                tokio::time::sleep(stall).await;
            }
            Response::new(Full::from("hello"))
        }
    })
    .await;
    let report = run(&server.plan(4, open(1000.0, 1000, Spacing::Constant))).await.unwrap();
    assert_eq!((report.ok, report.unfinished), (1000, 0));
    assert!(report.quantile(0.99) > Duration::from_millis(150), "{:?}", report.quantile(0.99));
    assert!(report.quantile(0.9) > Duration::from_millis(60), "{:?}", report.quantile(0.9));
    assert!(report.quantile(0.5) < Duration::from_millis(60), "{:?}", report.quantile(0.5));
    // Waiting for a busy connection is not the load generator's own lateness.
    assert!(report.lag.count() < 950);
}

#[tokio::test]
async fn a_server_that_is_too_slow_leaves_requests_unfinished_at_the_deadline() {
    let server = Server::http(|_| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Response::new(Full::from("slow"))
    })
    .await;
    let mut plan = server.plan(2, open(1000.0, 400, Spacing::Constant));
    plan.deadline = Duration::from_millis(600);
    let began = Instant::now();
    let report = run(&plan).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(report.planned, 400);
    assert!(report.unfinished > 300 && adds_up(&report), "{report:?}");
    assert!(report.sent >= report.ok && report.sent <= report.ok + 2);
    assert!(report.latency.max() > Duration::from_millis(300), "{:?}", report.latency.max());
}

#[tokio::test]
async fn the_deadline_cuts_the_schedule_of_an_open_loop_short() {
    let server = Server::hello().await;
    let mut plan = server.plan(2, open(100.0, 60_000, Spacing::Constant));
    plan.deadline = Duration::from_millis(300);
    let report = run(&plan).await.unwrap();
    assert!((10..100).contains(&report.planned), "{}", report.planned);
    assert!(adds_up(&report));
}
