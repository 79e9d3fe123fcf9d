//! Endpoints that serve the same: which of them a request goes to, and what became of it there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::address::Protocol;
use super::connection::HttpConnector;
use super::request::Request;
use super::retry::Retry;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Clock, Moment, RuntimeClock};
use crate::pool::{Balancer, Outcome, Pick, Pool, RetryBudget};
use crate::wire::grpc::Code;

/// One server, and the connections to it.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) pool: Pool<HttpConnector>,
}

impl Endpoint {
    pub(super) fn connector(&self) -> &HttpConnector {
        self.pool.connector()
    }

    /// What it speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.connector().origin.protocol()
    }

    /// Who it is: `http://host:port`.
    pub(super) fn label(&self) -> &Arc<str> {
        &self.pool.connector().label
    }
}

/// Servers of which any may answer a request.
pub(super) struct Fleet {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) retry: Retry,
    pub(super) clock: Arc<RuntimeClock>,
    state: Mutex<State>,
}

struct State {
    balancer: Balancer,
    budget: RetryBudget,
    random: fastrand::Rng,
}

impl Fleet {
    pub(super) fn new(
        endpoints: Vec<Endpoint>,
        balancer: Balancer,
        retry: Retry,
        clock: Arc<RuntimeClock>,
    ) -> Self {
        let budget = RetryBudget::new(retry.budget, retry.per_second);
        let state = Mutex::new(State { balancer, budget, random: fastrand::Rng::new() });
        Self { endpoints, retry, clock, state }
    }

    /// Chooses an endpoint that speaks one of the forms of the request, one that is not among `tried` if there is any, and
    /// counts a request there.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where no endpoint speaks any of them.
    pub(super) fn begin(
        self: &Arc<Self>,
        request: &Request,
        tried: &[usize],
        is_first: bool,
    ) -> Result<Trip> {
        let can =
            |at: usize| self.endpoints.get(at).is_some_and(|endpoint| request.suits(endpoint.protocol()));
        let now = self.clock.now();
        let mut state = self.state.lock();
        let State { balancer, budget, random } = &mut *state;
        if is_first {
            budget.request();
        }
        let pick = balancer.pick_among(now, &can, tried, random);
        let Some(pick) = pick.or_else(|| balancer.pick_among(now, &can, &[], random)) else {
            drop(state);
            return Err(self.unsuited(request));
        };
        balancer.started(pick.endpoint);
        drop(state);
        let trip = Trip {
            fleet: Arc::clone(self),
            pick,
            sent: OnceLock::new(),
            answered: AtomicBool::new(false),
            if_dropped: Outcome::Cancelled,
            is_over: false,
        };
        Ok(trip)
    }

    /// How many endpoints speak one of the forms of the request.
    pub(super) fn count_for(&self, request: &Request) -> usize {
        self.endpoints.iter().filter(|endpoint| request.suits(endpoint.protocol())).count()
    }

    fn unsuited(&self, request: &Request) -> Error {
        let labels: Vec<&str> = self.endpoints.iter().map(|endpoint| &**endpoint.label()).collect();
        let form = if request.http { "HTTP" } else { "gRPC" };
        let message =
            format!("the request can go over {form} only, and {} does not speak it", labels.join(", "));
        Error::new(ErrorKind::Config, message)
    }

    /// Leaves out endpoints that health checks find not ready, and lets them in again.
    pub(super) fn heed_checks(self: &Arc<Self>) {
        for (number, endpoint) in self.endpoints.iter().enumerate() {
            let fleet = Arc::downgrade(self);
            endpoint.connector().report_to(Box::new(move |ready| {
                if let Some(fleet) = fleet.upgrade() {
                    fleet.checked(number, ready);
                }
            }));
        }
    }

    fn checked(&self, number: usize, ready: bool) {
        let news = self.state.lock().balancer.checked(number, ready, self.clock.now());
        if news && let Some(endpoint) = self.endpoints.get(number) {
            let endpoint = &**endpoint.label();
            tracing::info!(target: "penstock::pool", endpoint, ready, "a health check found news of an endpoint");
        }
    }

    /// Takes one retry out of the budget; false where it is spent.
    pub(super) fn may_retry(&self) -> bool {
        self.state.lock().budget.retry(self.clock.now())
    }

    /// What the balancer thinks of each endpoint.
    pub(super) fn standing<T>(&self, look: impl FnOnce(&Balancer, Moment) -> T) -> T {
        look(&self.state.lock().balancer, self.clock.now())
    }
}

/// What an answer of that status says about its endpoint. `code` is that of gRPC; an answer `is_broken` that has none of
/// the server's own.
pub(super) fn outcome_of(
    status: u16,
    code: Option<Code>,
    is_broken: bool,
    retry_after: Option<Duration>,
) -> Outcome {
    match status {
        500.. if is_broken => Outcome::Failure,
        // The server kept to the caller's own limit.
        _ if code == Some(Code::DeadlineExceeded) => Outcome::Cancelled,
        429 | 503 => Outcome::Overloaded(retry_after),
        502 | 504 => Outcome::Failure,
        _ => Outcome::Success,
    }
}

/// A request at one endpoint. Dropping it says that it was given up, unless the endpoint was to blame by then.
pub(super) struct Trip {
    fleet: Arc<Fleet>,
    pick: Pick,
    /// When it went out.
    sent: OnceLock<Instant>,
    /// Whether the head of an answer came.
    answered: AtomicBool,
    if_dropped: Outcome,
    is_over: bool,
}

impl Trip {
    pub(super) fn number(&self) -> usize {
        self.pick.endpoint
    }

    /// Where it goes. None only for a number that no balancer gives.
    pub(super) fn endpoint(&self) -> Result<&Endpoint> {
        self.fleet.endpoints.get(self.pick.endpoint).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the balancer chose an endpoint that is not there")
        })
    }

    /// The request goes out at that moment.
    pub(super) fn sent_at(&self, now: Instant) {
        let _ = self.sent.set(now);
    }

    /// The head of the answer came `took` after the request was sent.
    pub(super) fn first_byte(&self, took: Duration) {
        let now = self.fleet.clock.now();
        self.answered.store(true, Ordering::Relaxed);
        self.fleet.state.lock().balancer.first_byte(self.pick.endpoint, took, now);
    }

    /// The head of the answer is a bad one already: that counts, whether anybody reads its body or not.
    pub(super) fn is_to_blame(&mut self, outcome: Outcome) {
        self.if_dropped = outcome;
    }

    /// The request came to a bad end.
    pub(super) fn fail(&mut self) {
        self.finish(Outcome::Failure);
    }

    /// The request is over.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let now = self.fleet.clock.now();
        let in_vain = self.sent.get().filter(|_| outcome == Outcome::Cancelled && !*self.answered.get_mut());
        let mut state = self.fleet.state.lock();
        if let Some(sent) = in_vain {
            state.balancer.waited_in_vain(self.pick.endpoint, sent.elapsed(), now);
        }
        state.balancer.ended(self.pick, outcome, now);
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        self.finish(self.if_dropped);
    }
}
