//! The client itself: its fleet, the origins that it met on the way, and a request from its route to its answer.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::address::{Origin, Protocol};
use super::answer::Answer;
use super::attempt::Errand;
use super::attempts::{again, open, open_duplex};
use super::connect::{ConnectSettings, Dialer, Http2Choice};
use super::connection::HttpConnector;
use super::decode::too_long;
use super::fleet::{Endpoint, Fleet};
use super::grpc::Duplex;
use super::http1::Lost;
use super::http2::Http2Settings;
use super::inflow::{Arrivals, Pace, StreamMemory};
use super::request::{Due, Request, Target, config};
use super::response::Response;
use super::retry::Retry;
use super::waiting::Waiting;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::RuntimeClock;
use crate::pool::{
    BalancePolicy, Balancer, EjectSettings, Explanation, Place, Pool, PoolSettings, PoolStats,
};

/// Origins beside its own endpoints that a client keeps connections to; beyond it, those without any are forgotten.
const MAX_ORIGINS: usize = 1000;
/// Requests of one call that are under way at a time.
const MOST_SENDERS: usize = 2048;

/// What a client is made of.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The pool of each endpoint. An origin that was not given at the start keeps no connections in store.
    pub pool: PoolSettings,
    /// The pool of each endpoint of gRPC.
    pub grpc_pool: PoolSettings,
    /// How an endpoint is chosen.
    pub balance: BalancePolicy,
    /// When an endpoint is left out.
    pub eject: EjectSettings,
    /// When a request is sent again.
    pub retry: Retry,
    /// How connections are opened.
    pub connect: ConnectSettings,
    /// Streams and windows of HTTP/2.
    pub http2: Http2Settings,
    /// Whether servers that speak the Open Inference Protocol are asked whether they are ready.
    pub asks_ready: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            pool: PoolSettings::default(),
            grpc_pool: PoolSettings { min_size: 5, max_size: 50, spread: true, ..PoolSettings::default() },
            balance: BalancePolicy::default(),
            eject: EjectSettings::default(),
            retry: Retry::default(),
            connect: ConnectSettings::default(),
            http2: Http2Settings::default(),
            asks_ready: false,
        }
    }
}

/// Sends requests.
pub struct Client {
    settings: ClientSettings,
    dialer: Arc<Dialer>,
    handle: Handle,
    clock: Arc<RuntimeClock>,
    /// The endpoints that it was given.
    main: Option<Arc<Fleet>>,
    /// Every origin that it sends to, by the text that it goes by in URLs.
    origins: Mutex<Origins>,
    closed: AtomicBool,
}

type Origins = HashMap<Box<str>, Arc<Fleet>>;

/// Where a request goes.
#[derive(Clone)]
pub struct Route {
    fleet: Arc<Fleet>,
}

impl Route {
    /// True where an endpoint that it may lead to speaks so.
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.fleet.endpoints.iter().any(|endpoint| endpoint.protocol() == protocol)
    }
}

/// An endpoint, and what its pool counts.
#[derive(Debug, Clone)]
pub struct EndpointStats {
    /// `http://host:port`.
    pub endpoint: Arc<str>,
    /// Requests there that are not over.
    pub outstanding: usize,
    /// True while it is left out.
    pub ejected: bool,
    /// Its pool.
    pub pool: PoolStats,
    /// Why requests wait there, and who holds its connections.
    pub explanation: Explanation,
}

/// A body that still comes. Dropping it gives it up: the upstream is told to stop.
pub struct Body {
    answer: Option<Box<Answer>>,
}

impl Client {
    /// A client of `urls`, each an origin, or of none. No connection is opened before the first request.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for URLs and settings that cannot be.
    pub fn new(urls: &[String], settings: ClientSettings, handle: Handle) -> Result<Self> {
        settings.pool.check()?;
        settings.grpc_pool.check()?;
        settings.eject.check()?;
        let dialer = Arc::new(Dialer::new(settings.connect.clone())?);
        let client = Self {
            settings,
            dialer,
            handle,
            clock: Arc::new(RuntimeClock::new()),
            main: None,
            origins: Mutex::new(HashMap::new()),
            closed: AtomicBool::new(false),
        };
        let main = client.main_fleet(urls)?;
        Ok(Self { main, ..client })
    }

    fn main_fleet(&self, urls: &[String]) -> Result<Option<Arc<Fleet>>> {
        let mut endpoints = Vec::with_capacity(urls.len());
        for url in urls {
            let origin = Origin::parse(url)?;
            let pool = self.pool_settings(&origin).clone();
            let endpoint = self.endpoint(origin, pool, self.settings.asks_ready)?;
            if endpoints.iter().any(|other: &Endpoint| other.label() == endpoint.label()) {
                return Err(config(format!("the endpoint {} is given twice", endpoint.label())));
            }
            let alone = self.fleet(vec![endpoint.clone()]);
            self.origins.lock().insert(url.trim_end_matches('/').into(), alone);
            endpoints.push(endpoint);
        }
        if endpoints.is_empty() {
            return Ok(None);
        }
        let fleet = self.fleet(endpoints);
        fleet.heed_checks();
        if let [only] = urls {
            self.origins.lock().insert(only.trim_end_matches('/').into(), Arc::clone(&fleet));
        }
        Ok(Some(fleet))
    }

    fn pool_settings(&self, origin: &Origin) -> &PoolSettings {
        match origin.protocol() {
            Protocol::Http => &self.settings.pool,
            Protocol::Grpc => &self.settings.grpc_pool,
        }
    }

    fn endpoint(&self, origin: Origin, pool: PoolSettings, asks_ready: bool) -> Result<Endpoint> {
        let dialer = Arc::clone(&self.dialer);
        let connector = HttpConnector::new(origin, dialer, self.settings.http2, asks_ready)?;
        let name = Arc::clone(&connector.label);
        Ok(Endpoint { pool: Pool::new(name, connector, pool, &self.handle)? })
    }

    fn fleet(&self, endpoints: Vec<Endpoint>) -> Arc<Fleet> {
        let balancer = Balancer::new(self.settings.balance, endpoints.len(), self.settings.eject.clone());
        Arc::new(Fleet::new(endpoints, balancer, self.settings.retry.clone(), Arc::clone(&self.clock)))
    }

    /// Where a URL leads: one that begins with a slash to the client's own endpoints, any other to its origin.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no URL, or a path without an endpoint; [`ErrorKind::Closed`] after `close`.
    pub fn route(&self, url: &str) -> Result<(Route, Target)> {
        self.check_open()?;
        if url.starts_with('/') {
            let message =
                || config(format!("{url:?} has no host: give the client a base URL, or a whole URL here"));
            let fleet = self.main.as_ref().ok_or_else(message)?;
            return Ok((Route { fleet: Arc::clone(fleet) }, target(url)?));
        }
        let start = url.find("://").map_or(0, |at| at + 3);
        let length =
            url.get(start..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(url.len(), |at| start + at);
        if let Some((text, rest)) = url.split_at_checked(length)
            && let Some(fleet) = self.origins.lock().get(text)
        {
            return Ok((Route { fleet: Arc::clone(fleet) }, target(rest)?));
        }
        let (origin, rest) = Origin::split(url)?;
        let text = url.strip_suffix(rest).unwrap_or(url);
        let fleet = self.origin(text, origin)?;
        Ok((Route { fleet }, target(rest)?))
    }

    fn origin(&self, text: &str, origin: Origin) -> Result<Arc<Fleet>> {
        let mut origins = self.origins.lock();
        // Whoever closes looks at all of them afterwards, under this lock.
        self.check_open()?;
        let fleet = match self.known(&origins, &origin.to_string()) {
            Some((fleet, _)) if fleet.endpoints.len() == 1 => fleet,
            Some((_, endpoint)) => self.fleet(vec![endpoint]),
            None => {
                let pool = PoolSettings { min_size: 0, ..self.pool_settings(&origin).clone() };
                self.fleet(vec![self.endpoint(origin, pool, false)?])
            }
        };
        if origins.len() >= MAX_ORIGINS {
            origins.retain(|_, fleet| fleet.endpoints.iter().any(|endpoint| endpoint.pool.stats().size > 0));
        }
        origins.insert(text.into(), Arc::clone(&fleet));
        Ok(fleet)
    }

    /// The endpoint of that label, whatever URL it was met by, and its fleet: an origin has one pool.
    fn known(&self, origins: &Origins, label: &str) -> Option<(Arc<Fleet>, Endpoint)> {
        origins.values().chain(&self.main).find_map(|fleet| {
            let endpoint = fleet.endpoints.iter().find(|endpoint| **endpoint.label() == *label)?;
            Some((Arc::clone(fleet), endpoint.clone()))
        })
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "the client is closed"));
        }
        Ok(())
    }

    /// How many requests can be under way at a time, as far as its own endpoints go; more of them would wait.
    pub fn widest(&self) -> usize {
        let width = |endpoint: &Endpoint| {
            let streams = endpoint.connector().most_streams();
            endpoint.pool.settings().max_size.saturating_mul(streams)
        };
        let widths = self.main.iter().flat_map(|main| main.endpoints.iter().map(width));
        let all = widths.reduce(usize::saturating_add);
        all.unwrap_or_else(|| self.width_elsewhere()).min(MOST_SENDERS)
    }

    /// As far as one origin goes of which nothing is known.
    fn width_elsewhere(&self) -> usize {
        let streams = if self.dialer.http2() == Http2Choice::Never { 1 } else { self.settings.http2.streams };
        self.settings.pool.max_size.saturating_mul(streams)
    }

    /// Sends a request and reads its whole answer. Dropping the future gives it up at whatever it is at.
    ///
    /// # Errors
    /// The time-outs of the request, [`ErrorKind::ConnectFailed`], [`ErrorKind::ReadFailed`], [`ErrorKind::WriteFailed`],
    /// [`ErrorKind::ProtocolError`]; an answer of whatever status is no error.
    pub async fn send(route: Route, request: Request) -> Result<Response> {
        let errand = Errand::new(&request, Place::Unknown);
        let mut answer = open(&route.fleet, &errand).await?;
        if answer.is_whole() {
            return Ok(answer.finish());
        }
        loop {
            match answer.collect(request.max_response).await {
                Ok(Some(body)) => return answer.finish_with(body, request.max_response).await,
                Ok(None) => return Err(too_long(request.max_response)),
                // Nothing of it was handed out: what may be sent again may be lost in the body, too.
                Err(error) => {
                    let (attempts, tried) = (answer.response.attempts, vec![answer.trip.number()]);
                    // Its connection counts until it is let go of, and may be the only one that the next attempt can have.
                    drop(answer);
                    let lost = Err(Lost::new(error, false));
                    answer = Box::pin(again(&route.fleet, &errand, lost, attempts, tried)).await?;
                    if answer.is_whole() {
                        return Ok(answer.finish());
                    }
                }
            }
        }
    }

    /// Sends a request and reads the head of its answer; the body comes as it is asked for. `place` says where the caller
    /// is, for the report of a connection that is held too long.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn stream(route: Route, request: Request, place: Place) -> Result<(Response, Body)> {
        let answer = open(&route.fleet, &Errand::new(&request, place)).await?;
        Ok((answer.response.clone(), Body { answer: Some(answer) }))
    }

    /// Opens a stream of messages over gRPC, each way as many as there are: the form of the request for gRPC says the method
    /// and, where it is not empty, the first message. Once a connection is had it is open; what the server says to it,
    /// [`Duplex::next`] tells. It counts in pool and balance until its end.
    ///
    /// # Errors
    /// Those of [`Client::send`] until there is a connection; [`ErrorKind::Config`] without a form for gRPC.
    pub async fn duplex(route: Route, mut request: Request, place: Place) -> Result<Duplex> {
        request.http = false;
        open_duplex(&route.fleet, &Errand::new(&request, place)).await
    }

    /// What the pools count, endpoint by endpoint.
    pub fn stats(&self) -> Vec<EndpointStats> {
        let mut stats = Vec::new();
        for fleet in self.fleets() {
            fleet.standing(|balancer, now| {
                for (number, endpoint) in fleet.endpoints.iter().enumerate() {
                    stats.push(EndpointStats {
                        endpoint: Arc::clone(endpoint.label()),
                        outstanding: balancer.outstanding(number),
                        ejected: balancer.is_out(number, now),
                        pool: endpoint.pool.stats(),
                        explanation: endpoint.pool.explain(),
                    });
                }
            });
        }
        stats
    }

    /// Every fleet once: its own, and those of other origins.
    fn fleets(&self) -> Vec<Arc<Fleet>> {
        let mut fleets: Vec<Arc<Fleet>> = self.main.iter().cloned().collect();
        let own = self.main.iter().flat_map(|main| &main.endpoints);
        let mut known: HashSet<_> = own.map(|endpoint| Arc::clone(endpoint.label())).collect();
        for fleet in self.origins.lock().values() {
            if fleet.endpoints.iter().any(|endpoint| known.insert(Arc::clone(endpoint.label()))) {
                fleets.push(Arc::clone(fleet));
            }
        }
        fleets
    }

    /// Refuses new requests and closes what is idle; requests that are out go on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for fleet in self.fleets() {
            for endpoint in &fleet.endpoints {
                endpoint.pool.close();
            }
        }
    }

    /// Waits until the last connection is closed.
    pub async fn closed(&self) {
        for fleet in self.fleets() {
            for endpoint in &fleet.endpoints {
                endpoint.pool.closed().await;
            }
        }
    }
}

/// What stands behind an origin, as a target: a fragment is the caller's own.
fn target(rest: &str) -> Result<Target> {
    let rest = rest.split('#').next().unwrap_or_default();
    if rest.starts_with('/') { Target::new(rest) } else { Target::new(&format!("/{rest}")) }
}

impl Body {
    /// Waits for the next portion; none at the end. Every byte counts for the time-out between two of them.
    ///
    /// # Errors
    /// The time-outs of the request, and those of a connection that fails.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(answer) = &self.answer else { return Ok(None) };
        let mut portion = Vec::new();
        let due = answer.idle();
        Ok(self.read(&mut portion, due).await?.then_some(portion))
    }

    /// What comes of it, for whoever reads it into there and others who take it: [`Body::read_for`]. `by_bytes` says that
    /// the head of the answer was its first byte, and that each further one counts: else it is events, lines or portions
    /// that the time-outs wait for.
    pub fn arrivals(&self, memory: &Arc<StreamMemory>, by_bytes: bool) -> Option<Arrivals> {
        let answer = self.answer.as_ref()?;
        let pace = Pace::new(answer.deadlines, answer.sent, by_bytes);
        let endpoint = Arc::clone(&answer.response.endpoint);
        Some(Arrivals::of_body(pace, memory, answer.started, endpoint))
    }

    /// Waits for the next portion, within the time-outs of `arrivals` that others take from meanwhile, and adds it to
    /// `into`; false at the end. Where it fails, `into` has what came before.
    ///
    /// # Errors
    /// As [`Body::next`].
    pub async fn read_for(
        &mut self,
        arrivals: impl Fn(&dyn Fn(&Arrivals)),
        into: &mut Vec<u8>,
    ) -> Result<bool> {
        let due = || {
            let due = Cell::new(None);
            arrivals(&|arrivals| due.set(arrivals.due()));
            due.take()
        };
        self.read(into, due).await
    }

    /// The time-outs of the body, for who says himself what of it counts.
    pub fn waiting(&self) -> Option<Waiting> {
        let answer = self.answer.as_ref()?;
        Some(Waiting::new(Pace::new(answer.deadlines, answer.sent, false)))
    }

    pub(super) async fn read(&mut self, into: &mut Vec<u8>, due: impl Fn() -> Option<Due>) -> Result<bool> {
        let Some(answer) = &mut self.answer else { return Ok(false) };
        let read = answer.next(into, due).await;
        match &read {
            Ok(true) => {}
            Ok(false) => {
                if let Some(answer) = self.answer.take() {
                    drop(answer.finish());
                }
            }
            Err(_) => self.answer = None,
        }
        read
    }
}
