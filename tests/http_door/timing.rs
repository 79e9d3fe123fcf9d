//! Where an answer says that its time went.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock::error::Result;
use penstock::pipeline::AnswerRow;
use penstock::serve::HttpSettings;
use penstock::tensor::Spares;

use crate::harness::{Answer, Door, INFER, Setup, Wire, bare, double, infer, post};

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
    assert_eq!(times.len(), 4, "{header}");
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
fn whoever_waits_for_a_worker_sees_that_in_his_queue() {
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
    assert!(times["batch"] >= nap && times["model"] < nap, "a worker that is held up is no model: {times:?}");
    for wire in &mut queued {
        let (times, about) = parts(&wire.answer());
        assert!(times["queue"] >= nap, "{times:?}");
        assert!(about.ends_with(" 2"), "{about}");
    }
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
