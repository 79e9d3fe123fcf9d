//! The model repository, readiness and what a client hears of a load, where models come and go.

use std::time::{Duration, Instant};

use penstock::models::LoadState;
use penstock::serve::{HttpSettings, Polls, RepositoryAccess, Skipped};
use serde_json::{Value, json};

use crate::harness::{Answer, Shelf, Shelving, Wire, bare, body, post, until};

const INDEX: &str = "/v2/repository/index";
const DOUBLE: &str = "/v2/models/double/infer";
const TALK: &str = "/v2/models/talk/generate_stream";
const PROMPT: &str = r#"{"text_input":"hello"}"#;

fn load(name: &str) -> String {
    post(&format!("/v2/repository/models/{name}/load"), "")
}

fn unload(name: &str, dependents: bool) -> String {
    let parameters = json!({"parameters": {"unload_dependents": dependents}});
    post(&format!("/v2/repository/models/{name}/unload"), &parameters.to_string())
}

/// State and reason of each model, by its name.
fn states(shelf: &Shelf) -> Value {
    let index = Wire::open(shelf.address()).ask(post(INDEX, "{}")).json();
    let entry = |entry: &Value| (entry["name"].as_str().unwrap().to_owned(), entry["state"].clone());
    index.as_array().unwrap().iter().map(entry).collect()
}

fn state(shelf: &Shelf, name: &str) -> LoadState {
    shelf.cache.progress(shelf.id(name)).state
}

fn is_empty(answer: &Answer) -> bool {
    answer.status == 200 && answer.body.is_empty()
}

#[test]
fn the_index_lists_every_model_and_says_how_far_it_is() {
    let shelf = Shelf::open();
    let mut wire = Wire::open(shelf.address());
    assert_eq!(
        wire.ask(post(INDEX, "")).json()[0],
        json!({"name": "double", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"})
    );
    assert!(is_empty(&wire.ask(load("double"))));
    shelf.hands.hold("other");
    let mut waiting = Wire::open(shelf.address());
    waiting.send(load("other"));
    until("the load runs", || state(&shelf, "other") == LoadState::Loading);
    let expected = json!({
        "double": "READY", "head": "UNAVAILABLE", "other": "LOADING", "scale": "UNAVAILABLE", "talk": "UNAVAILABLE",
    });
    assert_eq!(states(&shelf), expected);
    assert_eq!(
        wire.ask(post(INDEX, r#"{"ready":true}"#)).json(),
        json!([{"name": "double", "version": "1", "state": "READY", "reason": ""}])
    );
    shelf.hands.let_go("other");
    assert!(is_empty(&waiting.answer()));
    assert_eq!(states(&shelf)["other"], "READY");
    let answer = wire.ask(post(INDEX, "[]"));
    assert_eq!(answer.status, 400);
    assert_eq!(wire.ask(bare("GET", INDEX)).status, 405);
}

#[test]
fn a_load_of_a_model_that_is_there_loads_it_anew() {
    let shelf = Shelf::open();
    let mut wire = Wire::open(shelf.address());
    for _ in 0..2 {
        assert!(is_empty(&wire.ask(load("double"))));
        assert_eq!(wire.ask(post(DOUBLE, &body(&[2.0]))).numbers(), [4.0]);
    }
    assert_eq!(*shelf.hands.loaded.lock(), ["double", "double"]);
    let by_version = wire.ask(load("double%401"));
    assert_eq!(by_version.status, 200, "{}", by_version.text());
    assert_eq!(shelf.hands.loaded.lock().len(), 3);
}

#[test]
fn a_load_brings_what_the_model_requires_and_an_unload_takes_it_along() {
    let shelf = Shelf::open();
    let mut wire = Wire::open(shelf.address());
    assert!(is_empty(&wire.ask(load("head"))));
    assert_eq!(*shelf.hands.loaded.lock(), ["scale", "head"]);
    let refused = wire.ask(unload("scale", false));
    assert_eq!(refused.status, 409);
    assert!(refused.error().contains("head"), "{}", refused.error());
    assert_eq!(states(&shelf)["scale"], "READY");
    assert!(is_empty(&wire.ask(unload("head", false))));
    assert_eq!((&states(&shelf)["head"], &states(&shelf)["scale"]), (&json!("UNAVAILABLE"), &json!("READY")));
    for named in ["head", "scale"] {
        assert!(is_empty(&wire.ask(load("head"))));
        assert!(is_empty(&wire.ask(unload(named, true))));
        assert_eq!(states(&shelf)["head"], "UNAVAILABLE", "{named}");
        assert_eq!(states(&shelf)["scale"], "UNAVAILABLE", "{named}");
    }
    assert_eq!(wire.ask(post("/v2/models/head/infer", &body(&[3.0]))).numbers(), [6.0], "it comes back");
    assert_eq!(states(&shelf)["scale"], "READY");
}

#[test]
fn what_cannot_be_loaded_or_unloaded_is_named() {
    let shelf = Shelf::open();
    let mut wire = Wire::open(shelf.address());
    for request in [load("triple"), unload("triple", false), load("double@9")] {
        let answer = wire.ask(request);
        assert_eq!(answer.status, 404);
        assert!(answer.error().contains("double"), "{}", answer.error());
    }
    let answer = wire.ask(post("/v2/repository/models/double/load", r#"{"parameters":{"config":"{}"}}"#));
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("'config'"), "{}", answer.error());
    shelf.hands.fail("scale", "no such file");
    let answer = wire.ask(load("head"));
    assert_eq!(answer.status, 503);
    assert!(
        answer.error().contains("'head'") && answer.error().contains("no such file"),
        "{}",
        answer.error()
    );
    assert_eq!(states(&shelf)["scale"], "UNAVAILABLE");
    let index = wire.ask(post(INDEX, "")).text().to_owned();
    assert!(index.contains("no such file"), "{index}");
    shelf.hands.let_go("scale");
    assert!(
        is_empty(&wire.ask(load("head"))),
        "an explicit load does not wait for the failure to be forgotten"
    );
}

#[test]
fn a_load_that_takes_longer_than_its_request_may_goes_on() {
    let shelf = Shelf::open();
    shelf.hands.hold("double");
    let mut wire = Wire::open(shelf.address());
    let late = load("double").replacen("\r\n\r\n", "\r\nx-request-timeout: 0.05\r\n\r\n", 1);
    assert_eq!(wire.ask(late).status, 504);
    shelf.hands.let_go("double");
    until("the load came to its end", || state(&shelf, "double") == LoadState::Ready);
}

#[test]
fn a_repository_may_be_read_only_or_off() {
    let with = |repository| {
        let http = HttpSettings { repository, ..HttpSettings::default() };
        Shelf::with(Shelving { http, ..Shelving::default() })
    };
    let shelf = with(RepositoryAccess::ReadOnly);
    let mut wire = Wire::open(shelf.address());
    assert_eq!(wire.ask(post(INDEX, "")).json().as_array().unwrap().len(), 5);
    for request in [load("double"), unload("double", false)] {
        let answer = wire.ask(request);
        assert_eq!((answer.status, answer.error().contains("read-only")), (403, true));
    }
    let extensions = json!(["binary_tensor_data", "model_repository", "model_repository(unload_dependents)"]);
    assert_eq!(wire.ask(bare("GET", "/v2")).json()["extensions"], extensions);
    let shelf = with(RepositoryAccess::Off);
    let mut wire = Wire::open(shelf.address());
    for request in [post(INDEX, ""), load("double"), unload("double", false)] {
        let answer = wire.ask(request);
        assert_eq!((answer.status, answer.error().contains("no repository")), (501, true));
    }
    assert_eq!(wire.ask(bare("GET", "/v2")).json()["extensions"], json!(["binary_tensor_data"]));
    assert_eq!(wire.ask(post(DOUBLE, &body(&[1.0]))).numbers(), [2.0], "requests load what they need");
}

#[test]
fn the_server_is_ready_once_what_it_starts_with_has_been_there() {
    let shelf = Shelf::with(Shelving { start: &["double", "head"], memory: Some(25), ..Shelving::default() });
    let mut wire = Wire::open(shelf.address());
    let mut status = |path: &str| wire.ask(bare("GET", path)).status;
    until("what it starts with is there", || shelf.cache.health().is_ready());
    assert_eq!((status("/v2/health/ready"), status("/v2/health/live")), (200, 200));
    assert_eq!((status("/v2/models/double/ready"), status("/v2/models/other/ready")), (200, 503));
    // What was evicted since comes back when it is asked for: others are served meanwhile.
    assert_eq!(Wire::open(shelf.address()).ask(load("other")).status, 200);
    assert_eq!((status("/v2/models/other/ready"), status("/v2/health/ready")), (200, 200));
    let mut left = ["double", "head"].map(|name| status(&format!("/v2/models/{name}/ready")));
    left.sort_unstable();
    assert_eq!(left, [200, 503], "whichever of them came first had to go");
    shelf.inside.service().begin_close();
    assert_eq!(status("/v2/health/ready"), 503);
}

#[test]
fn a_server_that_cannot_load_what_it_starts_with_is_not_ready() {
    let shelf = Shelf::with(Shelving::default());
    shelf.hands.fail("double", "no such file");
    let cause = penstock::models::Cause::Start;
    let start = shelf.cache.preload(&[shelf.id("double")], cause, penstock::flow::Priority::Normal);
    until("it has failed", || start.is_done());
    let mut wire = Wire::open(shelf.address());
    assert_eq!(wire.ask(bare("GET", "/v2/health/ready")).status, 503);
    assert_eq!(wire.ask(bare("GET", "/v2/health/live")).status, 200);
    shelf.hands.let_go("double");
    assert_eq!(wire.ask(load("double")).status, 200);
    assert_eq!(wire.ask(bare("GET", "/v2/health/ready")).status, 200);
}

#[test]
fn a_server_whose_loader_takes_nothing_up_is_neither_ready_nor_live() {
    let shelf = Shelf::open();
    let mut wire = Wire::open(shelf.address());
    for (behind, status) in [(29, 200), (31, 503), (0, 200)] {
        *shelf.hands.behind.lock() = Duration::from_secs(behind);
        for path in ["/v2/health/live", "/v2/health/ready"] {
            assert_eq!(wire.ask(bare("GET", path)).status, status, "{path} {behind}");
        }
    }
}

#[test]
fn a_server_whose_cache_is_not_kept_any_more_is_neither_ready_nor_live() {
    let shelf = Shelf::with(Shelving { kept: false, ..Shelving::default() });
    let mut wire = Wire::open(shelf.address());
    let mut status = |path: &str| wire.ask(bare("GET", path)).status;
    // It runs as long as somebody drives it.
    let keeps = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    shelf.cache.keep(keeps.handle());
    keeps.block_on(tokio::task::yield_now());
    assert_eq!((status("/v2/health/live"), status("/v2/health/ready")), (200, 200));
    until("its beat is missed", || status("/v2/health/live") == 503);
    assert_eq!(status("/v2/health/ready"), 503);
}

#[test]
fn a_cold_request_says_how_long_its_model_took_to_come() {
    let shelf = Shelf::open();
    shelf.hands.hold("double");
    let mut wire = Wire::open(shelf.address());
    wire.send(post(DOUBLE, &body(&[2.0])));
    until("the load runs", || state(&shelf, "double") == LoadState::Loading);
    std::thread::sleep(Duration::from_millis(30));
    shelf.hands.let_go("double");
    let cold = wire.answer();
    assert_eq!(cold.numbers(), [4.0]);
    let timing = cold.header("server-timing").unwrap();
    let load = timing.strip_prefix("load;dur=").unwrap_or_else(|| panic!("{timing}"));
    let load: f64 = load.split(',').next().unwrap().parse().unwrap();
    assert!(load >= 30.0, "{timing}");
    let warm = wire.ask(post(DOUBLE, &body(&[2.0])));
    assert!(warm.header("server-timing").unwrap().starts_with("queue;dur="), "it was there");
}

#[test]
fn a_stream_hears_how_far_its_model_is() {
    let shelf = Shelf::open();
    shelf.hands.hold("talk");
    let began = Instant::now();
    let mut wire = Wire::open(shelf.address());
    wire.send(post(TALK, PROMPT));
    until("the load runs", || state(&shelf, "talk") == LoadState::Loading);
    assert_eq!(wire.read(false).unwrap().status, 200);
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(10));
    let comment = wire.chunk().unwrap();
    assert_eq!(std::str::from_utf8(&comment).unwrap(), ": loading talk\n\n");
    shelf.hands.report("talk", "weights", 0.45);
    let comment = wire.chunk().unwrap();
    assert_eq!(std::str::from_utf8(&comment).unwrap(), ": loading talk 45 % weights\n\n");
    shelf.hands.let_go("talk");
    let rest = String::from_utf8(wire.chunks()).unwrap();
    assert!(rest.contains("one ") && rest.contains("three"), "{rest}");
}

#[test]
fn a_stream_whose_model_cannot_be_loaded_is_told_so() {
    let shelf = Shelf::open();
    shelf.hands.fail("talk", "no such file");
    let mut wire = Wire::open(shelf.address());
    let answer = wire.ask(post(TALK, PROMPT));
    assert_eq!(answer.status, 503, "before anything was said");
    assert!(answer.error().contains("no such file"), "{}", answer.error());
    let shelf = Shelf::open();
    shelf.hands.hold("talk");
    let mut wire = Wire::open(shelf.address());
    wire.send(post(TALK, PROMPT));
    assert_eq!(wire.read(false).unwrap().status, 200);
    shelf.hands.fail("talk", "no such file");
    let stream = String::from_utf8(wire.chunks()).unwrap();
    assert!(stream.contains("no such file"), "{stream}");
}

#[test]
fn lines_have_no_words_for_a_load_and_wait_for_it() {
    let shelf = Shelf::open();
    shelf.hands.hold("talk");
    let mut wire = Wire::open(shelf.address());
    wire.send(post(TALK, PROMPT).replacen("\r\n\r\n", "\r\naccept: application/x-ndjson\r\n\r\n", 1));
    std::thread::sleep(Duration::from_millis(1_200));
    shelf.hands.let_go("talk");
    assert_eq!(wire.read(false).unwrap().header("content-type"), Some("application/x-ndjson"));
    assert!(wire.chunks().starts_with(b"{"));
}

#[test]
fn metrics_say_what_the_cache_counted() {
    let shelf = Shelf::with(Shelving { memory: Some(20), ..Shelving::default() });
    let mut wire = Wire::open(shelf.address());
    for path in [DOUBLE, DOUBLE, "/v2/models/other/infer", "/v2/models/head/infer"] {
        assert_eq!(wire.ask(post(path, &body(&[1.0]))).numbers(), [2.0]);
    }
    for (name, value) in [
        ("penstock_models_hits_total{model=\"double\"}", "1"),
        ("penstock_models_misses_total{model=\"double\"}", "1"),
        ("penstock_models_loads_total{model=\"other\",outcome=\"ok\"}", "1"),
        ("penstock_models_evictions_total{model=\"double\",reason=\"space\"}", "1"),
        ("penstock_models_ready{model=\"double\"}", "0"),
        ("penstock_models_ready{model=\"head\"}", "1"),
        ("penstock_models_load_seconds_count", "4"),
        ("penstock_models_bytes{kind=\"memory\"}", "20"),
        ("penstock_models_bytes{kind=\"used\"}", "15"),
        ("penstock_models_hit_rate", "0.25"),
        ("penstock_models_loading", "0"),
        ("penstock_models_load_queue_depth", "0"),
        ("penstock_models_stuck", "0"),
    ] {
        assert_eq!(shelf.counted(name), value, "{name}");
    }
    assert!(shelf.counted("penstock_models_cost_hit_rate").parse::<f64>().unwrap() < 1.0);
}

#[test]
fn models_come_and_go_while_the_door_is_open() {
    let shelf = Shelf::open();
    let mut wire = Wire::open(shelf.address());
    assert!(is_empty(&wire.ask(load("double"))));
    let service = shelf.inside.service();
    let double = service.model("double", None).unwrap();
    let departure = service.remove(&double).unwrap();
    assert!(service.remove(&double).is_none(), "it is gone already");
    assert_eq!(wire.ask(post(DOUBLE, &body(&[2.0]))).status, 404);
    assert_eq!(wire.ask(bare("GET", "/v2/models/double")).status, 404);
    let soon = || Instant::now() + Duration::from_millis(10);
    assert!(!departure.wait(soon()), "somebody has found it");
    let endpoint = std::sync::Arc::clone(&double);
    drop(double);
    assert!(departure.wait(Instant::now() + Duration::from_secs(10)));
    service.add(std::sync::Arc::clone(&endpoint), Some(shelf.id("double"))).unwrap();
    assert_eq!(wire.ask(post(DOUBLE, &body(&[2.0]))).numbers(), [4.0]);
    let twice = service.add(std::sync::Arc::clone(&endpoint), None).unwrap_err();
    assert!(twice.message().contains("two models are named 'double' and have version '1'"), "{twice}");
    let before = service.replace(endpoint, Some(shelf.id("double"))).unwrap();
    assert!(before.wait(Instant::now() + Duration::from_secs(10)), "nobody had found it");
    assert_eq!(wire.ask(post(DOUBLE, &body(&[3.0]))).numbers(), [6.0]);
}

#[test]
fn a_call_that_lists_or_loads_waits_for_a_look() {
    let shelf = Shelf::open();
    let polls = std::sync::Arc::new(Polls::default());
    shelf.inside.service().poll_by(&polls);
    let looks = std::thread::spawn({
        let polls = std::sync::Arc::clone(&polls);
        move || {
            let mut looks = Vec::new();
            while let Some(patient) = polls.wait(None) {
                looks.push(patient);
                polls.taken(vec![Skipped {
                    name: "half".to_owned(),
                    version: "3".to_owned(),
                    reason: "it is being written".to_owned(),
                }]);
            }
            looks
        }
    });
    let mut wire = Wire::open(shelf.address());
    let index = wire.ask(post(INDEX, "")).json();
    let half =
        json!({"name": "half", "version": "3", "state": "UNAVAILABLE", "reason": "it is being written"});
    assert_eq!(index.as_array().unwrap().last(), Some(&half));
    assert!(is_empty(&wire.ask(load("double"))));
    let ready = wire.ask(post(INDEX, r#"{"ready":true}"#)).json();
    assert_eq!(ready.as_array().unwrap().len(), 1);
    assert!(is_empty(&wire.ask(unload("double", false))));
    polls.close();
    assert_eq!(looks.join().unwrap(), [false, true, false], "to unload nobody needs to look");
    assert_eq!(wire.ask(post(INDEX, "")).status, 200, "nobody looks any more");
}
