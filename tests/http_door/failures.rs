//! Models that fail: whose request is told, and that the next one is served.

use std::sync::Arc;

use penstock::batch::BatchPolicy;
use penstock::error::{Error, ErrorKind, Result};
use penstock::pipeline::AnswerRow;
use penstock::tensor::Spares;

use crate::harness::{Door, Model, Setup, Wire, bare, double, infer, output};

fn served_by(model: Model) -> Door {
    Door::with(Setup { model, ..Setup::default() })
}

/// Fails every batch in which a negative number stands.
fn fails(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    if rows.iter().flatten().any(|number| *number < 0.0) {
        let error = || Err(Error::new(ErrorKind::Model, "the \"valve\" is stuck"));
        return rows.iter().map(|_| error()).collect();
    }
    double(rows, spares)
}

/// Refuses the rows in which a negative number stands.
fn isolates(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    let answers = double(rows, spares).into_iter().zip(rows);
    let refused = |row: &[f32]| Err(Error::new(ErrorKind::Item, format!("{} is below zero", row[0])));
    answers.map(|(answer, row)| if row[0] < 0.0 { refused(row) } else { answer }).collect()
}

#[test]
fn a_model_that_fails_answers_with_its_error_and_goes_on() {
    let door = served_by(fails);
    let mut wire = Wire::open(door.address());
    let answer = wire.ask(infer(&[-1.0]));
    assert_eq!(answer.status, 500);
    assert_eq!(answer.error(), "the \"valve\" is stuck");
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0], "on the same connection");
    let metrics = wire.ask(bare("GET", "/metrics"));
    for line in ["outcome=\"failed\"} 1", "outcome=\"ok\"} 1"] {
        assert!(metrics.text().contains(line), "{}", metrics.text());
    }
}

#[test]
fn a_failure_reaches_everybody_in_the_batch_and_nobody_else() {
    let door = served_by(fails);
    door.gate.close();
    let mut wires: Vec<_> = (0..4).map(|_| Wire::open(door.address())).collect();
    wires[0].send(infer(&[5.0]));
    door.wait_taken(1);
    for (wire, number) in wires.iter_mut().skip(1).zip([1.0, -1.0, 2.0]) {
        wire.send(infer(&[number]));
    }
    door.wait_queued(3);
    door.gate.open();
    assert_eq!(wires[0].answer().numbers(), [10.0]);
    for wire in wires.iter_mut().skip(1) {
        assert_eq!(wire.answer().status, 500);
    }
}

#[test]
fn one_refused_row_is_its_own_requests_alone() {
    let door = served_by(isolates);
    door.gate.close();
    let mut wires: Vec<_> = (0..4).map(|_| Wire::open(door.address())).collect();
    wires[0].send(infer(&[0.0]));
    door.wait_taken(1);
    wires[1].send(infer(&[1.0]));
    door.wait_queued(1);
    wires[2].send(infer(&[2.0, -3.0, 4.0]));
    door.wait_queued(4);
    wires[3].send(infer(&[5.0]));
    door.wait_queued(5);
    door.gate.open();
    assert_eq!(wires[1].answer().numbers(), [2.0]);
    let refused = wires[2].answer();
    assert_eq!((refused.status, refused.error()), (400, "-3 is below zero".to_owned()));
    assert_eq!(wires[3].answer().numbers(), [10.0]);
    assert_eq!(door.seen(), [0.0, 1.0, 2.0, -3.0, 4.0, 5.0]);
}

#[test]
fn the_rest_of_a_request_that_failed_does_not_reach_the_model() {
    let policy = BatchPolicy { max_size: 2, ..BatchPolicy::default() };
    let door = Door::with(Setup { policy, model: isolates, ..Setup::default() });
    let mut wire = Wire::open(door.address());
    let answer = wire.ask(infer(&[-1.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    assert_eq!(answer.status, 400);
    assert_eq!(wire.ask(infer(&[7.0])).numbers(), [14.0]);
    let stats = door.endpoint.stats();
    assert_eq!(stats.requests + stats.abandoned, 7);
}

/// Answers rows as long as their batch.
fn grows(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    let longer: Vec<Vec<f32>> = rows.iter().map(|row| vec![row[0]; rows.len()]).collect();
    output(&longer, spares)
}

/// A tensor has one shape: rows of different lengths cannot be put together, and must not be passed off as one.
#[test]
fn rows_of_one_request_that_came_back_in_different_shapes_are_the_models_fault() {
    let policy = BatchPolicy { max_size: 2, ..BatchPolicy::default() };
    let door = Door::with(Setup { policy, model: grows, ..Setup::default() });
    let mut wire = Wire::open(door.address());
    let answer = wire.ask(infer(&[1.0, 2.0, 3.0]));
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(wire.ask(infer(&[1.0, 2.0])).numbers(), [1.0, 1.0, 2.0, 2.0]);
}

/// Answers nothing.
fn forgets(_: &[Vec<f32>], _: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    Vec::new()
}

#[test]
fn a_worker_that_answers_too_few_rows_leaves_nobody_waiting() {
    let door = served_by(forgets);
    let mut wire = Wire::open(door.address());
    for numbers in [&[1.0][..], &[1.0, 2.0]] {
        let answer = wire.ask(infer(numbers));
        assert!(answer.status >= 500, "{}", answer.status);
        assert!(!answer.error().is_empty());
    }
}

/// Answers numbers that JSON has no word for.
fn endless(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    output(&vec![vec![f32::NAN, f32::INFINITY, 1.0]; rows.len()], spares)
}

#[test]
fn numbers_that_json_has_no_word_for_come_as_null() {
    let door = served_by(endless);
    let answer = Wire::open(door.address()).ask(infer(&[1.0]));
    assert_eq!(answer.json()["outputs"][0]["data"], serde_json::json!([null, null, 1.0]));
}
