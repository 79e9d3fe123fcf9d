//! Requests that are wrong get the right status, and words that name what is.

use penstock::error::{Error, ErrorKind};
use penstock::serve::HttpSettings;
use penstock::wire::grpc::proto::inference::model_infer_request::InferRequestedOutputTensor;
use penstock::wire::grpc::proto::inference::{ModelInferRequest, ModelMetadataRequest, ModelReadyRequest};
use penstock::wire::grpc::{framed, prefix_of};

use crate::harness::{Client, Door, INFER, Setup, one, raw, typed};

const INTERNAL: u8 = 13;
const INVALID_ARGUMENT: u8 = 3;
const NOT_FOUND: u8 = 5;
const RESOURCE_EXHAUSTED: u8 = 8;

type Change = fn(&mut ModelInferRequest);

#[test]
fn an_inference_that_does_not_fit_is_refused_by_name() {
    let door = Door::open();
    let client = Client::open(door.address());
    let cases: [(Change, u8, &[&str]); 13] = [
        (|asked| asked.model_name = "treble".to_owned(), NOT_FOUND, &["'treble'", "\"double\""]),
        (|asked| asked.model_version = "9".to_owned(), NOT_FOUND, &["version '9'"]),
        (
            |asked| asked.inputs[0].contents = typed(&[1.0]).inputs[0].contents.clone(),
            INVALID_ARGUMENT,
            &["'x'", "raw_input_contents"],
        ),
        (
            |asked| asked.raw_input_contents[0] = vec![0; 7].into(),
            INVALID_ARGUMENT,
            &["'x'", "raw_input_contents"],
        ),
        (|asked| asked.raw_input_contents.clear(), INVALID_ARGUMENT, &["'x'"]),
        (|asked| asked.raw_input_contents.push(vec![0; 4].into()), INVALID_ARGUMENT, &["raw_input_contents"]),
        (|asked| asked.inputs[0].shape = vec![i64::MAX, i64::MAX], INVALID_ARGUMENT, &["'x'", "elements"]),
        (|asked| asked.inputs[0].shape = vec![-1, 1], INVALID_ARGUMENT, &["'x'", "shape"]),
        (|asked| asked.inputs[0].shape = vec![0, 1], INVALID_ARGUMENT, &["'x'", "no rows"]),
        (|asked| asked.inputs[0].datatype = "INT8".to_owned(), INVALID_ARGUMENT, &["'x'", "INT8", "FP32"]),
        (|asked| asked.inputs[0].name = "z".to_owned(), INVALID_ARGUMENT, &["'z'"]),
        (|asked| asked.inputs.clear(), INVALID_ARGUMENT, &["input"]),
        (|asked| asked.outputs.push(InferRequestedOutputTensor::default()), INVALID_ARGUMENT, &["output ''"]),
    ];
    for (number, (change, code, words)) in cases.into_iter().enumerate() {
        let mut asked = raw(&[1.0]);
        change(&mut asked);
        let ended = client.call(INFER, framed(&asked)).end();
        assert_eq!((ended.http_status, ended.code), (200, Some(code)), "{number}: {}", ended.message);
        assert!(ended.trailers.is_none() && ended.messages.is_empty(), "{number}");
        for word in words {
            assert!(ended.message.contains(word), "{number}: {} lacks {word}", ended.message);
        }
    }
    assert!(door.seen().is_empty(), "none of it reached the model");
    assert_eq!(client.call(INFER, one(4.0)).end().numbers(), [8.0], "the connection goes on");
}

#[test]
fn models_that_are_not_there_are_named() {
    let door = Door::open();
    let client = Client::open(door.address());
    let ready = framed(&ModelReadyRequest { name: "treble".to_owned(), version: String::new() });
    let metadata = framed(&ModelMetadataRequest { name: "double".to_owned(), version: "9".to_owned() });
    for (method, body, word) in [("ModelReady", ready, "'treble'"), ("ModelMetadata", metadata, "'9'")] {
        let ended = client.call(&format!("/inference.GRPCInferenceService/{method}"), body).end();
        assert_eq!(ended.code, Some(NOT_FOUND));
        assert!(ended.message.contains(word), "{}", ended.message);
    }
}

#[test]
fn a_message_that_is_none_is_told_so() {
    let door = Door::open();
    let client = Client::open(door.address());
    let garbage = [&prefix_of(4)[..], b"\xff\xff\xff\xff"].concat();
    for method in ["ModelInfer", "ModelReady", "ModelMetadata"] {
        let ended = client.call(&format!("/inference.GRPCInferenceService/{method}"), garbage.clone()).end();
        assert_eq!(ended.code, Some(INTERNAL), "{method}");
        assert!(ended.message.contains("none of this method"), "{}", ended.message);
    }
}

#[test]
fn what_is_too_large_names_its_limit() {
    let http = HttpSettings { max_body: 1_000, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let client = Client::open(door.address());
    let honest = framed(&raw(&[1.0; 1_000]));
    let only_said = prefix_of(2_000_000_000).to_vec();
    for body in [honest.to_vec(), only_said] {
        let mut call = client.begin(INFER, &[]);
        call.push(body);
        let ended = call.end();
        assert_eq!(ended.code, Some(RESOURCE_EXHAUSTED));
        assert!(ended.message.contains("max_body=1000"), "{}", ended.message);
        assert!(!ended.head.contains_key("retry-after"), "it will never be small enough");
    }
    assert_eq!(door.refused("max_body"), 2);
    assert_eq!(client.call(INFER, one(4.0)).end().numbers(), [8.0]);
}

#[test]
fn what_the_model_fails_with_is_said_in_its_words() {
    for (kind, code) in
        [(ErrorKind::Model, INTERNAL), (ErrorKind::Output, INTERNAL), (ErrorKind::Item, INVALID_ARGUMENT)]
    {
        let model = match kind {
            ErrorKind::Model => |rows: &[Vec<f32>], _: &_| fail(rows, ErrorKind::Model),
            ErrorKind::Output => |rows: &[Vec<f32>], _: &_| fail(rows, ErrorKind::Output),
            _ => |rows: &[Vec<f32>], _: &_| fail(rows, ErrorKind::Item),
        };
        let door = Door::with(Setup { model, ..Setup::default() });
        let ended = Client::open(door.address()).call(INFER, one(1.0)).end();
        assert_eq!(
            (ended.code, &*ended.message),
            (Some(code), "ValueError: 100 % schlecht: ü\nzweite Zeile")
        );
    }
}

fn fail<T>(rows: &[Vec<f32>], kind: ErrorKind) -> Vec<penstock::error::Result<T>> {
    let error = || Err(Error::new(kind, "ValueError: 100 % schlecht: ü\nzweite Zeile"));
    rows.iter().map(|_| error()).collect()
}

#[test]
fn a_model_that_is_not_ready_is_unavailable() {
    let door = Door::with(Setup { ready: false, ..Setup::default() });
    let ended = Client::open(door.address()).call(INFER, one(1.0)).end();
    assert_eq!(ended.code, Some(14));
    assert!(ended.message.contains("'double' is not ready"));
}
