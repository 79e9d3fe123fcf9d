//! Many requests over few connections, and what is counted of them.

use std::collections::HashMap;
use std::sync::Arc;

use penstock::client::{Client, metrics_text};
use tokio::runtime::Handle;

use crate::asking::*;
use crate::server::{Server, say};

/// Sends requests for `/0`, `/1`, … at once, and gives where in the line each of them reached the server.
async fn places(requests: usize, max_size: usize) -> Vec<usize> {
    let server = Server::echo().await;
    let client = client_with(&[&server], narrow(max_size));
    let tasks: Vec<_> = (0..requests).map(|number| begin(&client, get(&format!("/{number}")))).collect();
    for (number, task) in tasks.into_iter().enumerate() {
        let response = soon(task).await.unwrap().unwrap();
        assert_eq!(response.body, format!("GET /{number} ").into_bytes());
    }
    assert!(server.most_open() <= max_size, "{} sockets", server.most_open());
    assert_eq!((server.count(), server.connections()), (requests, max_size));
    server.asked().iter().map(|asked| asked.target[1..].parse().unwrap()).collect()
}

#[tokio::test]
async fn those_who_wait_are_served_in_their_order() {
    let order: Vec<_> = (0..300).collect();
    assert_eq!(places(300, 1).await, order);
}

#[tokio::test]
async fn a_thousand_requests_share_four_sockets() {
    for (place, number) in places(1000, 4).await.into_iter().enumerate() {
        // Four at a time are out, and which of these the server reads first is its own affair.
        assert!(place.abs_diff(number) < 8, "request {number} came as the {place}th");
    }
}

#[tokio::test]
async fn connections_are_reused() {
    let server = Server::echo().await;
    let client = Arc::new(client_with(&[&server], narrow(100)));
    let caller = |client: Arc<Client>| async move {
        for _ in 0..50 {
            assert_eq!(ask(&client, post("/", "x")).await.unwrap().status, 200);
        }
    };
    let callers: Vec<_> = (0..100).map(|_| Handle::current().spawn(caller(Arc::clone(&client)))).collect();
    for caller in callers {
        soon(caller).await.unwrap();
    }
    let stats = stats(&client, &server).pool;
    assert_eq!((server.count(), stats.acquired), (5000, 5000));
    assert!(server.connections() <= 100 && stats.reuse_rate() >= 0.98, "{stats:?}");
    assert_eq!(usize::try_from(stats.created).unwrap(), server.connections());
}

/// Each line of values, by its name and labels.
fn parsed(text: &str) -> HashMap<String, f64> {
    assert!(text.ends_with("# EOF\n"));
    let mut values = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("penstock_pool_") && name.ends_with("\"}"), "{line}");
        assert!(values.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} stands twice");
    }
    values
}

#[tokio::test]
async fn what_happened_is_counted() {
    let (first, second) = (
        Server::echo().await,
        Server::start(|asked| {
            let fields = if asked.target == "/last" { "connection: close\r\n" } else { "" };
            say(crate::server::answer("200 OK", fields, b""))
        })
        .await,
    );
    let client = client(&first);
    for _ in 0..5 {
        text(&client, "/").await;
    }
    let (route, _) = client.route(&format!("{}/", second.url)).unwrap();
    soon(Client::send(route.clone(), get("/"))).await.unwrap();
    soon(Client::send(route, get("/last"))).await.unwrap();
    let values = parsed(&metrics_text(&client));
    let of = |server: &Server, name: &str, labels: &str| {
        let key = format!("penstock_pool_{name}{{endpoint=\"{}\"{labels}}}", server.url);
        *values.get(&key).unwrap_or_else(|| panic!("no {key} in {values:?}"))
    };
    for (name, wanted) in [
        ("connections", 1.0),
        ("connections_idle", 1.0),
        ("connections_in_use", 0.0),
        ("connections_opening", 0.0),
        ("leases", 0.0),
        ("waiting", 0.0),
        ("created_total", 1.0),
        ("failed_total", 0.0),
        ("acquired_total", 5.0),
        ("reused_total", 4.0),
        ("waited_total", 1.0),
        ("acquire_timeouts_total", 0.0),
        ("cancelled_total", 0.0),
        ("checks_passed_total", 0.0),
        ("checks_failed_total", 0.0),
        ("ejected", 0.0),
        ("outstanding", 0.0),
        ("reuse_ratios", 0.8),
    ] {
        assert!((of(&first, name, "") - wanted).abs() < 1e-9, "{name}: {}", of(&first, name, ""));
    }
    assert!(of(&first, "acquire_p99_seconds", "") >= of(&first, "acquire_p50_seconds", ""));
    assert!((of(&second, "connections", "") - 0.0).abs() < 1e-9);
    assert!((of(&second, "retired_total", ",reason=\"spent\"") - 1.0).abs() < 1e-9);
}
