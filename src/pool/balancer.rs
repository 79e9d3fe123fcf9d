//! Which endpoint serves the next request: pure decisions over what the requests before it met.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;

/// How an endpoint is chosen among those that are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BalancePolicy {
    /// One after the other.
    RoundRobin,
    /// The one that carries the fewest requests; among equals, one after the other.
    LeastOutstanding,
    /// Of two at random, the one that carries fewer requests.
    P2c,
    /// Of two at random, the one with the lower product of requests that it carries and recent time to first byte. A
    /// stream counts as carried until it ends, and its length does not count as slowness.
    #[default]
    P2cFirstByte,
}

/// When an endpoint is left out, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct EjectSettings {
    /// Failures in a row that put an endpoint out; `None`: never.
    pub failures: Option<u32>,
    /// For how long; doubled each time that an endpoint is put out again before it was in for as long as it was out.
    pub time: Duration,
    /// The longest time that doubling comes to.
    pub longest: Duration,
    /// The longest time that a server's `Retry-After` puts it out for.
    pub longest_retry_after: Duration,
}

impl Default for EjectSettings {
    fn default() -> Self {
        Self {
            failures: Some(5),
            time: Duration::from_secs(10),
            longest: Duration::from_mins(5),
            longest_retry_after: Duration::from_secs(30),
        }
    }
}

impl EjectSettings {
    /// Answers whether the settings agree with one another.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the setting that does not.
    pub fn check(&self) -> Result<()> {
        let message = if self.failures == Some(0) {
            "the failures that eject an endpoint must be at least 1".to_owned()
        } else if self.time.is_zero() {
            "the time that an endpoint is ejected for must be more than 0 seconds".to_owned()
        } else if self.longest < self.time {
            let (longest, time) = (self.longest.as_secs_f64(), self.time.as_secs_f64());
            format!("longest={longest} is less than time={time}")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, message))
    }
}

/// How a request ended, as far as its endpoint is to praise or to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer; also one that blames the request.
    Success,
    /// With no answer, a broken one, or one that blames the server.
    Failure,
    /// With a 429 or 503. With a `Retry-After` the endpoint is left alone for that time; without, it counts as a failure.
    Overloaded(Option<Duration>),
    /// The caller left: it says nothing about the endpoint.
    Cancelled,
}

/// An endpoint that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its number, from 0.
    pub endpoint: usize,
    /// True where the request tries whether an endpoint that was out is well again.
    pub probe: bool,
}

/// The weight of a slow first byte halves in some 7 seconds: it falls by e in this time.
const FIRST_BYTE_MEMORY: Duration = Duration::from_secs(10);
/// What a failure counts as, in times to the first byte of the others, up to so many seconds: else whoever fails fast would
/// draw all requests. Little, for one failure alone is no reason to leave an endpoint out: ejection decides that.
const FAILURE_FACTOR: f64 = 2.0;
const MOST_FAILURE_SECONDS: f64 = 1.0;

#[derive(Debug, Clone, Default)]
struct Endpoint {
    outstanding: usize,
    /// Seconds to the first byte, when it was last brought up to date.
    first_byte: Option<(f64, Moment)>,
    /// Failures in a row.
    failures: u32,
    /// It is out until then, and from then on until a probe went well.
    ejected_until: Option<Moment>,
    /// The last health check put it out.
    unready: bool,
    probing: bool,
    /// How long it was out last.
    last_out: Duration,
    readmitted: Option<Moment>,
    /// Its server asked to be left alone until then.
    spared_until: Option<Moment>,
}

impl Endpoint {
    fn is_spared(&self, now: Moment) -> bool {
        self.spared_until.is_some_and(|until| now < until)
    }

    fn is_in(&self, now: Moment) -> bool {
        self.ejected_until.is_none() && !self.is_spared(now)
    }

    fn wants_probe(&self, now: Moment) -> bool {
        !self.probing && !self.is_spared(now) && self.ejected_until.is_some_and(|until| until <= now)
    }

    /// It is in again, as one of which nothing is known.
    fn readmit(&mut self, now: Moment) {
        self.ejected_until = None;
        self.unready = false;
        self.first_byte = None;
        self.readmitted = Some(now);
    }

    /// Recent seconds to the first byte; what is old weighs less, so that one that was slow is tried again.
    fn first_byte(&self, now: Moment) -> Option<f64> {
        let (seconds, at) = self.first_byte?;
        Some(seconds * (-now.since(at).as_secs_f64() / FIRST_BYTE_MEMORY.as_secs_f64()).exp())
    }

    /// A slower one counts in full at once, a faster one as time passes.
    fn observe(&mut self, seconds: f64, now: Moment) {
        let value = match self.first_byte {
            None => seconds,
            Some((before, at)) => {
                let weight = (-now.since(at).as_secs_f64() / FIRST_BYTE_MEMORY.as_secs_f64()).exp();
                if seconds > before { seconds } else { before * weight + seconds * (1.0 - weight) }
            }
        };
        self.first_byte = Some((value, now));
    }
}

/// Chooses among endpoints, and leaves out those that fail; never all of them.
///
/// Whoever picks says [`started`](Self::started) and then exactly once [`ended`](Self::ended).
#[derive(Debug, Clone)]
pub struct Balancer {
    policy: BalancePolicy,
    settings: EjectSettings,
    endpoints: Vec<Endpoint>,
    next: usize,
}

impl Balancer {
    /// A balancer over `count` endpoints, all of them in.
    pub fn new(policy: BalancePolicy, count: usize, settings: EjectSettings) -> Self {
        Self { policy, settings, endpoints: vec![Endpoint::default(); count], next: 0 }
    }

    /// The endpoint for the next request, one that `exclude` does not name; `None` where every other is out too.
    ///
    /// An endpoint whose time out is over gets one request as a probe, before all others. Where more than half of the
    /// endpoints are out, none is: the fault is then more likely on this side.
    pub fn pick(&mut self, now: Moment, exclude: &[usize], random: &mut fastrand::Rng) -> Option<Pick> {
        self.pick_among(now, &|_| true, exclude, random)
    }

    /// As [`pick`](Self::pick), among those endpoints that can serve the request at all.
    pub fn pick_among(
        &mut self,
        now: Moment,
        can: &dyn Fn(usize) -> bool,
        exclude: &[usize],
        random: &mut fastrand::Rng,
    ) -> Option<Pick> {
        let probe = (0..self.endpoints.len()).find(|at| {
            let wants = self.endpoints.get(*at).is_some_and(|endpoint| endpoint.wants_probe(now));
            wants && !exclude.contains(at) && can(*at)
        });
        if let Some(at) = probe {
            self.endpoints.get_mut(at)?.probing = true;
            return Some(Pick { endpoint: at, probe: true });
        }
        let (out, all) = self.out(now, can);
        let panic = out * 2 > all;
        let endpoint = self.choose(now, random, &|at: usize, endpoint: &Endpoint| {
            !exclude.contains(&at) && can(at) && (panic || endpoint.is_in(now))
        })?;
        Some(Pick { endpoint, probe: false })
    }

    /// A request goes to an endpoint.
    pub fn started(&mut self, endpoint: usize) {
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.outstanding += 1;
        }
    }

    /// The first byte of an answer came, `took` after the request went out.
    pub fn first_byte(&mut self, endpoint: usize, took: Duration, now: Moment) {
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.observe(took.as_secs_f64(), now);
        }
    }

    /// A caller left who had waited for so long in vain. That blames nobody, but the first byte would have taken longer:
    /// else an endpoint that says nothing any more would seem the faster the longer ago its last answer is.
    pub fn waited_in_vain(&mut self, endpoint: usize, waited: Duration, now: Moment) {
        let usual = self.usual_first_byte(now);
        if let Some(endpoint) = self.endpoints.get_mut(endpoint)
            && waited.as_secs_f64() > endpoint.first_byte(now).unwrap_or(usual)
        {
            endpoint.observe(waited.as_secs_f64(), now);
        }
    }

    /// A request ended: its last byte came, or it failed, or its caller left.
    pub fn ended(&mut self, pick: Pick, outcome: Outcome, now: Moment) {
        let is_failure = matches!(outcome, Outcome::Failure | Outcome::Overloaded(None));
        let seconds = if is_failure { self.failure_seconds(pick.endpoint, now) } else { None };
        let settings = &self.settings;
        let Some(endpoint) = self.endpoints.get_mut(pick.endpoint) else { return };
        endpoint.outstanding = endpoint.outstanding.saturating_sub(1);
        if pick.probe {
            endpoint.probing = false;
        }
        match outcome {
            Outcome::Success => {
                endpoint.failures = 0;
                if endpoint.ejected_until.is_some() {
                    endpoint.readmit(now);
                }
            }
            Outcome::Cancelled => {}
            Outcome::Overloaded(Some(wait)) => {
                endpoint.spared_until = Some(now + wait.min(settings.longest_retry_after));
            }
            Outcome::Failure | Outcome::Overloaded(None) => {
                fail(endpoint, pick.probe, seconds, settings, now);
            }
        }
    }

    /// A health check found an endpoint ready to serve, or not; answers whether that is news.
    ///
    /// One that is not ready is out until a check finds it ready, or for as long as failures would put it out, whichever
    /// comes first: then a probe finds out, for nobody may be there to be checked. One that failures put out is not let in
    /// because it calls itself ready.
    pub fn checked(&mut self, endpoint: usize, ready: bool, now: Moment) -> bool {
        let time = self.settings.time;
        let Some(endpoint) = self.endpoints.get_mut(endpoint) else { return false };
        let news = endpoint.unready == ready;
        if !ready {
            endpoint.unready = true;
            endpoint.ejected_until = endpoint.ejected_until.max(Some(now + time));
        } else if news {
            endpoint.failures = 0;
            endpoint.readmit(now);
        }
        news
    }

    /// Requests that an endpoint carries.
    pub fn outstanding(&self, endpoint: usize) -> usize {
        self.endpoints.get(endpoint).map_or(0, |endpoint| endpoint.outstanding)
    }

    /// True where an endpoint is left out for now.
    pub fn is_out(&self, endpoint: usize, now: Moment) -> bool {
        self.endpoints.get(endpoint).is_some_and(|endpoint| !endpoint.is_in(now))
    }

    /// Recent time to first byte of an endpoint; `None` before the first.
    pub fn recent_first_byte(&self, endpoint: usize, now: Moment) -> Option<Duration> {
        Duration::try_from_secs_f64(self.endpoints.get(endpoint)?.first_byte(now)?).ok()
    }

    /// How many of those that can serve are out, and how many there are.
    fn out(&self, now: Moment, can: &dyn Fn(usize) -> bool) -> (usize, usize) {
        let able = self.endpoints.iter().enumerate().filter(|(at, _)| can(*at));
        able.fold((0, 0), |(out, all), (_, endpoint)| (out + usize::from(!endpoint.is_in(now)), all + 1))
    }

    fn choose(
        &mut self,
        now: Moment,
        random: &mut fastrand::Rng,
        may: &dyn Fn(usize, &Endpoint) -> bool,
    ) -> Option<usize> {
        match self.policy {
            BalancePolicy::RoundRobin => self.one_after_the_other(|_| 0, may),
            BalancePolicy::LeastOutstanding => self.one_after_the_other(|endpoint| endpoint.outstanding, may),
            BalancePolicy::P2c =>
            {
                #[allow(clippy::cast_precision_loss, reason = "requests are few")]
                self.of_two(random, may, |endpoint| endpoint.outstanding as f64)
            }
            BalancePolicy::P2cFirstByte => {
                let usual = self.usual_first_byte(now);
                #[allow(clippy::cast_precision_loss, reason = "requests are few")]
                self.of_two(random, may, |endpoint| {
                    (endpoint.outstanding + 1) as f64 * endpoint.first_byte(now).unwrap_or(usual)
                })
            }
        }
    }

    /// The first of the least loaded, counted from behind the one that was chosen last.
    fn one_after_the_other(
        &mut self,
        load: impl Fn(&Endpoint) -> usize,
        may: &dyn Fn(usize, &Endpoint) -> bool,
    ) -> Option<usize> {
        let count = self.endpoints.len();
        let inside = |at: &usize| self.endpoints.get(*at).is_some_and(|endpoint| may(*at, endpoint));
        let order = (0..count).map(|step| (self.next + step) % count).filter(inside);
        let chosen = order.min_by_key(|at| self.endpoints.get(*at).map_or(usize::MAX, &load))?;
        self.next = (chosen + 1) % count;
        Some(chosen)
    }

    /// Two different ones at random, and of these the less loaded; the first of them where they are equal.
    fn of_two(
        &self,
        random: &mut fastrand::Rng,
        may: &dyn Fn(usize, &Endpoint) -> bool,
        load: impl Fn(&Endpoint) -> f64,
    ) -> Option<usize> {
        let within = || self.endpoints.iter().enumerate().filter(|(at, endpoint)| may(*at, endpoint));
        let count = within().count();
        if count < 2 {
            return within().next().map(|(at, _)| at);
        }
        let first = random.usize(..count);
        let second = (first + random.usize(1..count)) % count;
        let ((one, first), (other, second)) = (within().nth(first)?, within().nth(second)?);
        Some(if load(second) < load(first) { other } else { one })
    }

    /// What an endpoint that nothing is known of yet counts as: the mean of the others.
    fn usual_first_byte(&self, now: Moment) -> f64 {
        self.mean_first_byte(now, None).unwrap_or(1.0)
    }

    /// What a failure of an endpoint counts as; nothing where nothing is known of the others.
    fn failure_seconds(&self, endpoint: usize, now: Moment) -> Option<f64> {
        let others = self.mean_first_byte(now, Some(endpoint))?;
        Some((others * FAILURE_FACTOR).min(MOST_FAILURE_SECONDS))
    }

    #[allow(clippy::cast_precision_loss, reason = "endpoints are few")]
    fn mean_first_byte(&self, now: Moment, without: Option<usize>) -> Option<f64> {
        let others = self.endpoints.iter().enumerate().filter(|(at, _)| Some(*at) != without);
        let known = others.filter_map(|(_, endpoint)| endpoint.first_byte(now));
        let (count, sum) = known.fold((0_usize, 0.0), |(count, sum), seconds| (count + 1, sum + seconds));
        (count > 0).then(|| sum / count as f64)
    }
}

/// Counts a failure, and puts the endpoint out where it was one too many.
fn fail(endpoint: &mut Endpoint, probing: bool, seconds: Option<f64>, settings: &EjectSettings, now: Moment) {
    if let Some(seconds) = seconds {
        let recent = endpoint.first_byte(now).unwrap_or_default();
        endpoint.observe(recent.max(seconds), now);
    }
    endpoint.failures = endpoint.failures.saturating_add(1);
    let enough = settings.failures.is_some_and(|limit| endpoint.failures >= limit);
    let again = endpoint.ejected_until.is_some() && probing;
    if again || (endpoint.ejected_until.is_none() && enough) {
        let recovered = endpoint.readmitted.is_some_and(|since| now.since(since) >= endpoint.last_out);
        let fresh = endpoint.last_out.is_zero() || (!again && recovered);
        let time =
            if fresh { settings.time } else { endpoint.last_out.saturating_mul(2).min(settings.longest) };
        endpoint.last_out = time;
        endpoint.ejected_until = Some(now + time);
    }
}
