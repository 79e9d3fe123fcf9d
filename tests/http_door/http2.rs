//! HTTP/2 by prior knowledge.

use std::time::Duration;

use http_body_util::BodyExt;
use penstock::serve::HttpSettings;

use crate::harness::{Client, Door, Setup, Stream, Wire, bare, body, endless, infer, post_stream, until};

const SHORT: Duration = Duration::from_millis(160);
const LONG: Duration = Duration::from_mins(1);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No settings, by RFC 9113, section 6.5.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GO_AWAY: u8 = 7;

fn limited(http: HttpSettings) -> Door {
    Door::with(Setup { http, ..Setup::default() })
}

#[test]
fn every_stream_of_a_connection_gets_its_own_answer() {
    let door = Door::open();
    let client = Client::open(door.address());
    for round in 0..3_u8 {
        let streams: Vec<_> = (0..100_u8).map(|number| client.infer(&[f32::from(number)])).collect();
        for (number, stream) in (0..100_u8).zip(streams) {
            assert_eq!(stream.answer().numbers(), [f64::from(number) * 2.0], "round {round}");
        }
    }
    assert_eq!(door.inside.connections(), 1);
    let stats = door.endpoint.stats();
    assert!(stats.batches < stats.requests, "streams share batches: {stats:?}");
}

#[test]
fn answers_are_those_of_the_older_version() {
    let door = Door::open();
    let client = Client::open(door.address());
    let mut wire = Wire::open(door.address());
    for path in
        ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/double", "/nowhere", "/v2/models/x"]
    {
        let (new, old) = (client.get(path).answer(), wire.ask(bare("GET", path)));
        assert_eq!((new.status, &new.body), (old.status, &old.body), "{path}");
        assert_eq!(new.header("content-type"), old.header("content-type"));
    }
    let answer = client.infer(&[1.0]).answer();
    assert!(answer.header("server-timing").is_some());
    assert_eq!(answer.body, wire.ask(infer(&[1.0])).body);
}

#[test]
fn what_is_refused_on_one_stream_is_no_matter_to_the_others() {
    let door = limited(HttpSettings { max_body: 1_000, max_in_flight: 2, ..HttpSettings::default() });
    let client = Client::open(door.address());
    assert_eq!(client.send(post_stream("no json")).answer().status, 400);
    assert_eq!(client.get("/nowhere").answer().status, 404);
    let large = client.send(post_stream(vec![b' '; 100_000])).answer();
    assert_eq!(large.status, 413);
    assert!(large.error().contains("max_body=1000"));
    let mut packed = post_stream("x");
    packed.headers_mut().insert("content-encoding", "br".parse().unwrap());
    assert_eq!(client.send(packed).answer().status, 415);
    door.gate.close();
    let running = client.infer(&[1.0]);
    door.wait_taken(1);
    let queued = client.infer(&[2.0]);
    door.wait_queued(1);
    let refused = client.infer(&[3.0]).answer();
    assert_eq!((refused.status, refused.header_number("retry-after")), (503, 1));
    assert_eq!(client.get("/v2/health/live").answer().status, 200);
    door.gate.open();
    assert_eq!(running.answer().numbers(), [2.0]);
    assert_eq!(queued.answer().numbers(), [4.0]);
    assert_eq!(door.inside.connections(), 1, "all on one connection");
}

#[test]
fn a_head_that_is_too_large_is_refused_and_the_connection_kept() {
    let door = limited(HttpSettings { max_head: 8 << 10, ..HttpSettings::default() });
    let client = Client::open(door.address());
    let mut request = post_stream(body(&[9.0]));
    request.headers_mut().insert("a", "b".repeat(12 << 10).parse().unwrap());
    // A client that heeds the server's setting does not even send it.
    if let Ok(answer) = client.send(request).result() {
        assert_eq!(answer.status, 431);
    }
    assert_eq!(client.infer(&[1.0]).answer().numbers(), [2.0]);
    assert_eq!(door.seen(), [1.0]);
}

#[test]
fn a_body_that_takes_too_long_is_told_so_and_the_others_are_answered() {
    let door = limited(HttpSettings { body_timeout: SHORT, ..HttpSettings::default() });
    let client = Client::open(door.address());
    let slow = client.send(endless());
    assert_eq!(client.infer(&[1.0]).answer().numbers(), [2.0]);
    let answer = slow.answer();
    assert_eq!(answer.status, 408);
    assert!(answer.error().contains("body_timeout"), "{}", answer.error());
    assert_eq!(client.infer(&[2.0]).answer().numbers(), [4.0]);
}

#[test]
fn no_more_streams_are_open_than_may_be() {
    let door = limited(HttpSettings { max_streams: 2, ..HttpSettings::default() });
    let client = Client::open(door.address());
    // The server's settings have come once something is answered.
    assert_eq!(client.get("/v2").answer().status, 200);
    door.gate.close();
    let streams: Vec<_> = (0..6_u8).map(|number| client.infer(&[f32::from(number)])).collect();
    door.wait_taken(1);
    until("two were in flight", || door.inside.in_flight() == 2);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(door.inside.in_flight(), 2);
    door.gate.open();
    for (number, stream) in (0..6_u8).zip(streams) {
        assert_eq!(stream.answer().numbers(), [f64::from(number) * 2.0]);
    }
}

#[test]
fn a_stream_that_is_taken_back_never_reaches_the_model() {
    let door = Door::open();
    door.gate.close();
    let client = Client::open(door.address());
    let running = client.infer(&[1.0]);
    door.wait_taken(1);
    let leaves = client.infer(&[2.0]);
    door.wait_queued(1);
    let stays = client.infer(&[3.0]);
    door.wait_queued(2);
    leaves.reset();
    until("it was no longer in flight", || door.inside.in_flight() == 2);
    door.gate.open();
    assert_eq!(running.answer().numbers(), [2.0]);
    assert_eq!(stays.answer().numbers(), [6.0]);
    assert_eq!(door.seen(), [1.0, 3.0]);
    assert_eq!(door.endpoint.stats().abandoned, 1);
}

#[test]
fn a_connection_that_breaks_takes_its_streams_along() {
    let door = Door::open();
    door.gate.close();
    let mut first = Wire::open(door.address());
    first.send(infer(&[1.0]));
    door.wait_taken(1);
    let client = Client::open(door.address());
    let streams: Vec<Stream> = (0..5).map(|_| client.infer(&[2.0])).collect();
    door.wait_queued(5);
    streams.into_iter().for_each(Stream::reset);
    drop(client);
    until("the server saw it leave", || door.inside.connections() == 1);
    door.gate.open();
    assert_eq!(first.answer().numbers(), [2.0]);
    assert_eq!(first.ask(infer(&[3.0])).numbers(), [6.0]);
    assert_eq!(door.seen(), [1.0, 3.0]);
}

#[test]
fn a_server_that_closes_answers_the_streams_that_it_accepted() {
    let door = Door::open();
    door.gate.close();
    let client = Client::open(door.address());
    let running = client.infer(&[1.0]);
    door.wait_taken(1);
    let queued: Vec<_> = (2..5_u8).map(|number| client.infer(&[f32::from(number)])).collect();
    door.wait_queued(3);
    let idle = Client::open(door.address());
    assert_eq!(idle.get("/v2").answer().status, 200);
    let count = door.inside.connection_count();
    door.server.begin_close();
    idle.wait_closed();
    assert!(!count.wait_none(Duration::from_millis(20)), "one is still to be answered");
    door.gate.open();
    assert_eq!(running.answer().numbers(), [2.0]);
    for (number, stream) in (2..5_u8).zip(queued) {
        assert_eq!(stream.answer().numbers(), [f64::from(number) * 2.0]);
    }
    client.wait_closed();
    assert!(count.wait_none(LONG));
}

#[test]
fn an_idle_connection_is_closed_and_one_with_an_open_stream_is_not() {
    let door = limited(HttpSettings { idle_timeout: SHORT, ..HttpSettings::default() });
    let works = Client::open(door.address());
    assert_eq!(works.get("/v2").answer().status, 200);
    door.gate.close();
    let stream = works.infer(&[1.0]);
    door.wait_taken(1);
    let idle = Client::open(door.address());
    assert_eq!(idle.get("/v2").answer().status, 200);
    idle.wait_closed();
    let mut silent = Wire::open(door.address());
    silent.send([PREFACE, SETTINGS].concat());
    assert!(frames(&mut silent).contains(&GO_AWAY), "it is told so");
    std::thread::sleep(SHORT * 3);
    door.gate.open();
    assert_eq!(stream.answer().numbers(), [2.0]);
    works.wait_closed();
}

/// Between two requests a client sends acknowledgements, pings and windows: none of these begins a head.
#[test]
fn the_time_for_a_head_does_not_end_a_connection_that_is_idle() {
    let door = limited(HttpSettings { header_timeout: SHORT, ..HttpSettings::default() });
    let early = Client::open(door.address());
    let client = Client::open(door.address());
    for number in 1..4_u8 {
        assert_eq!(client.infer(&[f32::from(number)]).answer().numbers(), [f64::from(number) * 2.0]);
        std::thread::sleep(SHORT * 3);
    }
    assert_eq!(early.infer(&[5.0]).answer().numbers(), [10.0]);
}

#[test]
fn a_preface_that_breaks_off_is_left_in_time() {
    let http = HttpSettings { header_timeout: SHORT, idle_timeout: SHORT, ..HttpSettings::default() };
    let door = limited(http);
    for begun in [&b"PRI"[..], b"PRI * HT", PREFACE] {
        let mut wire = Wire::open(door.address());
        wire.send(begun);
        while wire.bytes(1).is_some() {}
    }
    until("no connection was left", || door.inside.connections() == 0);
}

/// The types of the frames that come until the server hangs up.
fn frames(wire: &mut Wire) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some(head) = wire.bytes(9) {
        kinds.push(head[3]);
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if wire.bytes(length).is_none() {
            break;
        }
    }
    kinds
}

#[test]
fn garbage_behind_the_preface_harms_nobody_but_its_sender() {
    let door = Door::open();
    let other = Client::open(door.address());
    assert_eq!(other.infer(&[1.0]).answer().numbers(), [2.0]);
    let garbage: [&[u8]; 6] = [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        // A HEADERS frame on stream 0, one whose block is nonsense, DATA on a stream that is not open.
        b"\x00\x00\x01\x01\x05\x00\x00\x00\x00\x82",
        b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
        b"\x00\x00\x01\x00\x01\x00\x00\x00\x05x",
        // A window that is opened by nothing, a PING of the wrong length.
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x",
    ];
    for bytes in garbage {
        let mut wire = Wire::open(door.address());
        wire.send([PREFACE, SETTINGS].concat());
        wire.try_send(bytes);
        let kinds = frames(&mut wire);
        assert!(kinds.contains(&GO_AWAY), "{bytes:?} got {kinds:?}");
    }
    let mut no_preface = Wire::open(door.address());
    no_preface.try_send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    while no_preface.bytes(1).is_some() {}
    assert_eq!(other.infer(&[2.0]).answer().numbers(), [4.0]);
    until("only the other was left", || door.inside.connections() == 1);
}

#[test]
fn a_request_without_a_body_is_answered() {
    let door = Door::open();
    let client = Client::open(door.address());
    assert_eq!(client.send(post_stream("")).answer().status, 400);
    let head = http::Request::head("http://test/v2").body(http_body_util::Empty::new().boxed()).unwrap();
    let answer = client.send(head).answer();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}
