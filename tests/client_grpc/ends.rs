//! Every way in which a server can end badly.

use h2::Reason;
use penstock::client::{ClientSettings, Request, Retry};
use penstock::error::ErrorKind;
use penstock::wire::grpc::Code;

use crate::answers::{echo, framed, head, status};
use crate::asking::*;
use crate::server::{Server, Step};

/// Settings that send every request once.
fn once() -> ClientSettings {
    ClientSettings { retry: Retry { attempts: 1, ..Retry::default() }, ..settings() }
}

fn html(code: u16) -> Vec<Step> {
    let fields = vec![("content-type", "text/html".to_owned())];
    vec![Step::Head(code, fields), Step::Data(b"<html>".to_vec()), Step::End]
}

#[tokio::test]
async fn what_is_no_answer_of_grpc_gets_the_code_of_its_http_status() {
    let server = Server::start(|asked| html(asked.path[1..].parse().unwrap())).await;
    let client = client_of(&[&server.url], once());
    for (path, code) in [
        ("/200", Code::Unknown),
        ("/404", Code::Unimplemented),
        ("/502", Code::Unavailable),
        ("/401", Code::Unauthenticated),
    ] {
        let response = ask(&client, call(path, b"")).await.unwrap();
        let end = response.grpc.unwrap();
        assert_eq!(end.code, code, "{path}");
        assert!(end.message.contains("text/html"), "{}", end.message);
        assert!(response.body.is_empty());
    }
    eventually(|| is_at_rest(&client)).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn answers_against_the_protocol_are_refused_in_words() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/no-status" => vec![head(), Step::Data(framed(b"x")), Step::End],
        "/empty-trailers" => {
            vec![head(), Step::Data(framed(b"x")), Step::Trailers(vec![("a", "b".to_owned())])]
        }
        "/two" => vec![head(), Step::Data([framed(b"x"), framed(b"y")].concat()), status(0)],
        "/none" => vec![head(), status(0)],
        "/half" => vec![head(), Step::Data(framed(b"whole")[..7].to_vec()), status(0)],
        "/packed" => vec![head(), Step::Data(vec![1, 0, 0, 0, 1, 0]), status(0)],
        "/flag" => vec![head(), Step::Data(vec![9, 0, 0, 0, 1, 0]), status(0)],
        _ => {
            let fields = [("content-type", "application/grpc"), ("grpc-encoding", "snappy")];
            let fields = fields.map(|(name, value)| (name, value.to_owned())).to_vec();
            vec![Step::Head(200, fields), Step::Data(framed(b"x")), status(0)]
        }
    })
    .await;
    let client = client_of(&[&server.url], once());
    for (path, words) in [
        ("/no-status", "without grpc-status"),
        ("/empty-trailers", "without grpc-status"),
        ("/two", "more than one message"),
        ("/none", "no message"),
        ("/half", "middle of a message"),
        ("/packed", "packed"),
        ("/flag", "no flag"),
        ("/snappy", "snappy"),
    ] {
        let error = fails(&client, call(path, b"")).await;
        assert_eq!(error.kind(), ErrorKind::ProtocolError, "{path}: {error}");
        assert!(error.message().contains(words) && error.message().contains("grpc://"), "{path}: {error}");
    }
    eventually(|| is_at_rest(&client)).await;
    assert_eq!(server.connections(), 1, "the connection is none the worse");
}

#[tokio::test]
async fn a_status_without_success_needs_no_message() {
    let server =
        Server::start(|_| vec![head(), Step::Data(framed(b"whole")[..7].to_vec()), status(13)]).await;
    let response = ask(&client(&server), call("/s/m", b"")).await.unwrap();
    assert_eq!(code(&response), Code::Internal);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused() {
    let server = Server::start(echo).await;
    let client = client(&server);
    let limited = |length| Request { max_response: 1000, ..call("/s/m", &vec![0; length]) };
    assert_eq!(message(&client, limited(1000)).await.len(), 1000);
    let error = fails(&client, limited(1001)).await;
    assert_eq!(error.kind(), ErrorKind::ReadFailed);
    assert!(error.message().contains("max_response=1000"), "{error}");
    eventually(|| is_at_rest(&client)).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn resets_mean_what_the_specification_says() {
    for (reason, code) in [
        (Reason::INTERNAL_ERROR, Code::Internal),
        (Reason::CANCEL, Code::Cancelled),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
        (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
    ] {
        let server = Server::start(move |asked| match asked.path.as_str() {
            "/at-once" => vec![Step::Reset(reason)],
            _ => vec![head(), Step::Data(framed(b"x")), Step::Wait(millis(20)), Step::Reset(reason)],
        })
        .await;
        let client = client_of(&[&server.url], once());
        for path in ["/at-once", "/later"] {
            let response = ask(&client, call(path, b"")).await.unwrap();
            let end = response.grpc.unwrap();
            assert_eq!(end.code, code, "{reason} {path}");
            assert!(end.message.contains("reset"), "{}", end.message);
        }
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_was_refused_is_sent_again() {
    let server = Server::start(|asked| {
        let always = asked.fields.contains_key("always");
        if always { vec![Step::Reset(Reason::REFUSED_STREAM)] } else { echo(asked) }
    })
    .await;
    let client = client(&server);
    let refused = with_fields(call("/s/m", b""), &[("always", "1")]);
    let error = fails(&client, refused).await;
    assert_eq!(error.kind(), ErrorKind::ReadFailed, "{error}");
    assert_eq!(server.count(), 3, "it is not idempotent, and was sent again nevertheless");
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failed_read_and_is_tried_again_where_that_is_safe() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/before" => vec![Step::Close],
        "/between" => vec![head(), Step::Data(framed(b"x")), Step::Wait(millis(20)), Step::Close],
        _ => echo(asked),
    })
    .await;
    let client = client(&server);
    for path in ["/before", "/between"] {
        let error = fails(&client, call(path, b"")).await;
        assert_eq!(error.kind(), ErrorKind::ReadFailed, "{path}: {error}");
        assert_eq!(server.count_of(path), 1);
        let again = Request { idempotent: true, ..call(path, b"") };
        assert_eq!(fails(&client, again).await.kind(), ErrorKind::ReadFailed);
        assert_eq!(server.count_of(path), 4);
    }
    assert_eq!(message(&client, call("/well", b"x")).await, &b"x"[..]);
}

#[tokio::test]
async fn a_server_that_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/last" => vec![Step::Leave, Step::Wait(millis(100)), head(), Step::Data(framed(b"x")), status(0)],
        _ => echo(asked),
    })
    .await;
    let client = client(&server);
    let last = begin(&client, call("/last", b""));
    eventually(|| server.count() == 1).await;
    for _ in 0..20 {
        assert_eq!(message(&client, call("/new", b"x")).await, &b"x"[..]);
    }
    assert_eq!(soon(last).await.unwrap().unwrap().body, &b"x"[..]);
    assert_eq!(server.connections(), 2);
    eventually(|| server.open() == 1).await;
}
