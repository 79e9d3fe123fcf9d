//! Answers that come in pieces: as they are said, and no later.

use std::time::{Duration, Instant};

use penstock::error::{Error, ErrorKind};
use penstock::serve::HttpSettings;

use crate::harness::{Client, GENERATE, PROMPT, Talking, Wire, ask, bare, post_to, said, until};

const SHORT: Duration = Duration::from_millis(160);

#[test]
fn each_piece_leaves_as_it_is_said() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    talk.say("0");
    let head = wire.read(false).unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    assert_eq!(
        (head.header("cache-control"), head.header("x-accel-buffering"), head.header("transfer-encoding")),
        (Some("no-cache"), Some("no"), Some("chunked"))
    );
    assert_eq!(said(&wire.chunk().unwrap()), ["0"]);
    // The next is said when the one before is read: whatever held it back would hang.
    for step in 1..200 {
        talk.say(&step.to_string());
        assert_eq!(said(&wire.chunk().unwrap()), [step.to_string()]);
    }
    talk.finish();
    assert_eq!(said(&wire.chunks()), [""; 0]);
    assert_eq!(wire.ask(bare("GET", "/v2/health/live")).status, 200, "the connection goes on");
    assert_eq!(talking.counted("pieces_total"), 200);
    assert_eq!(talking.counted("started_total"), 1);
    assert_eq!(talking.counted("cancelled_total"), 0);
    assert_eq!(talking.counted("open"), 0);
    assert_eq!(talking.counted("first_piece_seconds_count"), 1);
}

#[test]
fn pieces_that_are_there_together_leave_together() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    talk.say_all(&["a", "b", "c"]);
    wire.read(false).unwrap();
    assert_eq!(said(&wire.chunk().unwrap()), ["a", "b", "c"]);
    talk.say_all(&["d", "e"]);
    assert_eq!(said(&wire.chunk().unwrap()), ["d", "e"]);
    talk.finish();
    assert_eq!(wire.chunk().unwrap(), b"");
}

#[test]
fn requests_of_one_batch_stream_side_by_side() {
    let talking = Talking::open();
    let mut wires: Vec<_> = (0..50).map(|_| talking.asked()).collect();
    let talk = talking.take(50);
    for step in 0..10 {
        talk.say(&step.to_string());
        for wire in &mut wires {
            if step == 0 {
                assert_eq!(wire.read(false).unwrap().status, 200);
            }
            assert_eq!(said(&wire.chunk().unwrap()), [step.to_string()]);
        }
    }
    talk.finish();
    assert!(wires.iter_mut().all(|wire| wire.chunks().is_empty()));
}

#[test]
fn a_failure_before_the_first_piece_is_a_status() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    talking.take(1).fail("it does not work");
    let answer = wire.answer();
    assert_eq!((answer.status, answer.error().as_str()), (500, "it does not work"));
    wire.send(ask(""));
    let talk = talking.take(1);
    talk.say("and now it does");
    wire.read(false).unwrap();
    assert_eq!(said(&wire.chunk().unwrap()), ["and now it does"]);
    assert_eq!(talking.counted("failed_total"), 1);
    talk.finish();
}

#[test]
fn a_failure_in_the_middle_is_the_last_that_is_said() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    talk.say("so far");
    wire.read(false).unwrap();
    assert_eq!(said(&wire.chunk().unwrap()), ["so far"]);
    talk.fail("and no further");
    assert_eq!(said(&wire.chunks()), ["and no further"]);
    assert_eq!(wire.ask(bare("GET", "/v2/health/live")).status, 200);
    assert_eq!(talking.counted("failed_total"), 1);
    assert_eq!(talking.counted("cancelled_total"), 0);
}

#[test]
fn a_model_that_thinks_long_keeps_its_client_company() {
    let talking = Talking::with(HttpSettings { keep_alive: SHORT, ..HttpSettings::default() });
    let began = Instant::now();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    assert_eq!(wire.read(false).unwrap().status, 200);
    assert!(began.elapsed() >= SHORT);
    for _ in 0..3 {
        let comment = wire.chunk().unwrap();
        assert!(comment.starts_with(b":") && comment.ends_with(b"\n\n"), "{comment:?}");
    }
    assert!(began.elapsed() >= SHORT * 2);
    talk.say("done");
    let mut stream = wire.chunk().unwrap();
    while said(&stream).is_empty() {
        stream = wire.chunk().unwrap();
    }
    assert_eq!(said(&stream), ["done"]);
    talk.finish();
    wire.chunks();
    assert!(talking.counted("keep_alives_total") >= 2);
}

#[test]
fn a_stream_is_not_idle_however_long_it_takes() {
    let http = HttpSettings { idle_timeout: SHORT, header_timeout: SHORT, ..HttpSettings::default() };
    let talking = Talking::with(http);
    let mut wire = talking.asked();
    let talk = talking.take(1);
    talk.say("a");
    wire.read(false).unwrap();
    wire.chunk().unwrap();
    std::thread::sleep(SHORT * 4);
    talk.say("b");
    assert_eq!(said(&wire.chunk().unwrap()), ["b"]);
    talk.finish();
    wire.chunks();
    assert!(wire.is_ended(), "now it is idle");
}

#[test]
fn a_request_behind_a_stream_waits_for_its_end() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    wire.send(bare("GET", "/v2/health/live"));
    talk.say("a");
    wire.read(false).unwrap();
    wire.chunk().unwrap();
    talk.say("b");
    talk.finish();
    assert_eq!(said(&wire.chunks()), ["b"]);
    assert_eq!(wire.answer().status, 200);
}

#[test]
fn an_old_client_gets_the_stream_until_the_connection_ends() {
    let talking = Talking::open();
    let mut wire = Wire::open(talking.address());
    wire.send(ask("").replacen("HTTP/1.1", "HTTP/1.0", 1));
    let talk = talking.take(1);
    talk.say("a");
    let head = wire.read(false).unwrap();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    talk.say("b");
    talk.finish();
    let mut stream = Vec::new();
    while let Some(bytes) = wire.bytes(1) {
        stream.extend(bytes);
    }
    assert_eq!(said(&stream), ["a", "b"]);
}

#[test]
fn streams_of_one_http2_connection_run_side_by_side() {
    let talking = Talking::open();
    let client = Client::open(talking.address());
    let begin = |text: &str| {
        let asked = client.send_early(post_to(GENERATE, PROMPT));
        let talk = talking.take(1);
        talk.say(text);
        (talk, asked.begun())
    };
    let (first, mut one) = begin("1");
    let (second, mut two) = begin("2");
    for (stream, text) in [(&mut one, "1"), (&mut two, "2")] {
        assert_eq!(stream.answer.status(), 200);
        assert_eq!(said(&stream.piece().unwrap()), [text]);
    }
    for step in 0..100 {
        second.say(&step.to_string());
        assert_eq!(said(&two.piece().unwrap()), [step.to_string()]);
    }
    second.finish();
    assert!(two.rest().is_empty());
    first.fail("broke off");
    assert_eq!(said(&one.rest()), ["broke off"]);
    assert_eq!(client.get("/v2/health/live").answer().status, 200);
}

#[test]
fn what_comes_from_within_the_process_streams_too() {
    use http_body_util::{BodyExt, Full};
    let talking = Talking::open();
    let runtime = penstock::runtime::handle().unwrap();
    let request = http::Request::post(GENERATE).body(Full::new(PROMPT.into())).unwrap();
    let inside = std::sync::Arc::clone(&talking.inside);
    let asked = runtime.spawn(async move {
        let (head, body) = inside.ask(request).await.into_parts();
        (head.status, body.collect().await.unwrap().to_bytes())
    });
    let talk = talking.take(1);
    talk.say_all(&["a", "b"]);
    talk.finish();
    let (status, body) = runtime.block_on(asked).unwrap();
    assert_eq!((status.as_u16(), said(&body)), (200, vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn a_stream_is_noted_when_it_has_ended() {
    let talking = Talking::open();
    let mut wire = talking.asked_with("x-request-id: mine\r\n");
    let talk = talking.take(1);
    talk.say("a");
    wire.read(false).unwrap();
    let mut bytes = wire.chunk().unwrap().len();
    assert!(talking.log.0.lock().is_empty());
    std::thread::sleep(SHORT);
    talk.say("b");
    talk.finish();
    bytes += wire.chunks().len();
    until("it was noted", || !talking.log.0.lock().is_empty());
    let record = talking.log.0.lock().remove(0);
    assert_eq!((record.status, record.response_bytes), (200, bytes as u64));
    assert_eq!((record.id.as_deref(), record.model_name()), (Some("mine"), Some("talk")));
    assert!(record.took >= SHORT);
}

#[test]
fn a_server_that_closes_lets_streams_finish() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    let talk = talking.take(1);
    talk.say("a");
    wire.read(false).unwrap();
    wire.chunk().unwrap();
    talking.server.begin_close();
    until("it closes", || std::net::TcpStream::connect(talking.address()).is_err());
    for step in 0..20 {
        talk.say(&step.to_string());
        assert_eq!(said(&wire.chunk().unwrap()), [step.to_string()]);
    }
    talk.finish();
    assert!(wire.chunks().is_empty());
    assert!(wire.is_ended());
}

#[test]
fn a_server_whose_time_is_up_says_so_in_every_stream() {
    let talking = Talking::open();
    let mut wire = talking.asked();
    let client = Client::open(talking.address());
    let talk = talking.take(1);
    let asked = client.send_early(post_to(GENERATE, PROMPT));
    let other = talking.take(1);
    talk.say("a");
    other.say("a");
    wire.read(false).unwrap();
    wire.chunk().unwrap();
    let mut stream = asked.begun();
    stream.piece().unwrap();
    talking.server.begin_close();
    let error = Error::new(ErrorKind::Closed, "the server closes");
    talking.inside.end_streams(&error);
    assert_eq!(said(&wire.chunks()), ["the server closes"]);
    assert_eq!(said(&stream.rest()), ["the server closes"]);
    until("both generations were stopped", || talk.left() + other.left() == 2);
    assert!(wire.is_ended());
    assert!(talking.inside.connection_count().wait_none(crate::harness::PATIENCE));
}
