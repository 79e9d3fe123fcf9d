//! What is recorded, read again, and what policy it asks for.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Crowd, key, tick, window, write};
use crate::batch::simulate::{Call, Service};
use crate::batch::trace::{Measured, Trace};
use crate::batch::tune::tune;
use crate::batch::{Adaptive, BatchPolicy, Batcher, Dispatch, Ran, Terms};
use crate::error::ErrorKind;
use crate::flow::{Clock, TimeSource, VirtualClock};

const MS: Duration = Duration::from_millis(1);

fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("load.jsonl");
    fs::write(&path, text).unwrap();
    path
}

fn head(policy: &str) -> String {
    format!("{{\"penstock_trace\":1,\"workers\":1,\"policy\":{{{policy}}}}}\n")
}

const TICK: &str = "\"max_batch_size\":100,\"min_batch_size\":1,\"max_wait\":0.05,\"dispatch\":\"tick\",\
                    \"max_queue\":10000,\"aging\":1.0";

#[test]
fn what_happened_is_read_as_it_happened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("load.jsonl");
    let clock = Arc::new(VirtualClock::new());
    let target = Some(MS * 40);
    let policy = BatchPolicy { adaptive: Some(Adaptive { low: 5, target }), ..window(50, MS * 10) };
    let batcher =
        Batcher::<usize, u64>::with(policy.clone(), 3, TimeSource::Virtual(Arc::clone(&clock))).unwrap();
    clock.advance(MS * 7);
    let recorder = batcher.record(&path).unwrap();
    let crowd = &mut Crowd::default();
    let submit = |number: u64, terms: Terms| {
        batcher.submit(&key(0), terms, number, |rows| write(rows, number), &mut Crowd::default()).unwrap();
    };
    submit(0, Terms::default());
    submit(1, Terms { deadline: Some(clock.now() + MS * 250), ..Terms::default() });
    clock.advance(MS * 10);
    let batch = batcher.take(crowd).unwrap();
    clock.advance(MS * 4);
    batcher.finish(batch.cut.number, Ran::Whole(MS * 4));
    recorder.close().unwrap();
    recorder.close().unwrap();
    // Only what happened until then.
    submit(2, Terms::default());
    assert_eq!(recorder.counts(), (3, 1));
    let trace = Trace::read(&path).unwrap();
    assert_eq!((trace.policy.clone(), trace.workers, trace.dropped), (policy, 3, 0));
    assert_eq!(trace.requests(), 2);
    assert_eq!(trace.arrivals[0].timeout, None);
    assert_eq!(trace.arrivals[1].timeout, Some(MS * 250));
    assert!(trace.arrivals.iter().all(|arrival| arrival.at.is_zero()));
    assert_eq!(trace.batches, [(2, 2, MS * 4)]);
}

#[test]
fn a_file_that_cannot_be_written_says_so_at_once() {
    let batcher = Batcher::<usize, u64>::new(tick(10)).unwrap();
    let error = batcher.record(&PathBuf::from("/nowhere/at/all")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("/nowhere/at/all"), "{error}");
}

#[test]
fn what_is_no_trace_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let arrival = "{\"at\":0.0,\"rows\":1,\"cost\":1}\n";
    let refused = |text: &str, named: &str| {
        let error = Trace::read(&file(&folder, text)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(named), "{error}");
    };
    refused("", "empty");
    refused("hello\n", "line 1: \"hello\" is no line");
    refused(arrival, "line 1: a trace begins with");
    refused(&(head(TICK) + arrival + "{\"at\":-1.0,\"rows\":1,\"cost\":1}\n"), "line 3: at=-1");
    refused(&(head(TICK) + "{\"at\":0.0,\"rows\":1}\n"), "line 2");
    refused(&(head(TICK) + "{\"at\":0.0,\"rows\":1,\"cost\":1,\"more\":2}\n"), "line 2");
    refused(&(head(TICK) + &head(TICK)), "line 2: a trace begins once");
    refused(&head(TICK).replace(":1,\"workers", ":9,\"workers"), "version 1, not 9");
    refused(&head(&TICK.replace(":100,", ":0,")), "line 1: its policy");
    refused(&head(&TICK.replace("tick", "tock")), "line 1: its policy");
    refused(&(head(TICK) + &"x".repeat(100_000)), "line 2: it has no end");
    let error = Trace::read(&folder.path().join("none")).unwrap_err();
    assert!(error.message().contains("none"), "{error}");
    let cut_off = head(TICK) + arrival + "{\"at\":0.1,\"ro";
    assert_eq!(Trace::read(&file(&folder, &cut_off)).unwrap().requests(), 1, "a killed process left it");
}

#[test]
fn the_function_is_as_fast_as_it_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let batch = |size: u64, took: f64| {
        format!("{{\"taken\":0.0,\"batch\":{size},\"cost\":{size},\"took\":{took}}}\n")
    };
    let text = head(TICK) + &batch(10, 0.002) + &batch(100, 0.011) + &batch(10, 0.002) + &batch(50, 0.006);
    let trace = Trace::read(&file(&folder, &text)).unwrap();
    let mut measured = Measured::of(&trace).unwrap();
    let mut takes = |rows: usize| {
        let call = Call { rows, cost: rows as u64, padded_cost: rows as u64 };
        measured.takes(&call, &mut fastrand::Rng::with_seed(1)).as_secs_f64()
    };
    for (rows, expected) in [(1, 0.002), (10, 0.002), (30, 0.004), (50, 0.006), (75, 0.0085), (200, 0.021)] {
        let found = takes(rows);
        assert!((found - expected).abs() < 1e-6, "{rows} rows: {found}, not {expected}");
    }
}

/// A trace of a function of 10 ms and 0.1 ms a row, which a batch size of 8 made slow.
fn slow_by_small_batches() -> String {
    let mut text = head(&TICK.replace("100", "8"));
    let mut rng = fastrand::Rng::with_seed(3);
    for number in 0..6_000_u32 {
        let at = f64::from(number) / 1_000.0 + 0.0005 * rng.f64();
        writeln!(text, "{{\"at\":{at},\"rows\":1,\"cost\":1}}").unwrap();
    }
    for size in 1..=64_u32 {
        let took = 0.010 + 0.0001 * f64::from(size) * (1.0 + 0.1 * rng.f64());
        writeln!(text, "{{\"taken\":0.0,\"batch\":{size},\"cost\":{size},\"took\":{took}}}").unwrap();
    }
    text
}

#[test]
fn a_policy_that_cannot_keep_up_is_replaced_by_one_that_can() {
    let folder = tempfile::tempdir().unwrap();
    let trace = Trace::read(&file(&folder, &slow_by_small_batches())).unwrap();
    let found = tune(&trace, Some(MS * 50), 1).unwrap();
    assert!(found.recorded.in_time < 0.2, "{:?}", found.recorded);
    assert!(found.best.in_time > 0.99, "{:?}", found.best);
    assert!(found.best.policy.max_size >= 16, "{:?}", found.best);
    assert_eq!(found.best.policy.dispatch, Dispatch::Tick);
    assert!(found.best.p99 <= MS * 50);
    assert_eq!(found.replayed, 6_000);
    // The same again says the same.
    let again = tune(&trace, Some(MS * 50), 1).unwrap();
    assert_eq!(again.best.policy, found.best.policy);
}

#[test]
fn a_policy_that_is_as_good_as_any_stays() {
    let folder = tempfile::tempdir().unwrap();
    let text = slow_by_small_batches().replacen("\"max_batch_size\":8", "\"max_batch_size\":77", 1);
    let trace = Trace::read(&file(&folder, &text)).unwrap();
    assert_eq!(tune(&trace, None, 1).unwrap().best.policy.max_size, 77);
    let nothing = Trace::read(&file(&folder, &head(TICK))).unwrap();
    assert_eq!(tune(&nothing, None, 1).unwrap_err().kind(), ErrorKind::Config);
}
