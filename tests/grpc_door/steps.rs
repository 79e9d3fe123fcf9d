//! `ModelStreamInfer` of a model that answers step by step.

use bytes::Bytes;
use penstock::serve::HttpSettings;
use penstock::wire::grpc::framed;
use penstock::wire::grpc::proto::inference::infer_parameter::ParameterChoice;
use penstock::wire::grpc::proto::inference::model_infer_request::InferInputTensor;
use penstock::wire::grpc::proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelStreamInferResponse,
};
use prost::Message;

use crate::harness::{Client, Duplex, STREAM, Talking, until};

/// What a message says: of which request, the text, and whether it is the last.
#[derive(Debug, PartialEq)]
struct Heard {
    id: String,
    text: String,
    last: bool,
}

fn heard(id: &str, text: &str, last: bool) -> Heard {
    Heard { id: id.to_owned(), text: text.to_owned(), last }
}

fn prompt(id: &str, parameters: &[(&str, ParameterChoice)]) -> Bytes {
    let contents = InferTensorContents { bytes_contents: vec!["zwölf".into()], ..Default::default() };
    let named = parameters.iter().map(|(name, choice)| {
        ((*name).to_owned(), InferParameter { parameter_choice: Some(choice.clone()) })
    });
    framed(&ModelInferRequest {
        model_name: "talk".to_owned(),
        id: id.to_owned(),
        parameters: named.collect(),
        inputs: vec![InferInputTensor {
            name: "request".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![1],
            contents: Some(contents),
            ..InferInputTensor::default()
        }],
        ..ModelInferRequest::default()
    })
}

fn next(call: &mut Duplex) -> Heard {
    let answer = ModelStreamInferResponse::decode(call.next().expect("the stream has ended")).unwrap();
    assert_eq!(answer.error_message, "");
    let response = answer.infer_response.unwrap();
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), ("talk", "1"));
    let last = response.parameters["triton_final_response"].parameter_choice
        == Some(ParameterChoice::BoolParam(true));
    let text = response.outputs.first().map_or(Bytes::new(), |output| {
        assert_eq!(
            (output.name.as_str(), output.datatype.as_str(), &output.shape[..]),
            ("text", "BYTES", &[1][..])
        );
        output.contents.as_ref().unwrap().bytes_contents[0].clone()
    });
    Heard { id: response.id, text: String::from_utf8(text.to_vec()).unwrap(), last }
}

fn error(call: &mut Duplex) -> (String, String) {
    let answer = ModelStreamInferResponse::decode(call.next().expect("the stream has ended")).unwrap();
    (answer.infer_response.unwrap().id, answer.error_message)
}

#[test]
fn each_step_is_a_message_and_the_last_says_so() {
    let talking = Talking::open();
    let mut call = Client::open(talking.address()).begin(STREAM, &[]);
    call.push(prompt("a", &[]));
    let talk = talking.take(1);
    // The next is said when the one before is read: whatever held it back would hang.
    for step in 0..50 {
        talk.say(&step.to_string());
        assert_eq!(next(&mut call), heard("a", &step.to_string(), false));
    }
    talk.finish();
    assert_eq!(next(&mut call), heard("a", "", true));
    call.finish();
    assert_eq!(call.end().code, Some(0));
    assert_eq!(talking.counted("started_total"), 1);
    assert_eq!(talking.counted("pieces_total"), 51);
    assert_eq!((talking.counted("cancelled_total"), talking.counted("open")), (0, 0));
}

#[test]
fn the_answers_of_one_call_come_side_by_side() {
    let talking = Talking::open();
    let mut call = Client::open(talking.address()).begin(STREAM, &[]);
    call.push(prompt("a", &[]));
    let first = talking.take(1);
    call.push(prompt("b", &[]));
    let second = talking.take(1);
    second.say("2");
    assert_eq!(next(&mut call), heard("b", "2", false));
    first.say("1");
    assert_eq!(next(&mut call), heard("a", "1", false));
    second.finish();
    assert_eq!(next(&mut call), heard("b", "", true));
    first.fail("no further");
    assert_eq!(error(&mut call), ("a".to_owned(), "no further".to_owned()));
    call.finish();
    assert_eq!(call.end().code, Some(0));
    assert_eq!(talking.counted("failed_total"), 1);
}

#[test]
fn parameters_are_those_of_the_generate_extension() {
    let talking = Talking::open();
    let mut call = Client::open(talking.address()).begin(STREAM, &[]);
    call.push(prompt("a", &[("max_tokens", ParameterChoice::Int64Param(2))]));
    let talk = talking.take(1);
    talk.say_all(&["x", "y", "z"]);
    assert_eq!(next(&mut call), heard("a", "x", false));
    assert_eq!(next(&mut call), heard("a", "y", true));
    until("its generation was stopped", || talk.left() == 1);
    assert_eq!(talking.counted("cancelled_total"), 0);
    let stop = ParameterChoice::StringParam("yz".to_owned());
    call.push(prompt("b", &[("stop", stop), ("priority", ParameterChoice::Int64Param(1))]));
    let talk = talking.take(1);
    talk.say_all(&["xy", "y", "z"]);
    assert_eq!(next(&mut call), heard("b", "x", false));
    assert_eq!(next(&mut call), heard("b", "y", false));
    assert_eq!(next(&mut call), heard("b", "", true));
    for (name, choice, words) in [
        ("temperature", ParameterChoice::DoubleParam(3.0), "between 0 and 2"),
        ("colour", ParameterChoice::BoolParam(true), "colour"),
    ] {
        call.push(prompt("c", &[(name, choice)]));
        let (id, message) = error(&mut call);
        assert_eq!(id, "c");
        assert!(message.contains(name) && message.contains(words), "{message}");
    }
}

#[test]
fn a_call_that_is_given_up_stops_its_generations() {
    let talking = Talking::open();
    let client = Client::open(talking.address());
    let mut queued = client.begin(STREAM, &[]);
    queued.push(prompt("a", &[]));
    until("it was queued", || talking.endpoint.stats().queued == 1);
    queued.reset();
    until("the server saw it leave", || talking.inside.in_flight() == 0);
    let mut early = client.begin(STREAM, &[]);
    early.push(prompt("b", &[]));
    until("it was queued", || talking.inside.in_flight() == 1);
    let before_the_first = talking.take_all();
    assert_eq!(before_the_first.count(), 1, "the one before it never comes to the model");
    early.reset();
    until("its generation was stopped", || before_the_first.left() == 1);
    let mut middle = client.begin(STREAM, &[]);
    middle.push(prompt("c", &[]));
    let talk = talking.take(1);
    talk.say("1");
    assert_eq!(next(&mut middle), heard("c", "1", false));
    middle.reset();
    until("its generation was stopped", || talk.left() == 1);
    assert_eq!((talking.counted("cancelled_total"), talking.inside.in_flight()), (3, 0));
}

#[test]
fn a_client_that_takes_nothing_fills_its_window_and_no_more() {
    let http = HttpSettings { stream_window: 100_000, ..HttpSettings::default() };
    let talking = Talking::with(http);
    let mut call = Client::open(talking.address()).begin(STREAM, &[]);
    call.push(prompt("a", &[]));
    let talk = talking.take(1);
    let piece = "x".repeat(10_000);
    let mut said = 0;
    while talk.without_room() == 0 {
        talk.say(&piece);
        said += 1;
        assert!(said < 1_000, "it is sent ahead without end");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for _ in 0..said {
        assert_eq!(next(&mut call).text.len(), piece.len());
    }
    until("there was room again", || talk.without_room() == 0);
    talk.finish();
    assert!(next(&mut call).last);
}

#[test]
fn a_generation_whose_time_has_passed_is_stopped() {
    let talking = Talking::open();
    let mut call = Client::open(talking.address()).begin(STREAM, &[]);
    let timeout = || ParameterChoice::Int64Param(100_000);
    call.push(prompt("a", &[("timeout", timeout())]));
    let talk = talking.take(1);
    talk.say("1");
    assert_eq!(next(&mut call), heard("a", "1", false));
    let (id, message) = error(&mut call);
    assert_eq!(id, "a");
    assert!(message.contains("deadline"), "{message}");
    until("its generation was stopped", || talk.left() == 1);
    call.finish();
    assert_eq!(call.end().code, Some(0));
    let text = talking.inside.metrics_text();
    assert!(text.contains("penstock_requests_total{model=\"talk\",outcome=\"expired\"} 1"), "{text}");
}
