//! Health checks: how a server is asked whether it is ready, and what follows from its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use penstock::client::{Client, ClientSettings};
use penstock::pool::{BalancePolicy, EjectSettings, PoolSettings};

use crate::answers::{answer, failure};
use crate::asking::*;
use crate::server::{Asked, Server, Step};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const READY: &str = "/inference.GRPCInferenceService/ServerReady";
const UNIMPLEMENTED: u8 = 12;

/// A message with that number in its first field; a zero is left out.
fn numbered(number: u8) -> Vec<Step> {
    if number == 0 { answer(b"") } else { answer(&[8, number]) }
}

/// What a server answers to both questions; 200 is silence, what is above 100 a failure of that code less 100.
#[derive(Clone)]
struct Said {
    health: Arc<AtomicU8>,
    ready: Arc<AtomicU8>,
}

impl Said {
    fn new(health: u8, ready: u8) -> Self {
        Self { health: Arc::new(health.into()), ready: Arc::new(ready.into()) }
    }

    async fn server(&self) -> Server {
        let said = self.clone();
        Server::start(move |asked: &Asked| {
            let number = match asked.path.as_str() {
                HEALTH => said.health.load(Ordering::SeqCst),
                READY => said.ready.load(Ordering::SeqCst),
                _ => return answer(b"called"),
            };
            match number {
                200 => vec![Step::Hold],
                number if number > 100 => failure(number - 100, "so"),
                number => numbered(number),
            }
        })
        .await
    }
}

/// Checks every 40 ms; an endpoint that is out is not tried again for a long time but for its health.
fn checking(min_size: usize) -> ClientSettings {
    let usual = settings();
    let grpc_pool = PoolSettings {
        min_size,
        health_interval: Some(millis(40)),
        health_timeout: millis(150),
        bypass: Duration::ZERO,
        ..usual.grpc_pool.clone()
    };
    let eject = EjectSettings { time: Duration::from_secs(100), ..EjectSettings::default() };
    ClientSettings { grpc_pool, eject, balance: BalancePolicy::RoundRobin, asks_ready: true, ..usual }
}

async fn call_times(client: &Client, times: usize) {
    for _ in 0..times {
        message(client, call("/s/m", b"")).await;
    }
}

#[tokio::test]
async fn idle_connections_are_asked_by_the_standard_service() {
    let server = Said::new(1, 100 + UNIMPLEMENTED).server().await;
    let client = client_of(&[&server.url], checking(0));
    call_times(&client, 1).await;
    eventually(|| server.count_of(HEALTH) >= 3).await;
    assert_eq!((server.count_of(READY), server.connections()), (0, 1));
    assert_eq!(server.asked().iter().find(|asked| asked.path == HEALTH).unwrap().body, vec![0; 5]);
    assert!(stats(&client, &server.url).pool.checks_passed >= 2);
}

#[tokio::test]
async fn a_server_without_it_is_asked_by_the_inference_protocol() {
    for other in [100 + UNIMPLEMENTED, 105, 116] {
        let server = Said::new(other, 1).server().await;
        let client = client_of(&[&server.url], checking(0));
        call_times(&client, 1).await;
        eventually(|| server.count_of(READY) >= 3).await;
        assert_eq!(server.count_of(HEALTH), 1, "it is not asked again what it does not know");
        assert!(!stats(&client, &server.url).ejected);
    }
}

#[tokio::test]
async fn a_server_that_knows_neither_is_asked_once_and_stays() {
    let server = Said::new(100 + UNIMPLEMENTED, 100 + UNIMPLEMENTED).server().await;
    let client = client_of(&[&server.url], checking(0));
    call_times(&client, 1).await;
    eventually(|| stats(&client, &server.url).pool.checks_passed >= 3).await;
    assert_eq!((server.count_of(HEALTH), server.count_of(READY), server.connections()), (1, 1, 1));
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_left_out_until_it_is() {
    for (health, ready, is_by_health) in [(1, 0, true), (100 + UNIMPLEMENTED, 1, false)] {
        let said = Said::new(health, ready);
        let (server, other) = (said.server().await, Said::new(1, 0).server().await);
        let client = client_of(&[&server.url, &other.url], checking(1));
        let turned = if is_by_health { &said.health } else { &said.ready };
        call_times(&client, 2).await;
        eventually(|| stats(&client, &server.url).pool.checks_passed >= 1).await;
        // Not serving, not serving in the other way, not answering at all.
        for number in [if is_by_health { 2 } else { 0 }, 114, 100 + UNIMPLEMENTED, 200] {
            turned.store(number, Ordering::SeqCst);
            eventually(|| stats(&client, &server.url).ejected).await;
            let before = server.count_of("/s/m");
            call_times(&client, 4).await;
            assert_eq!(server.count_of("/s/m"), before);
            turned.store(1, Ordering::SeqCst);
            eventually(|| !stats(&client, &server.url).ejected).await;
            call_times(&client, 4).await;
            assert!(server.count_of("/s/m") > before);
        }
    }
}

#[tokio::test]
async fn a_server_that_was_never_ready_is_left_out_too() {
    let (server, other) = (Said::new(2, 0).server().await, Said::new(1, 0).server().await);
    let client = client_of(&[&server.url, &other.url], checking(1));
    call_times(&client, 2).await;
    eventually(|| stats(&client, &server.url).ejected).await;
    call_times(&client, 4).await;
    assert!(server.count_of("/s/m") <= 2);
}
