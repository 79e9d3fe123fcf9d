//! Many clients at once: every answer belongs to its question.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use penstock::batch::BatchPolicy;
use penstock::bench::{self, Mode, Plan, Report, Target};

use crate::harness::{Door, PATIENCE, Setup, body};

const CLIENTS: usize = 100;
const EACH: usize = 50;

fn run(plan: &Plan) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bench::run(plan)).unwrap()
}

/// Sends a body of its own with every request, and looks whether each came back doubled.
fn all_are_right(door: &Door, rows: usize) -> Report {
    let numbers = |request: usize| -> Vec<f32> {
        (0..rows).map(|row| f32::from(u16::try_from(request * rows + row).unwrap())).collect()
    };
    let bodies = (0..CLIENTS * EACH).map(|request| Bytes::from(body(&numbers(request)))).collect();
    let target = Target::new(&door.address().to_string(), "/v2/models/double/infer").unwrap();
    let mut plan = Plan::new(target, bodies, CLIENTS, Mode::Closed { requests_per_client: EACH });
    plan.keep_bodies = true;
    plan.deadline = PATIENCE * 3;
    let report = run(&plan);
    assert_eq!((report.planned, report.ok), (5_000, 5_000), "{report:?}");
    assert_eq!((report.reopened, report.failed(), report.unfinished), (0, 0, 0));
    for request in 0..CLIENTS * EACH {
        let [answer] = report.answers_to(request) else { panic!("request {request} was not answered once") };
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let expected: Vec<f32> = numbers(request).iter().map(|number| number * 2.0).collect();
        assert_eq!(json["outputs"][0]["data"], serde_json::json!(expected), "request {request}");
    }
    report
}

#[test]
fn a_hundred_clients_get_their_own_answers_in_fewer_batches_than_requests() {
    let door = Door::open();
    all_are_right(&door, 1);
    let stats = door.endpoint.stats();
    assert_eq!((stats.requests, stats.rejected, stats.abandoned), (5_000, 0, 0));
    assert!(stats.batches < stats.requests, "{stats:?}");
    assert_eq!(usize::try_from(stats.batches), Ok(door.taken.load(Ordering::Relaxed)));
    assert!(stats.largest <= 100);
}

#[test]
fn requests_of_several_rows_keep_them_together_under_load() {
    let policy = BatchPolicy { max_size: 16, ..BatchPolicy::default() };
    let door = Door::with(Setup { policy, ..Setup::default() });
    all_are_right(&door, 3);
    let stats = door.endpoint.stats();
    assert_eq!(stats.requests, 15_000);
    assert!(stats.largest <= 16, "{stats:?}");
}

#[test]
fn clients_share_a_batch_while_the_model_is_busy() {
    let door = Door::open();
    door.gate.close();
    let mut wires: Vec<_> = (0..20).map(|_| crate::harness::Wire::open(door.address())).collect();
    wires[0].send(crate::harness::infer(&[0.0]));
    door.wait_taken(1);
    for (number, wire) in (0_u8..).zip(&mut wires).skip(1) {
        wire.send(crate::harness::infer(&[f32::from(number)]));
    }
    door.wait_queued(19);
    door.gate.open();
    for (number, wire) in (0_u8..).zip(&mut wires) {
        assert_eq!(wire.answer().numbers(), [f64::from(number) * 2.0]);
    }
    assert_eq!(door.seen.lock().iter().map(Vec::len).collect::<Vec<_>>(), [1, 19]);
}
