//! A client as the tests want it, and what they ask it for.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use penstock::client::{
    Client, ClientSettings, ConnectSettings, EndpointStats, GrpcCall, Proxies, Request, RequestFields,
    Response, Timeouts,
};
use penstock::error::{Error, Result};
use penstock::pool::PoolSettings;
use penstock::wire::grpc::Code;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::answers::framed;
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

/// Settings that open no connection in advance and ask no proxy.
pub(crate) fn settings() -> ClientSettings {
    let pool = PoolSettings { min_size: 0, max_size: 8, ..PoolSettings::default() };
    ClientSettings {
        pool: pool.clone(),
        grpc_pool: pool,
        connect: ConnectSettings { proxies: Proxies::None, ..ConnectSettings::default() },
        ..ClientSettings::default()
    }
}

pub(crate) fn client_of(urls: &[&str], settings: ClientSettings) -> Client {
    let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
    Client::new(&urls, settings, Handle::current()).unwrap()
}

pub(crate) fn client(server: &Server) -> Client {
    client_of(&[&server.url], settings())
}

/// A call of that message.
pub(crate) fn call(path: &'static str, message: &[u8]) -> Request {
    Request::call(GrpcCall { path: Cow::Borrowed(path), message: framed(message).into() }).unwrap()
}

pub(crate) fn with_fields(request: Request, fields: &[(&str, &str)]) -> Request {
    let named = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Request { fields: RequestFields::new(&named, std::iter::empty()).unwrap(), ..request }
}

pub(crate) fn within(request: Request, timeouts: Timeouts) -> Request {
    Request { timeouts, ..request }
}

/// Sends a request to the client's own endpoints, and gets the whole answer.
pub(crate) async fn ask(client: &Client, request: Request) -> Result<Response> {
    let (route, _) = client.route("/")?;
    soon(Client::send(route, request)).await
}

/// As [`ask`], for what must fail without an answer.
pub(crate) async fn fails(client: &Client, request: Request) -> Error {
    ask(client, request).await.map(|response| response.grpc).unwrap_err()
}

/// The code of an answer.
pub(crate) fn code(response: &Response) -> Code {
    response.grpc.as_ref().unwrap().code
}

/// The message of an answer that went well.
pub(crate) async fn message(client: &Client, request: Request) -> Bytes {
    let response = ask(client, request).await.unwrap();
    assert_eq!(code(&response), Code::Ok, "{:?}", response.grpc);
    response.body
}

/// As [`ask`], in a task of its own.
pub(crate) fn begin(client: &Client, request: Request) -> JoinHandle<Result<Response>> {
    let (route, _) = client.route("/").unwrap();
    Handle::current().spawn(Client::send(route, request))
}

/// What the client counts of the endpoint of that URL.
pub(crate) fn stats(client: &Client, url: &str) -> EndpointStats {
    client.stats().into_iter().find(|stats| *stats.endpoint == *url).unwrap()
}

/// Nothing is under way and nobody waits.
pub(crate) fn is_at_rest(client: &Client) -> bool {
    client.stats().iter().all(|stats| {
        (stats.outstanding, stats.pool.leases, stats.pool.waiting, stats.pool.in_use) == (0, 0, 0, 0)
    })
}
