//! What each unary call answers when all is well.

use bytes::Bytes;
use penstock::serve::HttpSettings;
use penstock::wire::grpc::framed;
use penstock::wire::grpc::proto::inference::{
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveResponse,
    ServerMetadataResponse, ServerReadyResponse,
};
use prost::Message;

use crate::harness::{Client, Door, INFER, LIVE, Setup, one, raw, typed};

const EMPTY: &[u8] = &[0; 5];

fn ask<M: Message + Default>(client: &Client, method: &str, body: impl Into<Bytes>) -> M {
    let ended = client.call(&format!("/inference.GRPCInferenceService/{method}"), body).end();
    assert_eq!((ended.http_status, ended.code), (200, Some(0)), "{method}: {}", ended.message);
    M::decode(ended.messages[0].clone()).unwrap()
}

#[test]
fn the_server_says_what_it_is() {
    let door = Door::open();
    let client = Client::open(door.address());
    assert!(ask::<ServerLiveResponse>(&client, "ServerLive", EMPTY).live);
    assert!(ask::<ServerReadyResponse>(&client, "ServerReady", EMPTY).ready);
    let server: ServerMetadataResponse = ask(&client, "ServerMetadata", EMPTY);
    assert_eq!((&*server.name, &*server.version), ("penstock", env!("CARGO_PKG_VERSION")));
    door.endpoint.set_ready(false);
    assert!(!ask::<ServerReadyResponse>(&client, "ServerReady", EMPTY).ready);
    assert!(ask::<ServerLiveResponse>(&client, "ServerLive", EMPTY).live);
}

#[test]
fn a_model_says_what_it_is() {
    let door = Door::open();
    let client = Client::open(door.address());
    for version in ["", "3"] {
        let (name, version) = ("double".to_owned(), version.to_owned());
        let asked = framed(&ModelReadyRequest { name: name.clone(), version: version.clone() });
        assert!(ask::<ModelReadyResponse>(&client, "ModelReady", asked).ready);
        let asked = framed(&ModelMetadataRequest { name, version });
        let model: ModelMetadataResponse = ask(&client, "ModelMetadata", asked);
        assert_eq!((&*model.name, model.versions), ("double", vec!["3".to_owned()]));
        let input = &model.inputs[0];
        assert_eq!((&*input.name, &*input.datatype, &*input.shape), ("x", "FP32", [-1, -1].as_slice()));
    }
}

#[test]
fn an_inference_is_answered_in_the_form_that_it_came_in() {
    let door = Door::open();
    let client = Client::open(door.address());
    let ended = client.call(INFER, framed(&raw(&[1.0, 2.5]))).end();
    let answer = ended.infer();
    assert_eq!((&*answer.model_name, &*answer.model_version, &*answer.id), ("double", "3", "a7"));
    let output = &answer.outputs[0];
    assert_eq!((&*output.name, &*output.datatype, &*output.shape), ("y", "FP32", [2, 1].as_slice()));
    assert!(output.contents.is_none());
    assert_eq!(ended.numbers(), [2.0, 5.0]);
    let ended = client.call(INFER, framed(&typed(&[3.0]))).end();
    assert!(ended.infer().raw_output_contents.is_empty());
    assert_eq!(ended.numbers(), [6.0]);
    assert_eq!(ended.head["content-type"], "application/grpc");
    assert!(ended.head["server-timing"].to_str().unwrap().starts_with("queue;dur="));
    assert!(ended.trailers.is_some());
}

#[test]
fn timing_is_said_only_where_it_is_wanted() {
    let http = HttpSettings { server_timing: false, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let ended = Client::open(door.address()).call(INFER, one(1.0)).end();
    assert!(!ended.head.contains_key("server-timing"));
}

#[test]
fn calls_of_one_connection_share_batches_and_get_their_own_answers() {
    let door = Door::open();
    let client = Client::open(door.address());
    for round in 0..3_u8 {
        let calls: Vec<_> = (0..100_u8).map(|number| client.call(INFER, one(f32::from(number)))).collect();
        for (number, call) in (0..100_u8).zip(calls) {
            assert_eq!(call.end().numbers(), [f32::from(number) * 2.0], "round {round}");
        }
    }
    assert_eq!(door.inside.connections(), 1);
    let stats = door.endpoint.stats();
    assert!(stats.batches < stats.requests, "calls share batches: {stats:?}");
}

#[test]
fn large_tensors_come_and_go_whole() {
    let door = Door::open();
    let client = Client::open(door.address());
    let numbers = (1..=200_u8).map(f32::from).collect::<Vec<_>>().repeat(1_000);
    for mut request in [raw(&numbers), typed(&numbers)] {
        request.inputs[0].shape = vec![1, 200_000];
        let doubled: Vec<f32> = numbers.iter().map(|number| number * 2.0).collect();
        assert_eq!(client.call(INFER, framed(&request)).end().numbers(), doubled);
    }
}

#[test]
fn calls_are_counted_by_their_code() {
    let door = Door::open();
    let client = Client::open(door.address());
    assert_eq!(client.call(LIVE, EMPTY).end().code, Some(0));
    assert_eq!(client.call("/a.B/C", EMPTY).end().code, Some(12));
    let text = door.inside.metrics_text();
    assert!(text.contains("penstock_grpc_responses_total{code=\"OK\"} 1"), "{text}");
    assert!(text.contains("penstock_grpc_responses_total{code=\"UNIMPLEMENTED\"} 1"), "{text}");
    assert!(text.contains("penstock_http_responses_total{status=\"200\"} 0"), "{text}");
}

#[test]
fn repositories_are_not_there_yet() {
    let door = Door::open();
    let client = Client::open(door.address());
    for method in ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"] {
        let ended = client.call(&format!("/inference.GRPCInferenceService/{method}"), EMPTY).end();
        assert_eq!(ended.code, Some(12));
        assert!(ended.message.contains("repository"), "{}", ended.message);
    }
}
