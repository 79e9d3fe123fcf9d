//! Good and bad requests in any order, on several connections, in pieces of any size.

use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use crate::harness::{Answer, Door, INFER, Wire, bare, body, post, post_with};

static DOOR: LazyLock<Door> = LazyLock::new(Door::open);

/// One request.
#[derive(Debug, Clone)]
enum Request {
    /// Rows of one number each, in a body that is sent in one of several ways.
    Good(Vec<u8>, Body),
    Health,
    Bad(Bad),
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Plain,
    Chunked,
    Packed,
    Binary,
}

/// What is wrong with a request whose end can be told.
#[derive(Debug, Clone, Copy)]
enum Bad {
    Json,
    Datatype,
    Count,
    Model,
    Path,
    Method,
    Coding,
    HeaderLength,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let bodies = prop_oneof![
        4 => Just(Body::Plain),
        1 => Just(Body::Chunked),
        1 => Just(Body::Packed),
        1 => Just(Body::Binary),
    ];
    let bad = proptest::sample::select(vec![
        Bad::Json,
        Bad::Datatype,
        Bad::Count,
        Bad::Model,
        Bad::Path,
        Bad::Method,
        Bad::Coding,
        Bad::HeaderLength,
    ]);
    let numbers = proptest::collection::vec(any::<u8>(), 1..5);
    let one = prop_oneof![
        5 => (numbers, bodies).prop_map(|(numbers, body)| Request::Good(numbers, body)),
        1 => Just(Request::Health),
        3 => bad.prop_map(Request::Bad),
    ];
    proptest::collection::vec(one, 1..10)
}

fn floats(numbers: &[u8]) -> Vec<f32> {
    numbers.iter().copied().map(f32::from).collect()
}

fn good(numbers: &[u8], how: Body) -> Vec<u8> {
    let numbers = floats(numbers);
    let json = body(&numbers);
    match how {
        Body::Plain => post(INFER, &json).into_bytes(),
        Body::Chunked => {
            let (first, second) = json.split_at(json.len() / 2);
            let head = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = |data: &str| format!("{:x};of=two\r\n{data}\r\n", data.len());
            [head, chunk(first), chunk(second), "0\r\n\r\n".to_owned()].concat().into_bytes()
        }
        Body::Packed => {
            let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
            packer.write_all(json.as_bytes()).unwrap();
            post_with("content-encoding: gzip\r\n", &packer.finish().unwrap())
        }
        Body::Binary => {
            let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let (count, size) = (numbers.len(), data.len());
            let json = format!(
                r#"{{"inputs":[{{"name":"x","shape":[{count},1],"datatype":"FP32","parameters":{{"binary_data_size":{size}}}}}]}}"#
            );
            let header = format!("inference-header-content-length: {}\r\n", json.len());
            post_with(&header, &[json.as_bytes(), &data].concat())
        }
    }
}

/// The request, and the status that it gets.
fn bad(what: Bad) -> (Vec<u8>, u16) {
    let whole = body(&[7.0]);
    let (text, status) = match what {
        Bad::Json => (post(INFER, &whole[..whole.len() - 2]), 400),
        Bad::Datatype => (post(INFER, &whole.replace("FP32", "INT8")), 400),
        Bad::Count => (post(INFER, &whole.replace("[1,1]", "[3,1]")), 400),
        Bad::Model => (post("/v2/models/triple/infer", &whole), 404),
        Bad::Path => (bare("GET", "/v2/nothing"), 404),
        Bad::Method => (bare("DELETE", INFER), 405),
        Bad::Coding => return (post_with("content-encoding: br\r\n", whole.as_bytes()), 415),
        Bad::HeaderLength => {
            return (post_with("inference-header-content-length: 9999\r\n", whole.as_bytes()), 400);
        }
    };
    (text.into_bytes(), status)
}

fn bytes_of(request: &Request) -> Vec<u8> {
    match request {
        Request::Good(numbers, how) => good(numbers, *how),
        Request::Health => bare("GET", "/v2/health/live").into_bytes(),
        Request::Bad(what) => bad(*what).0,
    }
}

fn check(request: &Request, answer: &Answer) {
    match request {
        Request::Good(numbers, _) => {
            let doubled: Vec<f64> = numbers.iter().map(|number| f64::from(*number) * 2.0).collect();
            assert_eq!(answer.numbers(), doubled);
        }
        Request::Health => {
            assert_eq!((answer.status, &answer.body[..]), (200, br#"{"live":true}"#.as_slice()));
        }
        Request::Bad(what) => {
            assert_eq!(answer.status, bad(*what).1, "{what:?}");
            assert!(!answer.error().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_gets_its_own_answer_in_its_turn(
        connections in proptest::collection::vec(requests(), 1..5),
        sizes in proptest::collection::vec(1_usize..700, 1..20),
        ends_in_garbage in any::<bool>(),
    ) {
        let mut wires = Vec::new();
        for requests in &connections {
            let mut unsent = requests.iter().flat_map(bytes_of).collect::<Vec<_>>();
            if ends_in_garbage {
                unsent.extend_from_slice(b"no request at all\r\n\r\n");
            }
            wires.push((Wire::open(DOOR.address()), unsent));
        }
        let mut sizes = sizes.iter().cycle();
        while wires.iter().any(|(_, unsent)| !unsent.is_empty()) {
            for (wire, unsent) in &mut wires {
                let size = (*sizes.next().unwrap()).min(unsent.len());
                wire.send(unsent.drain(..size).collect::<Vec<_>>());
            }
        }
        for (requests, (wire, _)) in connections.iter().zip(&mut wires) {
            for request in requests {
                check(request, &wire.answer());
            }
            if ends_in_garbage {
                wire.answer().assert_last_words(400);
                prop_assert!(wire.is_ended());
            }
        }
    }
}
