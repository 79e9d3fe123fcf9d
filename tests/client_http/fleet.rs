//! Several endpoints, of which some are dead, busy or slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock::client::{Client, ClientSettings};
use penstock::pool::{BalancePolicy, EjectSettings, PoolSettings};
use tokio::runtime::Handle;

use crate::asking::*;
use crate::lost::nobody;
use crate::server::{Server, Step, answer, echo, ok, say};

async fn echoes(count: usize) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::echo().await);
    }
    servers
}

fn balanced(balance: BalancePolicy) -> ClientSettings {
    let eject = EjectSettings { time: millis(150), longest: millis(150), ..EjectSettings::default() };
    ClientSettings { balance, eject, ..settings() }
}

/// Sends `count` requests, `at_a_time` of them together; each is answered with 200.
async fn ask_many(client: &Arc<Client>, count: usize, at_a_time: usize) {
    let one = |client: Arc<Client>| async move {
        for _ in 0..count / at_a_time {
            assert_eq!(ask(&client, post("/", "x")).await.unwrap().status, 200);
        }
    };
    let tasks: Vec<_> = (0..at_a_time).map(|_| Handle::current().spawn(one(Arc::clone(client)))).collect();
    for task in tasks {
        soon(task).await.unwrap();
    }
}

#[tokio::test]
async fn one_dead_endpoint_of_four_is_not_noticed_and_comes_back() {
    for balance in [BalancePolicy::RoundRobin, BalancePolicy::LeastOutstanding, BalancePolicy::P2c] {
        let servers = echoes(3).await;
        let address = nobody().await;
        let mut urls: Vec<_> = servers.iter().map(|server| server.url.clone()).collect();
        urls.insert(1, format!("http://{address}"));
        let client = Arc::new(Client::new(&urls, balanced(balance), Handle::current()).unwrap());
        ask_many(&client, 400, 8).await;
        assert_eq!(servers.iter().map(Server::count).sum::<usize>(), 400, "{balance:?}");

        let revived = Server::at(address, |asked| say(echo(asked))).await;
        let client = &client;
        soon(async {
            while revived.count() < 5 {
                assert_eq!(ask(client, post("/", "x")).await.unwrap().status, 200);
                tokio::time::sleep(millis(1)).await;
            }
        })
        .await;
        assert!(!client.stats()[1].ejected, "{balance:?}");
    }
}

#[tokio::test]
async fn one_dead_endpoint_is_not_noticed_where_the_first_byte_counts() {
    let servers = echoes(3).await;
    let mut urls: Vec<_> = servers.iter().map(|server| server.url.clone()).collect();
    urls.insert(1, format!("http://{}", nobody().await));
    let settings = balanced(BalancePolicy::P2cFirstByte);
    let client = Arc::new(Client::new(&urls, settings, Handle::current()).unwrap());
    ask_many(&client, 400, 8).await;
    assert_eq!(servers.iter().map(Server::count).sum::<usize>(), 400);
    assert!(client.stats()[1].pool.failed < 100, "whoever fails fast draws no requests");
}

#[tokio::test]
async fn the_share_of_a_dead_endpoint_falls_to_a_probe_now_and_then() {
    let servers = echoes(3).await;
    let mut urls: Vec<_> = servers.iter().map(|server| server.url.clone()).collect();
    urls.push(format!("http://{}", nobody().await));
    let settings = ClientSettings { balance: BalancePolicy::RoundRobin, ..settings() };
    let client = Arc::new(Client::new(&urls, settings, Handle::current()).unwrap());
    ask_many(&client, 30, 1).await;
    assert!(client.stats()[3].ejected);
    let failed = client.stats()[3].pool.failed;
    assert_eq!(failed, 5, "failures in a row that put it out");
    ask_many(&client, 300, 4).await;
    assert_eq!(client.stats()[3].pool.failed, failed, "nobody asks it while it is out");
    let counts: Vec<_> = servers.iter().map(Server::count).collect();
    assert!(counts.iter().all(|count| (100..=120).contains(count)), "{counts:?}");
}

#[tokio::test]
async fn a_fleet_of_which_all_is_dead_says_so() {
    let urls = [format!("http://{}", nobody().await), format!("http://{}", nobody().await)];
    let client = Client::new(&urls, balanced(BalancePolicy::RoundRobin), Handle::current()).unwrap();
    for _ in 0..10 {
        let error = fails(&client, post("/", "x")).await;
        assert_eq!(error.kind(), penstock::error::ErrorKind::ConnectFailed);
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_pause_gets_one() {
    let busy = Arc::new(AtomicBool::new(true));
    let is_busy = Arc::clone(&busy);
    let first = Server::start(move |asked| {
        let retry = "retry-after: 1\r\n";
        say(if is_busy.load(Ordering::SeqCst) { answer("503 Busy", retry, b"") } else { echo(asked) })
    })
    .await;
    let second = Server::echo().await;
    let client = client_with(&[&first, &second], balanced(BalancePolicy::RoundRobin));
    let statuses: Vec<_> = {
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(ask(&client, get("/")).await.unwrap().status.as_u16());
        }
        statuses
    };
    assert_eq!((statuses.iter().filter(|status| **status == 503).count(), first.count()), (1, 1));
    assert!(stats(&client, &first).ejected);
    busy.store(false, Ordering::SeqCst);
    eventually(|| !stats(&client, &first).ejected).await;
    for _ in 0..4 {
        assert_eq!(ask(&client, get("/")).await.unwrap().status, 200);
    }
    assert_eq!(first.count(), 3);
}

#[tokio::test]
async fn an_endpoint_that_is_slow_gets_less() {
    for balance in [BalancePolicy::LeastOutstanding, BalancePolicy::P2c, BalancePolicy::P2cFirstByte] {
        let mut servers = Vec::new();
        for time in [3, 3, 3, 30] {
            servers
                .push(Server::start(move |_| vec![Step::Wait(millis(time)), Step::Say(ok(b"slow"))]).await);
        }
        let all: Vec<_> = servers.iter().collect();
        let client = Arc::new(client_with(&all, balanced(balance)));
        ask_many(&client, 800, 8).await;
        let slow = servers[3].count();
        assert!(slow < 130, "{balance:?}: {slow} of 800");
        assert!(servers[..3].iter().all(|server| server.count() > slow), "{balance:?}");
    }
}

#[tokio::test]
async fn a_request_lost_at_one_endpoint_is_sent_to_another() {
    let broken = Server::start(|_| vec![Step::Say(b"HTTP/1.1 200".to_vec()), Step::Reset]).await;
    let well = Server::echo().await;
    let client = client_with(&[&broken, &well], balanced(BalancePolicy::RoundRobin));
    for _ in 0..10 {
        let response = ask(&client, get("/")).await.unwrap();
        assert_eq!(&*response.endpoint, &*well.url);
    }
    assert!(broken.count() >= 5);
}

#[tokio::test]
async fn bodies_that_break_off_put_an_endpoint_out() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    let broken =
        Server::start(move |_| vec![Step::Say(half.to_vec()), Step::Wait(millis(2)), Step::Reset]).await;
    let well = Server::echo().await;
    let eject = EjectSettings { failures: Some(3), ..EjectSettings::default() };
    let settings = ClientSettings { eject, ..balanced(BalancePolicy::RoundRobin) };
    let client = client_with(&[&broken, &well], settings);
    for _ in 0..10 {
        assert_eq!(&*ask(&client, get("/")).await.unwrap().endpoint, &*well.url);
    }
    assert_eq!((broken.count(), stats(&client, &broken).ejected), (3, true));
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint_like_others() {
    let folder = tempfile::tempdir().unwrap();
    let unix = Server::unix(&folder.path().join("a.sock"), |asked| say(echo(asked)));
    let tcp = Server::echo().await;
    let client = client_with(&[&unix, &tcp], balanced(BalancePolicy::RoundRobin));
    for _ in 0..10 {
        assert_eq!(ask(&client, post("/x", "y")).await.unwrap().body, &b"POST /x y"[..]);
    }
    assert_eq!((unix.count(), tcp.count()), (5, 5));
    assert!(unix.asked()[0].head.contains("host: localhost\r\n"));
    assert_eq!((unix.connections(), tcp.connections()), (1, 1));
}

#[tokio::test]
async fn each_endpoint_has_a_pool_of_its_own() {
    let servers = echoes(3).await;
    let all: Vec<_> = servers.iter().collect();
    let usual = balanced(BalancePolicy::LeastOutstanding);
    let pool = PoolSettings { min_size: 2, max_size: 2, ..usual.pool.clone() };
    let client = Arc::new(client_with(&all, ClientSettings { pool, ..usual }));
    ask_many(&client, 300, 30).await;
    assert!(servers.iter().all(|server| server.most_open() == 2 && server.count() > 50));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(servers.iter().all(|server| server.open() == 2), "min_size is kept open");
}
