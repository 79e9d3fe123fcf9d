//! Calls that are no calls, and messages in pieces.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::Request;
use penstock::serve::HttpSettings;
use penstock::wire::grpc::framed;

use crate::harness::{Client, Door, INFER, LIVE, Setup, one, raw};

const INTERNAL: u8 = 13;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;

#[test]
fn a_message_may_come_in_any_pieces() {
    let door = Door::open();
    let client = Client::open(door.address());
    let message = framed(&raw(&[1.0, 2.0, 3.0]));
    for size in [1, 2, 4, 5, 6, 17, message.len() - 1] {
        let mut call = client.begin(INFER, &[]);
        for piece in message.chunks(size) {
            call.push(Bytes::copy_from_slice(piece));
        }
        call.finish();
        assert_eq!(call.end().numbers(), [2.0, 4.0, 6.0], "pieces of {size}");
    }
    let mut slow = client.begin(INFER, &[]);
    slow.push(message.slice(..3));
    std::thread::sleep(Duration::from_millis(20));
    slow.push(message.slice(3..20));
    std::thread::sleep(Duration::from_millis(20));
    slow.push(message.slice(20..));
    slow.finish();
    assert_eq!(slow.end().numbers(), [2.0, 4.0, 6.0]);
}

#[test]
fn packed_messages_are_unpacked_and_bombs_are_not() {
    let http = HttpSettings { max_body: 10_000, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let client = Client::open(door.address());
    let message = one(1.0).slice(5..);
    for (encoding, packed) in [("gzip", gzip(&message)), ("deflate", zlib(&message))] {
        let call = client.call_with(INFER, &[("grpc-encoding", encoding)], flagged(&packed));
        assert_eq!(call.end().numbers(), [2.0], "{encoding}");
        let unpacked = client.call_with(INFER, &[("grpc-encoding", encoding)], one(2.0));
        assert_eq!(unpacked.end().numbers(), [4.0], "not every message need be packed");
    }
    let bomb = flagged(&gzip(&vec![0; 1 << 20]));
    let ended = client.call_with(INFER, &[("grpc-encoding", "gzip")], bomb).end();
    assert_eq!(ended.code, Some(RESOURCE_EXHAUSTED));
    assert!(ended.message.contains("max_body=10000"), "{}", ended.message);
    let ended = client.call_with(INFER, &[("grpc-encoding", "br")], one(1.0)).end();
    assert_eq!(ended.code, Some(UNIMPLEMENTED));
    assert_eq!(ended.head["grpc-accept-encoding"], "identity,gzip,deflate");
    let ended = client.call(INFER, flagged(b"xxxx")).end();
    assert_eq!(ended.code, Some(INTERNAL), "packed, and nobody said how");
}

#[test]
fn a_call_of_one_message_has_one() {
    let door = Door::open();
    let client = Client::open(door.address());
    let none = client.call(INFER, Bytes::new()).end();
    assert_eq!(none.code, Some(UNIMPLEMENTED));
    let two = client.call(INFER, [one(1.0), one(2.0)].concat()).end();
    assert_eq!(two.code, Some(UNIMPLEMENTED));
    assert!(two.message.contains("one message"));
    let message = one(1.0);
    for length in [1, 4, 5, message.len() - 1] {
        let broken = client.call(INFER, message.slice(..length)).end();
        assert_eq!(broken.code, Some(INTERNAL), "{length}");
        assert!(broken.message.contains("middle of a message"), "{}", broken.message);
    }
    assert!(door.seen().is_empty());
    assert_eq!(door.refused("body"), 4);
}

#[test]
fn what_is_not_known_is_not_implemented() {
    let door = Door::open();
    let client = Client::open(door.address());
    for path in ["/inference.GRPCInferenceService/Train", "/a.B/C", "/", "/v2"] {
        let ended = client.call(path, one(1.0)).end();
        assert_eq!((ended.http_status, ended.code), (200, Some(UNIMPLEMENTED)), "{path}");
    }
    for kind in ["application/grpc+json", "application/grpc+thrift"] {
        let ended = client.call_with(INFER, &[("content-type", kind)], one(1.0)).end();
        assert_eq!(ended.code, Some(UNIMPLEMENTED));
        assert!(ended.message.contains(kind), "{}", ended.message);
    }
    for kind in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
        assert_eq!(client.call_with(INFER, &[("content-type", kind)], one(1.0)).end().numbers(), [2.0]);
    }
    let ended = client.call_with(LIVE, &[("grpc-timeout", "soon")], [0; 5].to_vec()).end();
    assert_eq!(ended.code, Some(3));
    assert!(ended.message.contains("grpc-timeout 'soon'"));
}

#[test]
fn a_call_is_sent_by_post() {
    let door = Door::open();
    let client = Client::open(door.address());
    let request = Request::get(format!("http://test{LIVE}")).header("content-type", "application/grpc");
    let ended = client.send(request.body(()).unwrap(), true).end();
    assert_eq!(ended.code, Some(UNIMPLEMENTED));
}

#[test]
fn a_message_that_takes_too_long_names_its_limit() {
    let http = HttpSettings { body_timeout: Duration::from_millis(80), ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let client = Client::open(door.address());
    let mut slow = client.begin(INFER, &[]);
    slow.push(one(1.0).slice(..8));
    let ended = slow.end();
    assert_eq!(ended.code, Some(4));
    assert!(ended.message.contains("body_timeout"), "{}", ended.message);
    assert_eq!(door.refused("body_timeout"), 1);
}

fn flagged(packed: &[u8]) -> Vec<u8> {
    let mut out = vec![1];
    out.extend_from_slice(&u32::try_from(packed.len()).unwrap().to_be_bytes());
    out.extend_from_slice(packed);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}
