//! Where an answer says that its time went.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock::batch::{BatchPolicy, Dispatch};
use penstock::error::Result;
use penstock::pipeline::{AnswerRow, BatchAccount};
use penstock::serve::HttpSettings;
use penstock::tensor::Spares;

use crate::harness::{Answer, Door, INFER, Setup, Wire, bare, body, double, infer, post};

const NAP: Duration = Duration::from_millis(40);

fn naps(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    std::thread::sleep(NAP);
    double(rows, spares)
}

/// Milliseconds by part, and what is said about the batch.
fn parts(answer: &Answer) -> (HashMap<String, f64>, String) {
    let header = answer.header("server-timing").expect("there is no server-timing");
    let mut times = HashMap::new();
    let mut about = String::new();
    for part in header.split(", ") {
        let mut fields = part.split(';');
        let name = fields.next().unwrap().to_owned();
        for field in fields {
            match field.split_once('=').unwrap() {
                ("dur", time) => drop(times.insert(name.clone(), time.parse().unwrap())),
                ("desc", text) => text.trim_matches('"').clone_into(&mut about),
                other => panic!("{other:?} in {header}"),
            }
        }
    }
    for part in ["queue", "slot", "gather", "model", "scatter", "encode"] {
        assert!(times.contains_key(part), "{header}");
    }
    assert_eq!(times.len(), 6, "{header}");
    (times, about)
}

#[test]
fn an_answer_says_where_its_time_went() {
    let door = Door::with(Setup { model: naps, ..Setup::default() });
    let mut wire = Wire::open(door.address());
    let begin = Instant::now();
    let answer = wire.ask(infer(&[1.0, 2.0, 3.0]));
    let passed = begin.elapsed().as_secs_f64() * 1e3;
    let (times, about) = parts(&answer);
    assert_eq!(about, "tick 3");
    assert!(times["model"] >= NAP.as_secs_f64() * 1e3, "{times:?}");
    let sum = times.values().sum::<f64>();
    assert!(sum <= passed + 0.01, "{times:?} is more than {passed} ms");
}

#[test]
fn whoever_waits_for_a_worker_sees_that_in_his_slot() {
    let door = Door::open();
    door.gate.close();
    let mut running = Wire::open(door.address());
    running.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut queued = [Wire::open(door.address()), Wire::open(door.address())];
    for (at, wire) in queued.iter_mut().enumerate() {
        wire.send(infer(&[2.0]));
        door.wait_queued(at + 1);
    }
    std::thread::sleep(NAP);
    door.gate.open();
    let nap = NAP.as_secs_f64() * 1e3;
    let (times, _) = parts(&running.answer());
    assert!(
        times["gather"] >= nap && times["model"] < nap,
        "a worker that is held up is no model: {times:?}"
    );
    for wire in &mut queued {
        let (times, about) = parts(&wire.answer());
        assert!(times["slot"] >= nap && times["queue"] < nap, "{times:?}");
        assert!(about.ends_with(" 2"), "{about}");
    }
}

#[test]
fn whoever_waits_for_company_sees_that_in_his_queue() {
    let nap = NAP.as_secs_f64() * 1e3;
    let policy =
        BatchPolicy { dispatch: Dispatch::Window, max_wait: NAP, max_size: 2, ..BatchPolicy::default() };
    let door = Door::with(Setup { policy, ..Setup::default() });
    let (times, about) = parts(&Wire::open(door.address()).ask(infer(&[1.0])));
    assert!(times["queue"] >= nap * 0.9, "{times:?}");
    assert_eq!(about, "window 1");
}

/// The batches that carried a request of that name.
fn carried(door: &Door, id: &str) -> Vec<Arc<BatchAccount>> {
    door.endpoint.history().last(10, |batch| batch.ids.iter().any(|known| **known == *id))
}

#[test]
fn a_batch_is_found_by_the_names_of_its_requests() {
    let door = Door::open();
    let named = |id: &str, rows: &[f32]| {
        let body = body(rows);
        post(INFER, &format!(r#"{{"id":"{id}",{}"#, body.trim_start().strip_prefix('{').unwrap()))
    };
    let mut wire = Wire::open(door.address());
    wire.ask(named("a7", &[1.0, 2.0]));
    wire.ask(infer(&[3.0]));
    assert_eq!(wire.ask(named(&"x".repeat(500), &[4.0])).status, 200);
    let batches = carried(&door, "a7");
    assert_eq!(batches.len(), 1);
    assert_eq!((batches[0].rows, batches[0].reason, batches[0].cut.number), (2, "tick", 1));
    assert_eq!(batches[0].ids.len(), 1, "a request is named once, however many rows it has");
    assert_eq!(carried(&door, &"x".repeat(128)).len(), 1, "a long name is cut");
    assert_eq!(door.endpoint.history().last(10, |_| true).len(), 3);
}

#[test]
fn only_what_a_model_answered_has_such_an_account() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for request in [bare("GET", "/v2"), bare("GET", "/v2/health/live"), post(INFER, "no json")] {
        assert_eq!(wire.ask(request).header("server-timing"), None);
    }
    let http = HttpSettings { server_timing: false, ..HttpSettings::default() };
    let discreet = Door::with(Setup { http, ..Setup::default() });
    let answer = Wire::open(discreet.address()).ask(infer(&[1.0]));
    assert_eq!((answer.numbers(), answer.header("server-timing")), (vec![2.0], None));
}
