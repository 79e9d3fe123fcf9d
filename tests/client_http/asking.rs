//! A client as the tests want it, and what they ask it for.

use std::future::Future;
use std::time::Duration;

use http::Method;
use penstock::client::{
    Client, ClientSettings, ConnectSettings, EndpointStats, Proxies, Request, RequestFields, Response, Retry,
    Target, Timeouts,
};
use penstock::error::{Error, Result};
use penstock::pool::PoolSettings;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::server::Server;

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fails where it never comes.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it never came")
}

/// Waits until it is so.
pub(crate) async fn eventually(mut is_so: impl FnMut() -> bool) {
    soon(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) fn millis(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// Settings that open no connection in advance, ask no proxy and never retry at a pause.
pub(crate) fn settings() -> ClientSettings {
    ClientSettings {
        pool: PoolSettings { min_size: 0, max_size: 8, ..PoolSettings::default() },
        connect: ConnectSettings { proxies: Proxies::None, ..ConnectSettings::default() },
        ..ClientSettings::default()
    }
}

/// Settings with at most that many connections.
pub(crate) fn narrow(max_size: usize) -> ClientSettings {
    let usual = settings();
    ClientSettings { pool: PoolSettings { max_size, ..usual.pool.clone() }, ..usual }
}

/// Settings that send every request once.
pub(crate) fn once() -> ClientSettings {
    ClientSettings { retry: Retry { attempts: 1, ..Retry::default() }, ..settings() }
}

pub(crate) fn client_with(servers: &[&Server], settings: ClientSettings) -> Client {
    let urls: Vec<String> = servers.iter().map(|server| server.url.clone()).collect();
    Client::new(&urls, settings, Handle::current()).unwrap()
}

pub(crate) fn client(server: &Server) -> Client {
    client_with(&[server], settings())
}

pub(crate) fn request(method: Method, target: &str) -> Request {
    Request::new(method, Target::new(target).unwrap())
}

pub(crate) fn get(target: &str) -> Request {
    request(Method::GET, target)
}

pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Request {
    Request { body: body.into().into(), ..request(Method::POST, target) }
}

pub(crate) fn with_fields(request: Request, fields: &[(&str, &str)]) -> Request {
    let named = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Request { fields: RequestFields::new(&named, std::iter::empty()).unwrap(), ..request }
}

/// Sends a request to the client's own endpoints, and gets the whole answer.
pub(crate) async fn ask(client: &Client, request: Request) -> Result<Response> {
    let (route, _) = client.route("/")?;
    soon(Client::send(route, request)).await
}

/// As [`ask`], for what must fail.
pub(crate) async fn fails(client: &Client, request: Request) -> Error {
    ask(client, request).await.map(|response| response.status).unwrap_err()
}

/// The body of the answer to a GET, as text.
pub(crate) async fn text(client: &Client, target: &str) -> String {
    String::from_utf8(ask(client, get(target)).await.unwrap().body.into()).unwrap()
}

/// As [`ask`], in a task of its own.
pub(crate) fn begin(client: &Client, request: Request) -> JoinHandle<Result<Response>> {
    let (route, _) = client.route("/").unwrap();
    Handle::current().spawn(Client::send(route, request))
}

/// Gives a request up and waits until it is gone.
pub(crate) async fn give_up(task: JoinHandle<Result<Response>>) {
    task.abort();
    assert!(soon(task).await.unwrap_err().is_cancelled());
}

/// What the client counts of that server.
pub(crate) fn stats(client: &Client, server: &Server) -> EndpointStats {
    client.stats().into_iter().find(|stats| *stats.endpoint == *server.url).unwrap()
}

/// Nothing is under way and nobody waits.
pub(crate) fn is_at_rest(client: &Client) -> bool {
    client.stats().iter().all(|stats| {
        (stats.outstanding, stats.pool.leases, stats.pool.waiting, stats.pool.in_use) == (0, 0, 0, 0)
    })
}

/// The client is none the worse: nothing is left over, and the next request is answered.
pub(crate) async fn is_none_the_worse(client: &Client, server: &Server) {
    eventually(|| is_at_rest(client)).await;
    assert_eq!(stats(client, server).pool.size, 0, "what was given up is not kept");
    eventually(|| server.open() == 0).await;
    assert_eq!(text(client, "/well").await, "GET /well ");
}

/// A request with other limits.
pub(crate) fn within(request: Request, timeouts: Timeouts) -> Request {
    Request { timeouts, ..request }
}
