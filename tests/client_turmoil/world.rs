//! A client among hosts of a simulated network, and the ledger of what it asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use penstock::client::{
    Client, ClientSettings, ConnectSettings, Http2Choice, Proxies, Request, Retry, Target, Timeouts,
};
use penstock::error::ErrorKind;
use penstock::pool::{EjectSettings, PoolSettings};
use tokio::runtime::Handle;
use turmoil::{Builder, Sim};

use crate::network::network;
use crate::server::{Computed, PORT, serve};

/// The longest that a request may take, in simulated time. Whoever still waits well after it waits for ever.
pub(crate) const TOTAL: Duration = Duration::from_secs(4);
/// What a run may take in simulated time; turmoil fails it then.
const LIMIT: Duration = Duration::from_mins(10);

pub(crate) fn millis(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// How a request ended: answered, given up by its caller, or with an error of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    GivenUp,
    Failed(ErrorKind),
}

/// Each request, by its number: when it ended, in milliseconds of simulated time, and how.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ledger(Rc<RefCell<Vec<(u64, usize, Outcome)>>>);

impl Ledger {
    pub(crate) fn note(&self, number: usize, outcome: Outcome) {
        let at = u64::try_from(turmoil::elapsed().as_millis()).unwrap();
        self.0.borrow_mut().push((at, number, outcome));
    }

    pub(crate) fn trace(&self) -> Vec<(u64, usize, Outcome)> {
        self.0.borrow().clone()
    }

    pub(crate) fn outcomes(&self) -> BTreeMap<usize, Vec<Outcome>> {
        let mut outcomes = BTreeMap::<usize, Vec<Outcome>>::new();
        for (_, number, outcome) in self.0.borrow().iter() {
            outcomes.entry(*number).or_default().push(*outcome);
        }
        outcomes
    }

    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.0.borrow().iter().filter(|(_, _, found)| *found == outcome).count()
    }

    /// Every request of that many has ended, and has ended once.
    pub(crate) fn is_whole(&self, requests: usize) {
        let outcomes = self.outcomes();
        let lost: Vec<_> = (0..requests).filter(|number| !outcomes.contains_key(number)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let doubled: Vec<_> = outcomes.iter().filter(|(_, ends)| ends.len() > 1).collect();
        assert!(doubled.is_empty(), "doubled: {doubled:?}");
        assert_eq!(outcomes.len(), requests);
    }
}

/// What a run is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) http2: bool,
    pub(crate) hosts: Vec<&'static str>,
    /// Time that a server takes for a request.
    pub(crate) time: Duration,
    pub(crate) retry: Retry,
    pub(crate) max_size: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            http2: false,
            hosts: vec!["one"],
            time: millis(5),
            retry: Retry::default(),
            max_size: 8,
        }
    }
}

impl Plan {
    /// A network with the hosts of the plan, each with its server.
    pub(crate) fn network<'a>(&self, computed: &Computed) -> Sim<'a> {
        // Whatever the client draws, it draws by this.
        fastrand::seed(self.seed);
        let mut sim = Builder::new()
            .rng_seed(self.seed)
            .simulation_duration(LIMIT)
            .tick_duration(millis(1))
            .min_message_latency(millis(1))
            .max_message_latency(millis(10))
            .tcp_capacity(4096)
            .build();
        for host in self.hosts.iter().copied() {
            let (http2, time, computed) = (self.http2, self.time, Rc::clone(computed));
            sim.host(host, move || serve(host, http2, time, Rc::clone(&computed)));
        }
        sim
    }

    /// A client of all hosts. To be called on a simulated host: its tasks run there.
    pub(crate) fn client(&self) -> Arc<Client> {
        let connect = ConnectSettings {
            timeout: millis(1_000),
            proxies: Proxies::None,
            http2: if self.http2 { Http2Choice::PriorKnowledge } else { Http2Choice::Never },
            network: network(),
            ..ConnectSettings::default()
        };
        let settings = ClientSettings {
            pool: PoolSettings { min_size: 0, max_size: self.max_size, ..PoolSettings::default() },
            eject: EjectSettings { time: millis(500), ..EjectSettings::default() },
            retry: self.retry.clone(),
            connect,
            ..ClientSettings::default()
        };
        let urls: Vec<String> =
            self.hosts.iter().map(|host| format!("http://{}:{PORT}", address(host))).collect();
        Arc::new(Client::new(&urls, settings, Handle::current()).unwrap())
    }
}

fn address(host: &str) -> IpAddr {
    turmoil::lookup(host)
}

pub(crate) fn limits() -> Timeouts {
    Timeouts {
        connect: Some(millis(1_000)),
        acquire: Some(millis(2_000)),
        first: Some(millis(2_000)),
        idle: Some(millis(1_000)),
        total: Some(TOTAL),
    }
}

/// A request that may be sent again where `again` says so.
pub(crate) fn request(number: usize, again: bool) -> Request {
    let target = Target::new(&format!("/{number}")).unwrap();
    let plain = Request::new(Method::POST, target);
    Request { body: format!("body {number}").into(), timeouts: limits(), idempotent: again, ..plain }
}

/// Asks, and looks at the answer: it is the one to this request, whole.
pub(crate) async fn ask(client: &Client, number: usize, again: bool) -> Outcome {
    let (route, _) = client.route("/").unwrap();
    match Client::send(route, request(number, again)).await {
        Ok(response) => {
            assert_eq!(response.body, format!("{number} body {number}"), "the answer to another request");
            Outcome::Answered
        }
        Err(error) => Outcome::Failed(error.kind()),
    }
}

/// Nothing is under way, nobody waits and nothing is held.
pub(crate) fn assert_at_rest(client: &Client) {
    for stats in client.stats() {
        let counted = (stats.outstanding, stats.pool.leases, stats.pool.waiting, stats.pool.in_use);
        assert_eq!(counted, (0, 0, 0, 0), "{}", stats.endpoint);
    }
}

/// Connections that it holds, whether or not anybody is at their other end.
pub(crate) fn connections(client: &Client) -> usize {
    client.stats().iter().map(|stats| stats.pool.size).sum()
}

/// Closes the client and waits for its last connection, within simulated time.
pub(crate) async fn assert_closes(client: &Client) {
    client.close();
    let closed = tokio::time::timeout(Duration::from_secs(30), client.closed()).await;
    assert!(closed.is_ok(), "a connection stays open: {:?}", client.stats());
    assert!(client.stats().iter().all(|stats| stats.pool.size == 0));
}
