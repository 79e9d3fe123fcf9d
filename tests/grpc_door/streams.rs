//! `ModelStreamInfer`.

use std::time::Duration;

use penstock::error::{Error, ErrorKind};
use penstock::serve::HttpSettings;
use penstock::wire::grpc::proto::inference::ModelStreamInferResponse;
use penstock::wire::grpc::{framed, prefix_of};
use prost::Message;

use crate::harness::{Client, Door, Duplex, STREAM, Setup, numbers, one, raw, until};

fn answer(call: &mut Duplex) -> ModelStreamInferResponse {
    ModelStreamInferResponse::decode(call.next().expect("the stream has ended")).unwrap()
}

fn doubled(call: &mut Duplex) -> Vec<f32> {
    let answer = answer(call);
    assert_eq!(answer.error_message, "");
    numbers(&answer.infer_response.unwrap())
}

#[test]
fn answers_come_while_requests_go_and_in_their_order() {
    let door = Door::open();
    let mut call = Client::open(door.address()).begin(STREAM, &[]);
    for number in [1.0, 2.0, 3.0] {
        call.push(one(number));
        assert_eq!(doubled(&mut call), [number * 2.0]);
    }
    call.finish();
    let ended = call.end();
    assert_eq!((ended.code, ended.messages.len()), (Some(0), 0));
    assert!(ended.trailers.is_some());
}

#[test]
fn requests_of_a_stream_share_batches() {
    let door = Door::open();
    let mut call = Client::open(door.address()).begin(STREAM, &[]);
    door.gate.close();
    call.push(one(0.0));
    door.wait_taken(1);
    for number in 1..50_u8 {
        call.push(one(f32::from(number)));
    }
    door.wait_queued(49);
    door.gate.open();
    call.finish();
    for number in 0..50_u8 {
        assert_eq!(doubled(&mut call), [f32::from(number) * 2.0]);
    }
    assert_eq!(call.end().code, Some(0));
    assert_eq!(door.endpoint.stats().batches, 2);
}

#[test]
fn answers_keep_the_order_of_their_requests_whatever_their_size() {
    let door = Door::open();
    let mut call = Client::open(door.address()).begin(STREAM, &[]);
    let lengths = [1_u16, 60_000, 2, 1_000, 50_000, 3];
    for length in lengths {
        let mut request = raw(&vec![1.5; usize::from(length)]);
        request.inputs[0].shape = vec![1, i64::from(length)];
        call.push(framed(&request));
    }
    call.finish();
    for length in lengths {
        assert_eq!(doubled(&mut call), vec![3.0; usize::from(length)]);
    }
    assert_eq!(call.end().code, Some(0));
}

#[test]
fn a_request_that_fails_is_told_so_and_the_stream_goes_on() {
    let model = |rows: &[Vec<f32>], spares: &_| match rows[0][0] {
        13.0 => rows.iter().map(|_| Err(Error::new(ErrorKind::Model, "unlucky"))).collect(),
        _ => crate::harness::double(rows, spares),
    };
    let door = Door::with(Setup { model, ..Setup::default() });
    let mut call = Client::open(door.address()).begin(STREAM, &[]);
    let mut unknown = raw(&[1.0]);
    unknown.model_name = "treble".to_owned();
    unknown.id = "b8".to_owned();
    let mut short = raw(&[1.0]);
    short.raw_input_contents[0] = vec![0; 3].into();
    let garbage = [&prefix_of(2)[..], b"\xff\xff"].concat();
    let bodies = [framed(&unknown), framed(&short), one(13.0), garbage.into()];
    for (body, id, word) in bodies
        .into_iter()
        .zip(["b8", "a7", "a7", ""])
        .zip(["'treble'", "'x'", "unlucky", "none of this"])
        .map(|((body, id), word)| (body, id, word))
    {
        call.push(body);
        let answer = answer(&mut call);
        assert!(answer.error_message.contains(word), "{}", answer.error_message);
        assert_eq!(answer.infer_response.unwrap().id, id);
        call.push(one(4.0));
        assert_eq!(doubled(&mut call), [8.0]);
    }
    call.finish();
    assert_eq!(call.end().code, Some(0));
}

#[test]
fn no_more_requests_of_a_stream_are_read_than_may_be() {
    let http = HttpSettings { max_streams: 4, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let mut call = Client::open(door.address()).begin(STREAM, &[]);
    door.gate.close();
    for number in 0..10_u8 {
        call.push(one(f32::from(number)));
    }
    call.finish();
    until("four were in flight", || door.inside.in_flight() == 4);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(door.inside.in_flight(), 4);
    door.gate.open();
    for number in 0..10_u8 {
        assert_eq!(doubled(&mut call), [f32::from(number) * 2.0]);
    }
    assert_eq!(call.end().code, Some(0));
}

#[test]
fn a_door_that_is_full_says_so_for_each_request() {
    let http = HttpSettings { max_in_flight: 1, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let mut call = Client::open(door.address()).begin(STREAM, &[]);
    door.gate.close();
    call.push(one(1.0));
    door.wait_taken(1);
    call.push(one(2.0));
    until("the second was refused", || door.refused("max_in_flight") == 1);
    door.gate.open();
    assert_eq!(doubled(&mut call), [2.0]);
    assert!(answer(&mut call).error_message.contains("max_in_flight=1"));
    call.push(one(3.0));
    assert_eq!(doubled(&mut call), [6.0]);
}

#[test]
fn a_stream_that_is_given_up_takes_its_requests_along() {
    let door = Door::open();
    let client = Client::open(door.address());
    door.gate.close();
    let mut call = client.begin(STREAM, &[]);
    call.push(one(1.0));
    door.wait_taken(1);
    call.push(one(2.0));
    call.push(one(3.0));
    door.wait_queued(2);
    call.reset();
    until("nothing was in flight", || door.inside.in_flight() == 0);
    door.gate.open();
    assert_eq!(client.call(crate::harness::INFER, one(4.0)).end().numbers(), [8.0]);
    assert_eq!(door.seen(), [1.0, 4.0]);
    let text = door.inside.metrics_text();
    assert!(text.contains("penstock_grpc_responses_total{code=\"CANCELLED\"} 1"), "{text}");
}

#[test]
fn what_breaks_the_stream_itself_comes_after_the_answers_before_it() {
    let http = HttpSettings { max_body: 1_000, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let client = Client::open(door.address());
    for (rest, code, word) in
        [(framed(&raw(&[0.0; 1_000])), 8, "max_body=1000"), (one(2.0).slice(..9), 13, "middle of a message")]
    {
        let mut call = client.begin(STREAM, &[]);
        call.push(one(1.0));
        call.push(rest);
        call.finish();
        assert_eq!(doubled(&mut call), [2.0]);
        let ended = call.end();
        assert_eq!(ended.code, Some(code));
        assert!(ended.message.contains(word), "{}", ended.message);
    }
}

#[test]
fn a_client_that_takes_no_answers_is_not_read_from() {
    let http = HttpSettings { max_streams: 2, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let client = Client::open(door.address());
    let mut call = client.begin(STREAM, &[]);
    let mut large = raw(&vec![1.0; 100_000]);
    large.inputs[0].shape = vec![1, 100_000];
    // Each answer is larger than the window that a client opens by itself.
    for _ in 0..40 {
        call.push(framed(&large));
    }
    call.finish();
    std::thread::sleep(Duration::from_millis(300));
    let taken = door.endpoint.stats().requests;
    assert!(taken < 40, "{taken} were read though none was taken");
    for _ in 0..40 {
        assert_eq!(doubled(&mut call).len(), 100_000);
    }
    assert_eq!(call.end().code, Some(0));
}
