//! What is sent again, and how often.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use penstock::client::{Client, ClientSettings, Request, Retry, Timeouts};
use penstock::error::ErrorKind;

use crate::asking::*;
use crate::server::{Asked, Server, Step, answer, echo, say};

/// A server that reads requests and closes without an answer.
async fn mute() -> Server {
    Server::start(|_| vec![Step::Close]).await
}

fn retrying(retry: Retry) -> ClientSettings {
    ClientSettings { retry, ..settings() }
}

#[tokio::test]
async fn what_was_sent_and_not_answered_is_sent_again_only_where_that_is_safe() {
    let server = mute().await;
    let client = client(&server);
    let error = fails(&client, post("/post", "x")).await;
    assert_eq!(error.kind(), ErrorKind::ReadFailed);
    assert!(error.message().contains("without an answer"), "{error}");
    assert_eq!(server.count_of("/post"), 1);
    fails(&client, get("/get")).await;
    assert_eq!(server.count_of("/get"), 3);
    fails(&client, Request { idempotent: true, ..post("/marked", "x") }).await;
    assert_eq!(server.count_of("/marked"), 3);
    fails(&client, Request { retries: false, ..get("/never") }).await;
    assert_eq!(server.count_of("/never"), 1);
}

#[tokio::test]
async fn a_budget_that_is_spent_allows_no_more() {
    let server = mute().await;
    // Two retries are kept, and none comes with time.
    let retry = Retry { attempts: 3, budget: 0.02, per_second: 0.0, ..Retry::default() };
    let client = client_with(&[&server], retrying(retry));
    fails(&client, get("/first")).await;
    let error = fails(&client, get("/second")).await;
    assert_eq!(error.kind(), ErrorKind::ReadFailed);
    assert_eq!((server.count_of("/first"), server.count_of("/second")), (3, 1));
}

/// A server that is overloaded the first time it is asked for a path.
async fn busy(fields: &'static str) -> (Server, Client) {
    let times = parking_lot::Mutex::new(std::collections::HashMap::<String, usize>::new());
    let server = Server::start(move |asked: &Asked| {
        let mut times = times.lock();
        let time = times.entry(asked.target.clone()).or_default();
        *time += 1;
        say(if *time == 1 { answer("503 Busy", fields, b"busy") } else { echo(asked) })
    })
    .await;
    let retry = Retry { statuses: vec![StatusCode::SERVICE_UNAVAILABLE], ..Retry::default() };
    let client = client_with(&[&server], retrying(retry));
    (server, client)
}

#[tokio::test]
async fn answers_of_chosen_statuses_are_asked_for_again() {
    let (server, client) = busy("").await;
    let response = ask(&client, get("/get")).await.unwrap();
    assert_eq!((response.status.as_u16(), response.attempts), (200, 2));
    let response = ask(&client, post("/post", "x")).await.unwrap();
    assert_eq!((response.status.as_u16(), response.attempts, &response.body[..]), (503, 1, &b"busy"[..]));
    assert_eq!(server.count(), 3);
    assert_eq!(server.connections(), 1, "an answer that was whole costs no connection");
    eventually(|| is_at_rest(&client)).await;
}

#[tokio::test]
async fn the_last_answer_is_given_where_there_is_no_further_attempt() {
    let server = Server::start(|_| say(answer("503 Busy", "", b"busy"))).await;
    let retry = Retry { statuses: vec![StatusCode::SERVICE_UNAVAILABLE], ..Retry::default() };
    let response = ask(&client_with(&[&server], retrying(retry)), get("/")).await.unwrap();
    assert_eq!((response.status.as_u16(), response.attempts, &response.body[..]), (503, 3, &b"busy"[..]));
}

#[tokio::test]
async fn a_retry_waits_for_as_long_as_the_server_asks_for() {
    let (_server, client) = busy("Retry-After: 1\r\n").await;
    let response = ask(&client, get("/")).await.unwrap();
    assert_eq!(response.attempts, 2);
    assert!(response.elapsed >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_wait_that_outlasts_the_request_is_not_begun() {
    for fields in ["Retry-After: 3600\r\n", "Retry-After: 18446744073709551615\r\n"] {
        let (_server, client) = busy(fields).await;
        let response = ask(&client, get("/")).await.unwrap();
        assert_eq!((response.status.as_u16(), response.attempts), (503, 1), "{fields}");
        let (_server, client) = busy(fields).await;
        let endless = Timeouts { total: None, ..Timeouts::default() };
        let waiting = begin(&client, within(get("/"), endless));
        tokio::time::sleep(millis(50)).await;
        assert!(!waiting.is_finished(), "{fields}");
        give_up(waiting).await;
    }
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let date = |seconds| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
    for (value, least, most) in
        [(date(100), 90, 100), (date(0), 0, 1), ("7".to_owned(), 7, 7), ("soon".to_owned(), 1, 1)]
    {
        let fields = format!("Retry-After: {value}\r\n");
        let server = Server::start(move |_| say(answer("429 Slower", &fields, b""))).await;
        let response = ask(&client(&server), get("/")).await.unwrap();
        let wait = response.retry_after().unwrap().as_secs();
        assert!((least..=most).contains(&wait), "{value}: {wait}");
    }
}
