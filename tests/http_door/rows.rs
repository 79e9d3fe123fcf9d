//! Requests of one row and of many.

use penstock::batch::BatchPolicy;

use crate::harness::{Door, Setup, Wire, infer, post};

fn numbers(count: u16) -> Vec<f32> {
    (0..count).map(f32::from).collect()
}

fn doubled(count: u16) -> Vec<f64> {
    (0..count).map(|number| f64::from(number) * 2.0).collect()
}

fn of_size(max_size: usize, max_queue: usize) -> Door {
    let policy = BatchPolicy { max_size, max_queue, ..BatchPolicy::default() };
    Door::with(Setup { policy, ..Setup::default() })
}

#[test]
fn a_request_larger_than_a_batch_is_split_and_put_together() {
    let door = of_size(8, 10_000);
    let mut wire = Wire::open(door.address());
    for count in [1, 7, 8, 9, 16, 17, 1000] {
        let answer = wire.ask(infer(&numbers(count)));
        assert_eq!(answer.numbers(), doubled(count), "{count} rows");
        assert_eq!(answer.json()["outputs"][0]["shape"], serde_json::json!([count, 1]));
    }
    assert!(door.seen.lock().iter().all(|batch| batch.len() <= 8));
    assert_eq!(door.endpoint.stats().largest, 8);
}

#[test]
fn a_request_larger_than_the_queue_is_refused_by_name() {
    let door = of_size(8, 20);
    let mut wire = Wire::open(door.address());
    let answer = wire.ask(infer(&numbers(21)));
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("max_queue=20"), "{}", answer.error());
    assert_eq!(wire.ask(infer(&numbers(20))).numbers(), doubled(20));
}

/// Rows without elements cost no data: the server must not reserve room for as many as somebody claims.
#[test]
fn rows_that_nobody_sent_are_refused_and_not_made_room_for() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let body = r#"{"inputs":[{"name":"x","shape":[18446744073709551615,0],"datatype":"FP32","data":[]}]}"#;
    let answer = wire.ask(post("/v2/models/double/infer", body));
    assert_eq!(answer.status, 400);
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
}

#[test]
fn rows_without_elements_are_answered() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let body = r#"{"inputs":[{"name":"x","shape":[2,0],"datatype":"FP32","data":[]}]}"#;
    let answer = wire.ask(post("/v2/models/double/infer", body));
    assert_eq!(answer.json()["outputs"][0]["shape"], serde_json::json!([2, 0]));
}

#[test]
fn rows_of_different_lengths_never_share_a_batch() {
    let door = Door::open();
    door.gate.close();
    let row = |length: usize, number: f32| {
        let data = vec![number; length];
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":[1,{length}],"datatype":"FP32","data":{data:?}}}]}}"#
        );
        post("/v2/models/double/infer", &body)
    };
    let mut wires: Vec<_> = (0..6).map(|_| Wire::open(door.address())).collect();
    wires[0].send(infer(&[0.0]));
    door.wait_taken(1);
    for (at, number) in [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0)] {
        wires[at].send(row(1 + at % 2, number));
    }
    door.wait_queued(5);
    door.gate.open();
    assert_eq!(wires[0].answer().numbers(), [0.0]);
    for (at, expected) in [(1, 2.0), (2, 4.0), (3, 6.0), (4, 8.0), (5, 10.0)] {
        assert_eq!(wires[at].answer().numbers(), vec![expected; 1 + at % 2]);
    }
    let mut batches = door.seen.lock().clone();
    for batch in &mut batches {
        batch.sort_by(f32::total_cmp);
    }
    batches.sort_by(|one, other| one[0].total_cmp(&other[0]));
    assert_eq!(batches, [vec![0.0], vec![1.0, 3.0, 5.0], vec![2.0, 4.0]]);
}

#[test]
fn a_request_that_is_none_is_refused_and_says_why() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let shaped = |shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
    };
    for (body, words) in [
        ("", "no inference request"),
        ("no json", "no inference request"),
        ("{\"inputs\":[]}", "'x' is missing"),
        (&shaped("[1,1]", "FP64", "[1]"), "FP64"),
        (&shaped("[1]", "FP32", "[1]"), "shape [1]"),
        (&shaped("[0,1]", "FP32", "[]"), "no rows"),
        (&shaped("[1,2]", "FP32", "[1]"), "1 values"),
        (&shaped("[1,1]", "FP32", "[true]"), "true is no float32"),
        (&shaped("[1,1]", "FP32", "[NaN]"), "x"),
        (&shaped("[1,18446744073709551615]", "FP32", "[1]"), "elements"),
        (&shaped("[1,1]", "FP32", &"[".repeat(10_000)), "no inference request"),
        (&shaped("[1,1]", "FP32", "[1]").replacen("}]", "}],\"outputs\":[{\"name\":\"z\"}]", 1), "'z'"),
    ] {
        let answer = wire.ask(post("/v2/models/double/infer", body));
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.error().contains(words), "{body}: {}", answer.error());
    }
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0], "the connection is still good");
    assert_eq!(door.seen(), [1.0], "nothing else reached the model");
}
