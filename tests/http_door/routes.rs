//! What stands at which path, and what does not.

use serde_json::json;

use crate::harness::{Door, Wire, bare, body, infer, post};

#[test]
fn health_is_told_by_the_status_and_in_words() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for (path, words) in [
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/started", json!({"started": true})),
        ("/v2/health/ready", json!({"ready": true})),
        ("/v2/health/ready/", json!({"ready": true})),
        ("/v2/health/live?verbose=1", json!({"live": true})),
    ] {
        let answer = wire.ask(bare("GET", path));
        assert_eq!((answer.status, answer.json()), (200, words), "{path}");
    }
}

#[test]
fn every_path_is_described() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let answer = wire.ask(bare("GET", "/openapi.json"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["paths"]["/openapi.json"]["get"]["operationId"], "openapi");
}

#[test]
fn the_server_and_the_model_describe_themselves() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let server = wire.ask(bare("GET", "/v2")).json();
    assert_eq!(server["name"], "penstock");
    assert_eq!(server["version"], env!("CARGO_PKG_VERSION"));
    let expected = json!({
        "name": "double",
        "versions": ["3"],
        "platform": "penstock_python",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}],
    });
    for path in ["/v2/models/double", "/v2/models/double/versions/3"] {
        assert_eq!(wire.ask(bare("GET", path)).json(), expected, "{path}");
    }
    for path in ["/v2/models/double/ready", "/v2/models/double/versions/3/ready"] {
        let answer = wire.ask(bare("GET", path));
        assert_eq!((answer.status, answer.json()), (200, json!({"name": "double", "ready": true})));
    }
}

#[test]
fn inference_answers_by_the_protocol() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let request = body(&[1.5, -2.0]).replacen('{', "{\"id\":\"a\\u00fc\",", 1);
    let expected = json!({
        "model_name": "double",
        "model_version": "3",
        "id": "aü",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [3.0, -4.0]}],
    });
    for path in ["/v2/models/double/infer", "/v2/models/double/versions/3/infer"] {
        let answer = wire.ask(post(path, &request));
        assert_eq!((answer.status, answer.json()), (200, expected.clone()), "{path}");
    }
}

#[test]
fn metrics_count_what_was_answered() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for number in [1.0, 2.0, 3.0] {
        wire.ask(infer(&[number]));
    }
    wire.ask(post("/v2/models/double/infer", "no json"));
    let answer = wire.ask(bare("GET", "/metrics"));
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    for line in [
        "penstock_requests_total{model=\"double\",outcome=\"ok\"} 3",
        "penstock_requests_total{model=\"double\",outcome=\"invalid\"} 1",
        "penstock_request_seconds_count{model=\"double\"} 3",
        "penstock_batches_total{model=\"double\",reason=\"tick\"} 3",
        "penstock_batch_size_count{model=\"double\"} 3",
        "penstock_queue_depth{model=\"double\"} 0",
    ] {
        assert!(answer.text().contains(line), "{line} is not in\n{}", answer.text());
    }
    assert!(answer.text().ends_with("# EOF\n"));
}

#[test]
fn unknown_paths_models_and_versions_are_not_found() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for path in
        ["/", "/v3", "/v2/health", "/v2/models", "/v2/models/", "/v2/models/double/load", "//v2", "/V2"]
    {
        let answer = wire.ask(bare("GET", path));
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.error().is_empty());
    }
    for path in ["/v2/models/triple", "/v2/models/triple/ready"] {
        let answer = wire.ask(bare("GET", path));
        assert_eq!(answer.status, 404);
        assert!(answer.error().contains("'triple'") && answer.error().contains("double"), "{path}");
    }
    let answer = wire.ask(post("/v2/models/double/versions/4/infer", &body(&[1.0])));
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("'4'") && answer.error().contains("'3'"), "{}", answer.error());
    assert_eq!(wire.ask(post("/v2/models/triple/infer", &body(&[1.0]))).status, 404);
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0], "the connection is still good");
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for (method, path, allowed) in [
        ("POST", "/v2/health/live", "GET"),
        ("DELETE", "/v2/models/double", "GET"),
        ("PUT", "/metrics", "GET"),
        ("GET", "/v2/models/double/infer", "POST"),
        ("OPTIONS", "/v2", "GET"),
        ("BREW", "/v2", "GET"),
    ] {
        let answer = wire.ask(bare(method, path));
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        assert!(answer.error().contains(allowed));
    }
}

#[test]
fn head_answers_as_get_does_without_the_body() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for path in ["/v2/health/live", "/v2", "/v2/models/double", "/v2/models/double/ready"] {
        let whole = wire.ask(bare("GET", path));
        let head = wire.head(bare("HEAD", path));
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.header("content-type"), whole.header("content-type"));
        let length = whole.body.len().to_string();
        assert!(head.header("content-length").is_none_or(|told| told == length), "{path}");
    }
    let head = wire.head(bare("HEAD", "/v2/models/double/infer"));
    assert_eq!((head.status, head.header("allow")), (405, Some("POST")));
    assert_eq!(wire.head(bare("HEAD", "/nowhere")).status, 404);
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0], "no stray body stands before this answer");
}

#[test]
fn metrics_of_one_door_answer_for_all_who_share_a_directory() {
    let directory = std::env::temp_dir().join(format!("penstock-siblings-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    // What is left of a process that died answers nobody, and harms nobody.
    std::fs::write(directory.join("7.sock"), "").unwrap();
    let doors = [Door::open(), Door::open()];
    let runtime = penstock::runtime::handle().unwrap();
    for (door, name) in doors.iter().zip(["0", "1"]) {
        door.inside.join_siblings(&directory, name, &runtime).unwrap();
    }
    assert_eq!(Wire::open(doors[0].address()).ask(infer(&[1.0])).status, 200);
    for door in &doors {
        let text = Wire::open(door.address()).ask(bare("GET", "/metrics"));
        for line in [
            "penstock_requests_total{worker=\"0\",model=\"double\",outcome=\"ok\"} 1",
            "penstock_queue_depth{worker=\"1\",model=\"double\"} 0",
        ] {
            assert!(text.text().contains(line), "{line} is not in\n{}", text.text());
        }
        assert!(text.text().ends_with("# EOF\n"));
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
