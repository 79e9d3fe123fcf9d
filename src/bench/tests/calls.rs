//! Calls of gRPC: how they end, and what is looked at.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Server, adds_up, closed};
use crate::bench::{Plan, Protocol, Report, run};
use crate::error::ErrorKind;
use crate::wire::grpc::proto::inference::ModelInferResponse;
use crate::wire::grpc::proto::inference::model_infer_response::InferOutputTensor;
use crate::wire::grpc::{Code, framed, prefix_of};

/// Answers the n-th call with what `answer` gives for it: a status of HTTP, fields, a body, and trailers where there
/// are any.
async fn server(
    answer: impl Fn(usize, Bytes) -> (u16, HeaderMap, Bytes, Option<HeaderMap>) + Send + Sync + 'static,
) -> Server {
    let (answer, calls) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    Server::raw(move |stream| {
        let (answer, calls) = (Arc::clone(&answer), Arc::clone(&calls));
        async move {
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (answer, calls) = (Arc::clone(&answer), Arc::clone(&calls));
                async move {
                    assert_eq!((request.version(), request.method()), (Version::HTTP_2, &http::Method::POST));
                    assert_eq!(request.headers().get("content-type").unwrap(), "application/grpc");
                    assert_eq!(request.headers().get("te").unwrap(), "trailers");
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    let (status, fields, body, trailers) =
                        answer(calls.fetch_add(1, Ordering::Relaxed), asked);
                    let end = async move { trailers.map(Ok::<_, Infallible>) };
                    let mut response = Response::new(Full::new(body).with_trailers(end));
                    *response.status_mut() = status.try_into().unwrap();
                    *response.headers_mut() = fields;
                    Ok::<_, Infallible>(response)
                }
            });
            let builder = http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

fn fields(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())])
}

fn plan(server: &Server) -> Plan {
    let mut plan = server.plan(4, closed(5));
    plan.protocol = Protocol::Grpc { streams: 2 };
    plan.bodies = vec![message(b"ask")];
    plan
}

fn message(content: &[u8]) -> Bytes {
    [&prefix_of(content.len()), content].concat().into()
}

async fn ends(answer: (u16, HeaderMap, Bytes, Option<HeaderMap>)) -> Report {
    let server = server(move |_, _| answer.clone()).await;
    let report = run(&plan(&server)).await.unwrap();
    assert!(adds_up(&report));
    report
}

#[tokio::test]
async fn a_call_that_ends_well_is_one_message_and_a_code() {
    let server = server(|_, asked| (200, HeaderMap::new(), asked, Some(fields("0")))).await;
    let mut plan = plan(&server);
    plan.keep_bodies = true;
    let report = run(&plan).await.unwrap();
    assert_eq!((report.ok, report.failed(), server.connections()), (20, 0, 2));
    assert_eq!(report.codes, HashMap::from([(Code::Ok, 20)]));
    assert!(report.answers().iter().all(|answer| answer.body == plan.bodies[0]));
}

#[tokio::test]
async fn failures_are_counted_by_their_code() {
    let server = server(|call, asked| match call % 4 {
        0 => (200, HeaderMap::new(), asked, Some(fields("0"))),
        1 => (200, fields("8"), Bytes::new(), None),
        2 => (200, HeaderMap::new(), Bytes::new(), Some(fields("5"))),
        _ => (200, HeaderMap::new(), asked, Some(fields("13"))),
    })
    .await;
    let report = run(&plan(&server)).await.unwrap();
    let all = [Code::Ok, Code::ResourceExhausted, Code::NotFound, Code::Internal];
    assert_eq!(report.codes, all.map(|code| (code, 5)).into());
    assert_eq!((report.ok, report.answered(), report.failed()), (5, 20, 0));
    assert_eq!(report.statuses.get(&200), Some(&20));
}

#[tokio::test]
async fn an_end_that_is_missing_or_makes_no_sense_is_unknown() {
    for trailers in [None, Some(HeaderMap::new()), Some(fields("well")), Some(fields("17"))] {
        let report = ends((200, HeaderMap::new(), message(b"a"), trailers)).await;
        assert_eq!((report.ok, report.codes), (0, HashMap::from([(Code::Unknown, 20)])));
    }
    // What stands in the head counts where nothing follows it.
    let report = ends((200, fields("0"), message(b"a"), None)).await;
    assert_eq!(report.codes, HashMap::from([(Code::Unknown, 20)]));
}

#[tokio::test]
async fn answers_that_are_none_of_grpc_have_the_code_of_their_status() {
    let report = ends((404, HeaderMap::new(), "not here".into(), None)).await;
    assert_eq!((report.ok, report.codes), (0, HashMap::from([(Code::Unimplemented, 20)])));
    assert_eq!(report.statuses.get(&404), Some(&20));
}

#[tokio::test]
async fn ok_without_exactly_one_message_is_a_protocol_error() {
    let two = [message(b"one"), message(b"two")].concat();
    for body in [Bytes::new(), message(b"one").slice(..6), "four".into(), two.into()] {
        let report = ends((200, HeaderMap::new(), body.clone(), Some(fields("0")))).await;
        assert_eq!(report.ok, 0, "{body:?}");
        assert_eq!(report.transport_errors.get(&ErrorKind::ProtocolError), Some(&20), "{body:?}");
    }
}

fn response(datatype: &str, shape: &[i64], raw: &[&'static [u8]]) -> ModelInferResponse {
    let output = InferOutputTensor {
        name: "y".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        model_name: "m".into(),
        outputs: vec![output],
        raw_output_contents: raw.iter().map(|raw| Bytes::from_static(raw)).collect(),
        ..ModelInferResponse::default()
    }
}

async fn says(answer: &ModelInferResponse) -> Option<String> {
    let body = framed(answer);
    let server = server(move |_, _| (200, HeaderMap::new(), body.clone(), Some(fields("0")))).await;
    let mut plan = plan(&server);
    plan.check = true;
    let report = run(&plan).await.unwrap();
    assert_eq!((report.ok, report.wrong), (20, if report.first_wrong.is_some() { 20 } else { 0 }));
    report.first_wrong
}

#[tokio::test]
async fn inference_responses_pass_the_check() {
    assert_eq!(says(&response("FP32", &[1, 2], &[&[0; 8]])).await, None);
    assert_eq!(says(&response("BYTES", &[1], &[b"\x01\0\0\0a"])).await, None);
    assert_eq!(says(&response("FP32", &[0, 2], &[])).await, None);
    let mut typed = response("FP32", &[1, 2], &[]);
    let contents = typed.outputs[0].contents.get_or_insert_default();
    contents.fp32_contents = vec![1.0, 2.0];
    assert_eq!(says(&typed).await, None);
}

#[tokio::test]
async fn everything_else_fails_the_check() {
    for (answer, words) in [
        (ModelInferResponse::default(), "no model or no output"),
        (response("FP32", &[1, 2], &[&[0; 4]]), "4 bytes for 2 values"),
        (response("FP31", &[1], &[&[0; 4]]), "FP31"),
        (response("FP32", &[1], &[&[0; 4], &[0; 4]]), "raw contents for 2 outputs, of 1"),
        (response("FP32", &[-1], &[&[0; 4]]), "shape"),
        (response("FP32", &[i64::MAX, 3], &[&[0; 4]]), "shape"),
        (response("FP32", &[1], &[]), "no data"),
    ] {
        let found = says(&answer).await.unwrap();
        assert!(found.contains(words), "{found}");
    }
    let mut short = response("FP32", &[1, 2], &[]);
    short.outputs[0].contents.get_or_insert_default().fp32_contents = vec![1.0];
    assert!(says(&short).await.unwrap().contains("1 values for a shape of 2"));
    let server = server(|_, _| (200, fields("14"), Bytes::new(), None)).await;
    let mut plan = plan(&server);
    plan.check = true;
    let report = run(&plan).await.unwrap();
    assert_eq!(report.first_wrong.as_deref(), Some("its status is UNAVAILABLE"));
}
