//! Bodies in content codings.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use penstock::client::{Client, Request};
use penstock::error::ErrorKind;
use penstock::pool::Place;
use tokio::sync::Notify;

use crate::asking::*;
use crate::server::{Server, Step, answer, say};

const TEXT: &[u8] = b"hello hello hello hello";
/// The same, as the brotli package encodes it.
const BROTLI: &[u8] = &[
    0x1b, 0x16, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0x96, 0x6c, 0x20, 0x6f, 0x21, 0x4f,
    0x1c, 0xe0, 0x38,
];

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn codings() -> Vec<(&'static str, Vec<u8>)> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(TEXT).unwrap();
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
    raw.write_all(TEXT).unwrap();
    vec![
        ("gzip", gzip(TEXT)),
        ("deflate", zlib.finish().unwrap()),
        ("deflate", raw.finish().unwrap()),
        ("br", BROTLI.to_vec()),
        ("zstd", zstd::encode_all(TEXT, 3).unwrap()),
        ("identity", TEXT.to_vec()),
    ]
}

#[tokio::test]
async fn codings_are_taken_off_or_left() {
    for (name, coded) in codings() {
        let body = coded.clone();
        let server =
            Server::start(move |_| say(answer("200 OK", &format!("Content-Encoding: {name}\r\n"), &body)))
                .await;
        let client = client(&server);
        let response = ask(&client, get("/")).await.unwrap();
        assert_eq!(response.body, TEXT, "{name}");
        let left = ask(&client, Request { decode: false, ..get("/") }).await.unwrap();
        assert_eq!(left.body, coded, "{name}");
        assert_eq!(left.fields.get("content-encoding"), Some(name.as_bytes()));
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn a_long_body_is_decoded_too() {
    let text: Vec<u8> = (0..3_000_000).map(|_| fastrand::u8(b'a'..=b'z')).collect();
    let coded = gzip(&text);
    let server = Server::start(move |_| say(answer("200 OK", "content-encoding: gzip\r\n", &coded))).await;
    let client = client(&server);
    assert!(ask(&client, get("/")).await.unwrap().body == text);
    let error = fails(&client, Request { max_response: 2_900_000, ..get("/") }).await;
    assert!(error.message().contains("max_response=2900000"), "{error}");
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_stream_is_decoded_as_it_comes() {
    let coded = gzip(TEXT);
    let server = Server::start(move |_| {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", coded.len());
        vec![Step::Say(head.into()), Step::Drip(coded.clone(), millis(1))]
    })
    .await;
    let client = client(&server);
    for _ in 0..2 {
        let (route, _) = client.route("/").unwrap();
        let (_, mut body) = soon(Client::stream(route, get("/"), Place::Unknown)).await.unwrap();
        let mut got = Vec::new();
        while let Some(portion) = soon(body.next()).await.unwrap() {
            assert!(!portion.is_empty());
            got.extend(portion);
        }
        assert_eq!(got, TEXT);
    }
    assert_eq!(server.connections(), 1);
}

/// Every byte of an event as an encoder that is flushed after each writes it; the last portion ends the coding.
fn flushed(coding: &str) -> Vec<Vec<u8>> {
    fn portions<E: Write>(mut encoder: E, out: fn(&mut E) -> &mut Vec<u8>, end: fn(&mut E)) -> Vec<Vec<u8>> {
        let flushed = |byte: &u8| {
            encoder.write_all(&[*byte]).unwrap();
            encoder.flush().unwrap();
            std::mem::take(out(&mut encoder))
        };
        let mut portions: Vec<_> = TEXT.iter().map(flushed).collect();
        end(&mut encoder);
        portions.push(std::mem::take(out(&mut encoder)));
        portions
    }
    let fast = Compression::fast();
    match coding {
        "gzip" => {
            portions(GzEncoder::new(Vec::new(), fast), |it| it.get_mut(), |it| it.try_finish().unwrap())
        }
        "deflate" => {
            portions(ZlibEncoder::new(Vec::new(), fast), |it| it.get_mut(), |it| it.try_finish().unwrap())
        }
        _ => {
            let encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            portions(encoder, |it| it.get_mut(), |it| it.do_finish().unwrap())
        }
    }
}

/// The next byte leaves the server when the client has the one before it: who holds anything back waits for ever.
#[tokio::test]
async fn every_flushed_byte_is_there_before_the_next_is_sent() {
    for coding in ["gzip", "deflate", "zstd"] {
        let go_on = Arc::new(Notify::new());
        let gate = Arc::clone(&go_on);
        let server = Server::start(move |_| {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ntransfer-encoding: chunked\r\n\r\n"
            );
            let chunk = |portion: &Vec<u8>| {
                [format!("{:x}\r\n", portion.len()).as_bytes(), portion, b"\r\n"].concat()
            };
            let step = |portion| [Step::Say(chunk(portion)), Step::Pause(Arc::clone(&gate))];
            let mut steps = vec![Step::Say(head.into())];
            steps.extend(flushed(coding).iter().flat_map(step));
            steps.push(Step::Say(b"0\r\n\r\n".to_vec()));
            steps
        })
        .await;
        let client = client(&server);
        let (route, _) = client.route("/").unwrap();
        let (_, mut body) = soon(Client::stream(route, get("/"), Place::Unknown)).await.unwrap();
        for byte in TEXT {
            assert_eq!(soon(body.next()).await.unwrap().as_deref(), Some(&[*byte][..]), "{coding}");
            go_on.notify_one();
        }
        go_on.notify_one();
        assert_eq!(soon(body.next()).await.unwrap(), None, "{coding}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_of_its_coding_is_refused() {
    for body in [TEXT.to_vec(), gzip(TEXT)[..20].to_vec()] {
        let server = Server::start(move |_| say(answer("200 OK", "content-encoding: gzip\r\n", &body))).await;
        let client = client(&server);
        let error = fails(&client, get("/")).await;
        assert_eq!(error.kind(), ErrorKind::ProtocolError);
        assert!(error.message().contains("coding"), "{error}");
        assert_eq!(server.count(), 1);
        eventually(|| is_at_rest(&client)).await;
    }
}
