//! Who goes first, and on whose behalf: by metadata, and by the parameter of a request.

use penstock::batch::BatchPolicy;
use penstock::wire::grpc::framed;
use penstock::wire::grpc::proto::inference::InferParameter;
use penstock::wire::grpc::proto::inference::infer_parameter::ParameterChoice;

use crate::harness::{Client, Door, INFER, STREAM, Setup, one, raw};

const INVALID_ARGUMENT: u8 = 3;

fn with_parameter(choice: ParameterChoice, number: f32) -> bytes::Bytes {
    let mut request = raw(&[number]);
    request.parameters.insert("priority".into(), InferParameter { parameter_choice: Some(choice) });
    framed(&request)
}

#[test]
fn a_high_priority_goes_first_however_it_is_said() {
    let policy = BatchPolicy { max_size: 1, ..BatchPolicy::default() };
    let door = Door::with(Setup { policy, ..Setup::default() });
    let client = Client::open(door.address());
    door.gate.close();
    let running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    let low = [("x-request-priority", "low")];
    let high = [("x-request-priority", "high"), ("x-request-tenant", "a")];
    let calls = [
        client.call_with(INFER, &low, one(6.0)),
        client.call(INFER, with_parameter(ParameterChoice::Int64Param(9), 7.0)),
        client.call(INFER, one(5.0)),
        client.call_with(INFER, &high, one(2.0)),
        client.call_with(STREAM, &high, one(3.0)),
        client.call(INFER, with_parameter(ParameterChoice::StringParam("high".into()), 4.0)),
    ];
    door.wait_queued(calls.len());
    door.gate.open();
    assert_eq!(running.end().numbers(), [2.0]);
    for call in calls {
        assert_eq!(call.end().code, Some(0));
    }
    let mut seen = door.seen();
    // Calls of one connection that come together are queued in any order: within a priority it is free.
    seen[1..4].sort_by(f32::total_cmp);
    seen[5..].sort_by(f32::total_cmp);
    assert_eq!(seen, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn what_cannot_be_is_an_invalid_argument() {
    let door = Door::open();
    let client = Client::open(door.address());
    for (field, words) in [
        (("x-request-priority", "urgent"), "x-request-priority is 'urgent'"),
        (("x-request-tenant", ""), "x-request-tenant is empty"),
    ] {
        for path in [INFER, STREAM] {
            let ended = client.call_with(path, &[field], one(1.0)).end();
            assert_eq!(ended.code, Some(INVALID_ARGUMENT), "{path}");
            assert!(ended.message.contains(words), "{}", ended.message);
        }
    }
    for choice in [
        ParameterChoice::Int64Param(-1),
        ParameterChoice::StringParam("urgent".into()),
        ParameterChoice::BoolParam(true),
    ] {
        let ended = client.call(INFER, with_parameter(choice, 1.0)).end();
        assert_eq!(ended.code, Some(INVALID_ARGUMENT));
        assert!(ended.message.contains("the parameter priority"), "{}", ended.message);
    }
    assert!(door.seen().is_empty());
}
