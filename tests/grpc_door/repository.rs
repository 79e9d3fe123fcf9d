//! The model repository and readiness, where models come and go.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use penstock::models::LoadState;
use penstock::serve::{HttpSettings, RepositoryAccess};
use penstock::wire::grpc::framed;
use penstock::wire::grpc::proto::health::health_check_response::ServingStatus;
use penstock::wire::grpc::proto::health::{HealthCheckRequest, HealthCheckResponse};
use penstock::wire::grpc::proto::inference::model_repository_parameter::ParameterChoice;
use penstock::wire::grpc::proto::inference::{
    ModelReadyRequest, ModelReadyResponse, ModelRepositoryParameter, RepositoryIndexRequest,
    RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
    ServerMetadataResponse, ServerReadyResponse,
};
use prost::Message;

use crate::harness::{Client, Ended, INFER, Shelf, Shelving, raw, until};

const SERVICE: &str = "/inference.GRPCInferenceService";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

fn index(client: &Client, ready: bool) -> Vec<(String, String, String)> {
    let asked = RepositoryIndexRequest { ready, ..RepositoryIndexRequest::default() };
    let ended = client.call(&format!("{SERVICE}/RepositoryIndex"), framed(&asked)).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let index = RepositoryIndexResponse::decode(ended.messages[0].clone()).unwrap();
    index.models.into_iter().map(|model| (model.name, model.state, model.reason)).collect()
}

fn state(client: &Client, name: &str) -> String {
    index(client, false).into_iter().find(|(known, ..)| known == name).unwrap().1
}

fn load(client: &Client, name: &str) -> Ended {
    let asked = RepositoryModelLoadRequest { model_name: name.to_owned(), ..Default::default() };
    client.call(&format!("{SERVICE}/RepositoryModelLoad"), framed(&asked)).end()
}

fn unload(client: &Client, name: &str, dependents: bool) -> Ended {
    let choice = Some(ParameterChoice::BoolParam(dependents));
    let asked = RepositoryModelUnloadRequest {
        model_name: name.to_owned(),
        parameters: HashMap::from([(
            "unload_dependents".to_owned(),
            ModelRepositoryParameter { parameter_choice: choice },
        )]),
        ..Default::default()
    };
    client.call(&format!("{SERVICE}/RepositoryModelUnload"), framed(&asked)).end()
}

fn went_well(ended: &Ended) -> bool {
    ended.code == Some(0) && ended.messages.len() == 1 && ended.messages[0].is_empty()
}

#[test]
fn models_are_listed_loaded_and_unloaded() {
    let shelf = Shelf::open();
    let client = Client::open(shelf.address());
    assert_eq!(index(&client, false).len(), 5);
    assert_eq!(index(&client, true), []);
    assert!(went_well(&load(&client, "head")));
    assert_eq!(
        index(&client, true),
        ["head", "scale"].map(|name| (name.to_owned(), "READY".to_owned(), String::new()))
    );
    let refused = unload(&client, "scale", false);
    assert_eq!(refused.code, Some(9), "FAILED_PRECONDITION");
    assert!(refused.message.contains("head"), "{}", refused.message);
    assert!(went_well(&unload(&client, "head", true)));
    assert_eq!(index(&client, true), []);
    assert_eq!(
        client.call(INFER, framed(&raw(&[2.0]))).end().numbers(),
        [4.0],
        "requests load what they need"
    );
    assert_eq!(state(&client, "double"), "READY");
}

#[test]
fn what_cannot_be_is_refused_with_a_status_of_its_own() {
    let shelf = Shelf::open();
    let client = Client::open(shelf.address());
    assert_eq!(load(&client, "triple").code, Some(5));
    let named = RepositoryIndexRequest { repository_name: "models".to_owned(), ready: false };
    let ended = client.call(&format!("{SERVICE}/RepositoryIndex"), framed(&named)).end();
    assert_eq!((ended.code, ended.message.contains("'models'")), (Some(3), true));
    shelf.hands.fail("double", "no such file");
    let ended = load(&client, "double");
    assert_eq!((ended.code, ended.message.contains("no such file")), (Some(14), true), "{}", ended.message);
    let with = |repository| {
        let http = HttpSettings { repository, ..HttpSettings::default() };
        Shelf::with(Shelving { http, ..Shelving::default() })
    };
    let shelf = with(RepositoryAccess::ReadOnly);
    let client = Client::open(shelf.address());
    assert_eq!(index(&client, false).len(), 5);
    assert_eq!((load(&client, "double").code, unload(&client, "double", true).code), (Some(7), Some(7)));
    let shelf = with(RepositoryAccess::Off);
    let client = Client::open(shelf.address());
    assert_eq!((load(&client, "double").code, unload(&client, "double", true).code), (Some(12), Some(12)));
}

#[test]
fn a_load_that_takes_longer_than_its_call_may_goes_on() {
    let shelf = Shelf::open();
    shelf.hands.hold("double");
    let client = Client::open(shelf.address());
    let asked = RepositoryModelLoadRequest { model_name: "double".to_owned(), ..Default::default() };
    let path = format!("{SERVICE}/RepositoryModelLoad");
    let ended = client.call_with(&path, &[("grpc-timeout", "50m")], framed(&asked)).end();
    assert_eq!(ended.code, Some(4));
    shelf.hands.let_go("double");
    until("it is loaded", || shelf.cache.progress(shelf.id("double")).state == LoadState::Ready);
}

#[test]
fn the_server_says_that_it_has_a_repository() {
    let shelf = Shelf::open();
    let ended =
        Client::open(shelf.address()).call(&format!("{SERVICE}/ServerMetadata"), [0; 5].to_vec()).end();
    let metadata = ServerMetadataResponse::decode(ended.messages[0].clone()).unwrap();
    assert_eq!(
        metadata.extensions,
        ["binary_tensor_data", "model_repository", "model_repository(unload_dependents)"]
    );
}

#[test]
fn health_follows_what_becomes_of_the_models() {
    let shelf = Shelf::with(Shelving { start: &["double"], ..Shelving::default() });
    let client = Client::open(shelf.address());
    until("what it starts with is there", || shelf.cache.health().is_ready());
    let ready = |name: &str| {
        let asked = ModelReadyRequest { name: name.to_owned(), version: String::new() };
        let ended = client.call(&format!("{SERVICE}/ModelReady"), framed(&asked)).end();
        ModelReadyResponse::decode(ended.messages[0].clone()).unwrap().ready
    };
    let ended = client.call(&format!("{SERVICE}/ServerReady"), [0; 5].to_vec()).end();
    assert!(ServerReadyResponse::decode(ended.messages[0].clone()).unwrap().ready);
    assert_eq!((ready("double"), ready("other")), (true, false));
    let watch = |name: &str| client.call(WATCH, framed(&HealthCheckRequest { service: name.to_owned() }));
    let status = |message: Bytes| HealthCheckResponse::decode(message).unwrap().status();
    let (mut all, mut other) = (watch(""), watch("other"));
    assert_eq!(status(all.next().unwrap()), ServingStatus::Serving);
    assert_eq!(status(other.next().unwrap()), ServingStatus::NotServing);
    assert!(went_well(&load(&client, "other")));
    assert_eq!(status(other.next().unwrap()), ServingStatus::Serving);
    assert!(went_well(&unload(&client, "other", false)));
    assert_eq!(status(other.next().unwrap()), ServingStatus::NotServing);
    assert!(all.is_silent(Duration::from_millis(50)), "others are served all the while");
    all.reset();
    other.reset();
}

#[test]
fn whoever_watches_hears_that_nobody_looks_after_the_loads() {
    let shelf = Shelf::open();
    let client = Client::open(shelf.address());
    let mut all = client.call(WATCH, framed(&HealthCheckRequest::default()));
    let status = |message: Bytes| HealthCheckResponse::decode(message).unwrap().status();
    assert_eq!(status(all.next().unwrap()), ServingStatus::Serving);
    *shelf.hands.behind.lock() = Duration::from_mins(1);
    assert_eq!(status(all.next().unwrap()), ServingStatus::NotServing, "though nothing has changed");
    let ended = client.call(&format!("{SERVICE}/ServerLive"), [0; 5].to_vec()).end();
    assert!(ended.messages[0].is_empty(), "live is false");
    all.reset();
}

#[test]
fn a_server_that_waits_for_what_it_starts_with_says_when_it_is_there() {
    let shelf = Shelf::open();
    shelf.hands.hold("double");
    let (cause, priority) = (penstock::models::Cause::Start, penstock::flow::Priority::Normal);
    let _start = shelf.cache.preload(&[shelf.id("double")], cause, priority);
    let client = Client::open(shelf.address());
    let mut all = client.call(WATCH, framed(&HealthCheckRequest::default()));
    let status = |message: Bytes| HealthCheckResponse::decode(message).unwrap().status();
    assert_eq!(status(all.next().unwrap()), ServingStatus::NotServing);
    shelf.hands.let_go("double");
    assert_eq!(status(all.next().unwrap()), ServingStatus::Serving);
    all.reset();
}
