//! The real cache on a clock that only events move: its loader takes the time that a load takes, and does nothing else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::future::Future;
use super::outcome::{Outcome, Tally};
use super::shape::Model;
use super::trace::{Access, Trace};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Clock, Moment, TimeSource, VirtualClock};
use crate::models::{
    Asked, Cache, CacheSettings, Claim, Load, LoadSpec, Loader, ModelId, Ranking, Residency,
};

/// No load of a trace is given up before this.
const PATIENCE: Duration = Duration::from_hours(1);

/// What a trace meets.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The cache. [`Ranked`](crate::models::PolicyKind::Ranked) is answered by the future: what is asked for again the latest
    /// goes (Belady), which no cache can know.
    pub settings: CacheSettings,
    /// How long each request uses its model: 2 s, of which the trace says nothing.
    pub lease: Duration,
    /// Whatever was not used for so long is unloaded; `None` keeps it until there is no room.
    pub ttl: Option<Duration>,
}

impl Setup {
    /// A cache with these settings.
    pub fn new(settings: CacheSettings) -> Self {
        Self { settings, lease: Duration::from_secs(2), ttl: None }
    }

    /// A cache with these settings, whose models are used for no time.
    pub(in crate::models) fn instant(settings: CacheSettings) -> Self {
        Self { settings, lease: Duration::ZERO, ttl: None }
    }
}

/// A model as the simulated loader knows it.
#[derive(Debug, Clone)]
pub(in crate::models) struct Loaded {
    pub(in crate::models) spec: LoadSpec,
    pub(in crate::models) bytes: u64,
    pub(in crate::models) load: Duration,
}

/// Runs a trace through a cache and says what became of it.
///
/// # Errors
/// `Config` where the settings contradict themselves.
pub fn drive(trace: &Trace, setup: &Setup) -> Result<Outcome> {
    let (outcome, _) = World::new(models(trace), asks(trace), setup)?.run();
    Ok(outcome)
}

/// The catalogue, as its cache and its loader know it.
pub(super) fn models(trace: &Trace) -> Vec<Loaded> {
    let model = |(number, model): (usize, &Model)| {
        let spec = LoadSpec::new(format!("model-{number}"), "1");
        let spec = LoadSpec { size: Some(model.bytes), timeout: PATIENCE, ..spec };
        Loaded { spec, bytes: model.bytes, load: model.load }
    };
    trace.models.iter().enumerate().map(model).collect()
}

/// The requests.
pub(super) fn asks(trace: &Trace) -> Vec<Ask> {
    let ask = |access: &Access| Ask { at: access.at, model: access.model, session: access.session() };
    trace.accesses.iter().map(ask).collect()
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(in crate::models) struct Ask {
    pub(in crate::models) at: Moment,
    pub(in crate::models) model: ModelId,
    pub(in crate::models) session: Option<u64>,
}

/// What is due, in the order of its time; what is due at once, in the order in which it was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Loaded(Residency, ModelId),
    Done(usize),
    Expired(ModelId),
    Asked(usize),
}

/// What the cache wants of its loader.
enum Order {
    Load(Load),
    Cancel(Residency),
    Unload(Residency),
    Rank(Ranking),
}

/// Takes orders; the world carries them out, in its time.
#[derive(Default)]
struct Orders(Mutex<Vec<Order>>);

impl Loader for Orders {
    fn load(&self, load: Load) {
        self.0.lock().push(Order::Load(load));
    }

    fn cancel(&self, residency: Residency) {
        self.0.lock().push(Order::Cancel(residency));
    }

    fn unload(&self, residency: Residency) {
        self.0.lock().push(Order::Unload(residency));
    }

    fn rank(&self, question: Ranking) {
        self.0.lock().push(Order::Rank(question));
    }
}

/// Whoever was told, and whether they got their model.
type Told = Arc<Mutex<Vec<(usize, bool)>>>;

/// A cache, its loader and those who ask.
pub(in crate::models) struct World {
    cache: Cache,
    clock: Arc<VirtualClock>,
    orders: Arc<Orders>,
    /// By the cache's number of each.
    models: Vec<Loaded>,
    asks: Vec<Ask>,
    setup: Setup,
    future: Future,
    events: BinaryHeap<Reverse<(Moment, usize, Event)>>,
    planned: usize,
    claims: HashMap<usize, Claim>,
    told: Told,
    /// When each load began.
    begun: HashMap<Residency, Moment>,
    last_used: HashMap<ModelId, Moment>,
    /// The first request that counts.
    counted_from: usize,
    tally: Tally,
}

impl World {
    /// Models by the numbers that the requests name them by.
    pub(in crate::models) fn new(models: Vec<Loaded>, asks: Vec<Ask>, setup: &Setup) -> Result<Self> {
        let clock = Arc::new(VirtualClock::new());
        let orders = Arc::new(Orders::default());
        let loader = Arc::clone(&orders) as Arc<dyn Loader>;
        let cache = Cache::new(setup.settings.clone(), loader, TimeSource::Virtual(Arc::clone(&clock)))?;
        for model in &models {
            cache.register(model.spec.clone())?;
        }
        let mut world = Self {
            cache,
            clock,
            orders,
            future: Future::new(asks.iter().map(|ask| (ask.at, ask.model))),
            models,
            asks,
            setup: setup.clone(),
            events: BinaryHeap::new(),
            planned: 0,
            claims: HashMap::new(),
            told: Told::default(),
            begun: HashMap::new(),
            last_used: HashMap::new(),
            counted_from: 0,
            tally: Tally::default(),
        };
        if let Some(first) = world.asks.first().map(|ask| ask.at) {
            world.plan(first, Event::Asked(0));
        }
        Ok(world)
    }

    /// Counts nothing before that request.
    pub(in crate::models) fn counting_from(self, counted_from: usize) -> Self {
        Self { counted_from, ..self }
    }

    /// Until the last request has its answer; what became of them, and the cache as it is then.
    pub(in crate::models) fn run(mut self) -> (Outcome, Cache) {
        self.go();
        (self.tally.finish(&self.cache.stats()), self.cache)
    }

    fn go(&mut self) {
        let mut due = None;
        while let Some(Reverse((at, _, _))) = self.events.peek().copied() {
            // What the cache itself has to do at a time comes before what others do then.
            let ticks = due.is_some_and(|due| due <= at);
            self.clock.advance_to(if ticks { due.unwrap_or(at) } else { at });
            if !ticks && let Some(Reverse((_, _, event))) = self.events.pop() {
                self.happen(event);
            }
            self.obey();
            let now = self.clock.now();
            due = self.cache.tick().map(|due| due.max(now + Duration::from_nanos(1)));
            self.obey();
        }
    }

    fn plan(&mut self, at: Moment, event: Event) {
        self.planned += 1;
        self.events.push(Reverse((at, self.planned, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Asked(number) => self.ask(number),
            Event::Loaded(residency, model) => {
                if let Some(begun) = self.begun.remove(&residency) {
                    self.tally.loaded(self.clock.now().since(begun));
                    let bytes = self.models.get(model.0 as usize).map(|model| model.bytes);
                    self.cache.loaded(residency, bytes);
                }
            }
            Event::Done(number) => drop(self.claims.remove(&number)),
            Event::Expired(model) => self.expire(model),
        }
    }

    fn ask(&mut self, number: usize) {
        if let Some(next) = self.asks.get(number + 1).map(|ask| ask.at) {
            self.plan(next, Event::Asked(number + 1));
        }
        let Some(ask) = self.asks.get(number).copied() else { return };
        if number == self.counted_from {
            self.tally = Tally::default();
        }
        let session = ask.session.map(|session| session.to_string());
        let asked = Asked { session: session.as_deref(), ..Asked::default() };
        let told = Arc::clone(&self.told);
        let tell = move |result: Result<Residency>| told.lock().push((number, result.is_ok()));
        let claim = self.cache.acquire(ask.model, &asked, Box::new(tell));
        let cold = self.models.get(ask.model.0 as usize).map_or(Duration::ZERO, |model| model.load);
        self.tally.asked(cold);
        if claim.at_once() {
            self.tally.hit();
            self.lease(number, ask.model);
        }
        self.claims.insert(number, claim);
    }

    /// From now on the request uses its model.
    fn lease(&mut self, number: usize, model: ModelId) {
        let now = self.clock.now();
        self.plan(now + self.setup.lease, Event::Done(number));
        self.last_used.insert(model, now);
        if let Some(ttl) = self.setup.ttl {
            self.plan(now + ttl, Event::Expired(model));
        }
    }

    fn expire(&mut self, model: ModelId) {
        let unused = self.last_used.get(&model).map(|used| self.clock.now().since(*used));
        if unused >= self.setup.ttl {
            self.cache.unload(model, true, None, Box::new(|_| {}));
        }
    }

    /// Carries out what was ordered, and what follows from that.
    fn obey(&mut self) {
        loop {
            let told = std::mem::take(&mut *self.told.lock());
            let orders = std::mem::take(&mut *self.orders.0.lock());
            if told.is_empty() && orders.is_empty() {
                return;
            }
            for (number, served) in told {
                self.tell(number, served);
            }
            for order in orders {
                self.carry_out(order);
            }
        }
    }

    fn tell(&mut self, number: usize, served: bool) {
        let (Some(claim), Some(ask)) = (self.claims.get(&number), self.asks.get(number).copied()) else {
            return;
        };
        if served {
            self.tally.answered(claim.waited());
            self.lease(number, ask.model);
        } else {
            self.tally.refused();
            self.claims.remove(&number);
        }
    }

    fn carry_out(&mut self, order: Order) {
        let now = self.clock.now();
        match order {
            Order::Load(load) => {
                let takes = self.models.get(load.model.0 as usize).map_or(Duration::ZERO, |model| model.load);
                self.begun.insert(load.residency, now);
                self.plan(now + takes, Event::Loaded(load.residency, load.model));
            }
            Order::Cancel(residency) => {
                if let Some(begun) = self.begun.remove(&residency) {
                    self.tally.loaded(now.since(begun));
                    let why = Error::new(ErrorKind::LoadFailed, "the load was taken back");
                    self.cache.failed(residency, why, false);
                }
            }
            Order::Unload(residency) => self.cache.unloaded(residency, 0),
            Order::Rank(question) => {
                let scores =
                    question.candidates.iter().map(|candidate| self.future.worth(candidate.model, now));
                self.cache.ranked(question.question, scores.collect());
            }
        }
    }
}
