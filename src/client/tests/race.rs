//! The order of addresses, and who wins among them, on a clock that the test moves.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::race::{order, race};

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn families_take_turns_and_the_resolvers_dearest_goes_first() {
    let found = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"]);
    assert_eq!(order(&found, 0), addresses(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]));
    assert_eq!(order(&found, 1), addresses(&["[::2]:1", "127.0.0.1:1", "[::3]:1", "[::1]:1"]));
    let found = addresses(&["127.0.0.1:1", "[::1]:1"]);
    assert_eq!(order(&found, 7), found);
    assert!(order(&[], 3).is_empty());
}

#[test]
fn connections_spread_over_all_addresses() {
    let found = addresses(&["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"]);
    let first: HashSet<_> = (0..3).map(|turn| order(&found, turn)[0]).collect();
    assert_eq!(first.len(), 3);
}

/// Connects by the port: an even one answers after that many milliseconds, an odd one refuses after as many.
async fn by_port(address: SocketAddr) -> io::Result<u16> {
    let port = address.port();
    sleep(Duration::from_millis(port.into())).await;
    if port.is_multiple_of(2) { Ok(port) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
}

async fn raced(ports: &[u16]) -> (Result<u16, Vec<u16>>, u128) {
    let addresses: Vec<_> = ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
    let begin = Instant::now();
    let won = race(&addresses, by_port).await;
    let won = won.map_err(|failures| failures.into_iter().map(|(address, _)| address.port()).collect());
    (won, begin.elapsed().as_millis())
}

#[tokio::test(start_paused = true)]
async fn the_first_to_answer_wins_with_a_head_start_for_the_earlier() {
    assert_eq!(raced(&[100, 2]).await, (Ok(100), 100), "within its head start");
    assert_eq!(raced(&[1000, 100]).await, (Ok(100), 350), "the next begins after 250 ms");
    assert_eq!(raced(&[400, 1000]).await, (Ok(400), 400), "the first goes on meanwhile");
    assert_eq!(raced(&[11, 20]).await, (Ok(20), 31), "a refusal gives way at once");
    assert_eq!(raced(&[60000, 60000, 60000, 4]).await, (Ok(4), 754));
}

#[tokio::test(start_paused = true)]
async fn where_none_answers_every_failure_is_told() {
    assert_eq!(raced(&[601, 11, 21]).await, (Err(vec![11, 21, 601]), 601));
    assert_eq!(raced(&[7]).await, (Err(vec![7]), 7));
}
