//! Health checks: who is asked whether it is ready, who is left out, and who comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use penstock::client::{Client, ClientSettings};
use penstock::pool::{BalancePolicy, EjectSettings, PoolSettings};

use crate::asking::*;
use crate::server::{Asked, Server, Step, answer, echo, say};

const READY: &str = "/v2/health/ready";

/// A server that says with that status whether it is ready, and answers everything else; 0 says nothing.
struct Checked {
    server: Server,
    status: Arc<AtomicU16>,
}

impl Checked {
    async fn start(status: u16, fields: &'static str) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let says = Arc::clone(&status);
        let server =
            Server::start(move |asked: &Asked| match (asked.target.as_str(), says.load(Ordering::SeqCst)) {
                (READY, 0) => vec![Step::Hold],
                (READY, status) => say(answer(&format!("{status} So"), fields, b"")),
                _ => say(echo(asked)),
            })
            .await;
        Self { server, status }
    }

    fn turn(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn checks(&self) -> usize {
        self.server.count_of(READY)
    }

    fn requests(&self) -> usize {
        self.server.count_of("/")
    }

    fn is_out(&self, client: &Client) -> bool {
        stats(client, &self.server).ejected
    }
}

/// Checks every 40 ms; an endpoint that is out is not tried again for a long time but for its health.
fn checking(min_size: usize) -> ClientSettings {
    let usual = settings();
    let pool = PoolSettings {
        min_size,
        health_interval: Some(millis(40)),
        health_timeout: millis(150),
        bypass: Duration::ZERO,
        ..usual.pool.clone()
    };
    let eject = EjectSettings { time: Duration::from_secs(100), ..EjectSettings::default() };
    ClientSettings { pool, eject, balance: BalancePolicy::RoundRobin, asks_ready: true, ..usual }
}

async fn ask_times(client: &Client, times: usize) {
    for _ in 0..times {
        assert_eq!(ask(client, get("/")).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn idle_connections_are_asked_whether_their_server_is_ready() {
    let checked = Checked::start(200, "").await;
    let client = client_with(&[&checked.server], checking(0));
    ask_times(&client, 1).await;
    eventually(|| checked.checks() >= 3).await;
    ask_times(&client, 1).await;
    // A request that comes while its connection is checked may have another one opened.
    assert!(checked.server.connections() <= 2);
    assert!(stats(&client, &checked.server).pool.checks_passed >= 2);
    assert!(!checked.is_out(&client));
}

#[tokio::test]
async fn a_server_that_does_not_know_the_question_is_asked_once() {
    for (fields, connections) in [("", 1), ("Connection: close\r\n", 2)] {
        let checked = Checked::start(404, fields).await;
        let other = Checked::start(200, "").await;
        let client = client_with(&[&checked.server, &other.server], checking(1));
        ask_times(&client, 2).await;
        eventually(|| checked.checks() == 1).await;
        eventually(|| stats(&client, &checked.server).pool.checks_passed >= 3).await;
        assert!(!checked.is_out(&client), "{fields}");
        ask_times(&client, 4).await;
        assert_eq!((checked.checks(), checked.server.connections()), (1, connections), "{fields}");
        assert_eq!(checked.requests(), 3);
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_left_out_until_it_is() {
    let (first, second) = (Checked::start(200, "").await, Checked::start(200, "").await);
    let client = client_with(&[&first.server, &second.server], checking(1));
    ask_times(&client, 4).await;
    eventually(|| first.checks() > 0 && second.checks() > 0).await;
    for status in [503, 500, 0] {
        first.turn(status);
        eventually(|| first.is_out(&client)).await;
        let before = first.requests();
        ask_times(&client, 10).await;
        assert_eq!(first.requests(), before, "{status}");
        assert!(!second.is_out(&client));
        first.turn(200);
        eventually(|| !first.is_out(&client)).await;
        ask_times(&client, 4).await;
        assert_eq!(first.requests(), before + 2, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_was_never_ready_is_left_out_too() {
    let (first, second) = (Checked::start(503, "").await, Checked::start(200, "").await);
    let client = client_with(&[&first.server, &second.server], checking(1));
    ask_times(&client, 4).await;
    eventually(|| first.is_out(&client)).await;
    first.turn(200);
    eventually(|| !first.is_out(&client)).await;
}

#[tokio::test]
async fn without_a_connection_to_ask_over_a_request_finds_out() {
    let (first, second) = (Checked::start(200, "").await, Checked::start(200, "").await);
    let eject = EjectSettings { time: millis(200), longest: millis(200), ..EjectSettings::default() };
    let client = client_with(&[&first.server, &second.server], ClientSettings { eject, ..checking(0) });
    ask_times(&client, 2).await;
    first.turn(503);
    eventually(|| first.is_out(&client)).await;
    first.turn(200);
    let before = first.requests();
    soon(async {
        while first.requests() == before {
            ask_times(&client, 1).await;
            tokio::time::sleep(millis(5)).await;
        }
    })
    .await;
    eventually(|| !first.is_out(&client)).await;
}

#[tokio::test]
async fn never_are_all_left_out() {
    let (first, second) = (Checked::start(503, "").await, Checked::start(503, "").await);
    let client = client_with(&[&first.server, &second.server], checking(1));
    ask_times(&client, 2).await;
    eventually(|| first.is_out(&client) && second.is_out(&client)).await;
    ask_times(&client, 4).await;
    assert_eq!(first.requests() + second.requests(), 6);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_says_nothing_about_the_server() {
    let server = Server::start(|asked| match asked.target.as_str() {
        READY => vec![Step::Close],
        _ => say(echo(asked)),
    })
    .await;
    let other = Server::echo().await;
    let client = client_with(&[&server, &other], checking(1));
    ask_times(&client, 2).await;
    eventually(|| stats(&client, &server).pool.checks_failed >= 2).await;
    assert!(!stats(&client, &server).ejected);
}
