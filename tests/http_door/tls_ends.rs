//! How encrypted connections end: clients that leave, clients that take their time, and a server that closes.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use penstock::error::Result;
use penstock::pipeline::AnswerRow;
use penstock::serve::HttpSettings;
use penstock::tensor::Spares;

use crate::harness::{Certificates, Door, INFER, Setup, Wire, bare, infer, output, until};

fn open(certificates: &Certificates, http: HttpSettings) -> Door {
    Door::with(Setup { http, security: certificates.settings(), ..Setup::default() })
}

#[test]
fn a_request_whose_sender_left_never_reaches_the_model_however_it_left() {
    let certificates = Certificates::new();
    let client = certificates.client(&["http/1.1"]);
    // It closes the socket without a word; it says that it leaves, and closes; it resets.
    let leave: [fn(Wire); 3] = [
        drop,
        |mut wire| wire.notify_close(),
        |wire| {
            socket2::SockRef::from(wire.socket()).set_linger(Some(Duration::ZERO)).unwrap();
        },
    ];
    for leave in leave {
        let door = open(&certificates, HttpSettings::default());
        door.gate.close();
        let mut first = Wire::encrypted(door.address(), &client);
        first.send(infer(&[1.0]));
        door.wait_taken(1);
        let mut leaves = Wire::encrypted(door.address(), &client);
        // What was not read when a socket is closed would make every end a reset.
        assert_eq!(leaves.ask(bare("GET", "/v2/health/live")).status, 200);
        leaves.send(infer(&[2.0]));
        door.wait_queued(1);
        let mut stays = Wire::encrypted(door.address(), &client);
        stays.send(infer(&[3.0]));
        door.wait_queued(2);
        leave(leaves);
        until("the server saw it leave", || door.inside.connections() == 2);
        door.gate.open();
        assert_eq!(first.answer().numbers(), [2.0]);
        assert_eq!(stays.answer().numbers(), [6.0]);
        assert_eq!(door.seen(), [1.0, 3.0]);
        assert_eq!(door.endpoint.stats().abandoned, 1);
    }
}

#[test]
fn who_says_that_he_sends_no_more_still_gets_his_answer() {
    let certificates = Certificates::new();
    let door = open(&certificates, HttpSettings::default());
    door.gate.close();
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    wire.send(infer(&[1.0]));
    door.wait_taken(1);
    wire.notify_close();
    // Time for a server that would take it for the end.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(door.inside.connections(), 1);
    door.gate.open();
    assert_eq!(wire.answer().numbers(), [2.0]);
    assert!(wire.is_ended());
}

#[test]
fn a_request_that_breaks_off_is_none() {
    let certificates = Certificates::new();
    let door = open(&certificates, HttpSettings::default());
    let whole = infer(&[1.0]);
    for cut in [10, whole.len() - 1] {
        let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
        wire.send(&whole[..cut]);
        drop(wire);
    }
    until("no connection was left", || door.inside.connections() == 0);
    assert!(door.seen().is_empty());
}

#[test]
fn a_handshake_has_the_time_of_a_head() {
    let certificates = Certificates::new();
    let http = HttpSettings { header_timeout: Duration::from_millis(100), ..HttpSettings::default() };
    let door = open(&certificates, http);
    // Nothing at all, the beginning of a record, and a handshake after which nothing comes.
    let mut silent = Wire::open(door.address());
    let mut begun = Wire::open(door.address());
    begun.send([0x16, 3, 1, 2, 0, 1]);
    let mut done = Wire::encrypted(door.address(), &certificates.client(&["http/1.1"]));
    done.handshake().unwrap();
    for wire in [&mut silent, &mut begun, &mut done] {
        assert!(wire.is_ended());
    }
    until("no connection was left", || door.inside.connections() == 0);
    assert!((door.metric("penstock_tls_handshakes_total{outcome=\"failed\"}") - 2.0).abs() < 0.1);
}

#[test]
fn a_head_that_takes_too_long_is_refused_in_words() {
    let certificates = Certificates::new();
    let http = HttpSettings { header_timeout: Duration::from_millis(100), ..HttpSettings::default() };
    let door = open(&certificates, http);
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    wire.send("GET /v2 HTTP/1.1\r\nhost:");
    wire.answer().assert_last_words(408);
    assert!(wire.is_ended());
    assert_eq!(door.refused("header_timeout"), 1);
}

#[test]
fn a_body_that_takes_too_long_is_refused_in_words() {
    let certificates = Certificates::new();
    let http = HttpSettings { body_timeout: Duration::from_millis(100), ..HttpSettings::default() };
    let door = open(&certificates, http);
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{{"));
    wire.answer().assert_last_words(408);
}

#[test]
fn an_idle_connection_is_closed() {
    let certificates = Certificates::new();
    let http = HttpSettings { idle_timeout: Duration::from_millis(100), ..HttpSettings::default() };
    let door = open(&certificates, http);
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
    assert!(wire.is_ended());
    until("no connection was left", || door.inside.connections() == 0);
}

fn floods(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    output(&vec![vec![1.0; 4_000_000]; rows.len()], spares)
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_dropped() {
    let certificates = Certificates::new();
    let http = HttpSettings { body_timeout: Duration::from_millis(200), ..HttpSettings::default() };
    let door =
        Door::with(Setup { http, security: certificates.settings(), model: floods, ..Setup::default() });
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    wire.send(infer(&[1.0]));
    until("the server gave up", || {
        door.taken.load(std::sync::atomic::Ordering::Relaxed) == 1 && door.inside.connections() == 0
    });
}

/// What is small enough to be encrypted as a whole before the socket takes it waits in no buffer for ever.
#[test]
fn a_client_that_takes_none_of_many_small_answers_is_dropped() {
    let certificates = Certificates::new();
    let http = HttpSettings { body_timeout: Duration::from_millis(200), ..HttpSettings::default() };
    let door = open(&certificates, http);
    let mut wire = Wire::encrypted(door.address(), &certificates.client(&[]));
    wire.handshake().unwrap();
    socket2::SockRef::from(wire.socket()).set_recv_buffer_size(4 << 10).unwrap();
    wire.socket().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let ask = bare("GET", "/metrics").repeat(100);
    // It goes on asking until the server reads no more.
    for _ in 0..200 {
        wire.try_send(&ask);
        if door.inside.connections() == 0 {
            break;
        }
    }
    let _ = wire.socket().flush();
    until("the server gave up", || door.inside.connections() == 0);
}

#[test]
fn a_server_that_closes_answers_what_it_has_and_ends_well() {
    let certificates = Certificates::new();
    let door = open(&certificates, HttpSettings::default());
    let client = certificates.client(&["http/1.1"]);
    door.gate.close();
    let mut asked = Wire::encrypted(door.address(), &client);
    asked.send(infer(&[1.0]));
    door.wait_taken(1);
    let mut idle = Wire::encrypted(door.address(), &client);
    assert_eq!(idle.ask(bare("GET", "/v2/health/live")).status, 200);
    let silent = Wire::open(door.address());
    until("all had come in", || door.inside.connections() == 3);
    door.server.begin_close();
    assert!(idle.is_ended());
    door.gate.open();
    assert_eq!(asked.answer().numbers(), [2.0]);
    assert!(asked.is_ended());
    until("no connection was left", || door.inside.connections() == 0);
    drop(silent);
}
