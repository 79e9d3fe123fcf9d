//! A batcher, its workers and its callers on a clock that only events move: hours of load in seconds, the same each time.
//!
//! It drives the very [`Batcher`] that serves: what it says of a policy, the policy's own code has decided. Only the
//! function is made up, as a time that a batch takes.

mod load;
mod report;
mod service;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

pub use load::{Arrival, Clients, Load, Phase, poisson};
pub use report::{Answered, Report};
pub use service::{Call, Linear, Service};

use super::{Attendance, BatchPolicy, Batcher, Cut, GroupKey, Ran, Removed, Terms};
use crate::error::Result;
use crate::flow::{Clock, Moment, TimeSource, VirtualClock};
use crate::tensor::{Column, ColumnSpec, DType, Rows, Specs};

/// Time after which a client that was refused asks again, where it was not told when.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How requests become batches.
    pub policy: BatchPolicy,
    /// Workers that take batches.
    pub workers: usize,
    /// Time from the first request of a tick to its end; zero where only what comes at the same moment shares a tick.
    pub tick: Duration,
    /// Of everything that is left to chance.
    pub seed: u64,
}

impl Setup {
    /// One worker, ticks of no length.
    pub fn new(policy: BatchPolicy) -> Self {
        Self { policy, workers: 1, tick: Duration::ZERO, seed: 1 }
    }
}

/// Runs a load to its end and says what became of it.
///
/// # Errors
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) where the policy contradicts itself.
pub fn simulate(setup: &Setup, load: &Load, service: &mut dyn Service) -> Result<Report> {
    let clock = Arc::new(VirtualClock::new());
    let batcher =
        Batcher::with(setup.policy.clone(), setup.workers, TimeSource::Virtual(Arc::clone(&clock)))?;
    let world = World {
        clock,
        batcher,
        tick: setup.tick,
        padded: setup.policy.budget.is_some_and(|budget| budget.padding.is_some()),
        service,
        rng: fastrand::Rng::with_seed(setup.seed),
        free: setup.workers.max(1),
        events: BinaryHeap::new(),
        happened: 0,
        requests: Vec::new(),
        batches: Vec::new(),
        ends: None,
        look: None,
        report: Report::default(),
    };
    Ok(world.run(load))
}

/// A request, by the number under which the batcher knows it.
struct Request {
    arrived: Moment,
    deadline: Option<Moment>,
    client: Option<usize>,
}

/// A batch in the function.
struct Running {
    number: u64,
    took: Duration,
    requests: Vec<u32>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A batch is done; by its place among those that were taken.
    Done(usize),
    /// A client asks.
    Ask { client: usize },
    /// The number of clients changes to that of this phase.
    Phase(usize),
    /// The tick is over.
    TickEnds,
    /// Somebody should look at the queue.
    Look,
}

struct World<'a> {
    clock: Arc<VirtualClock>,
    batcher: Batcher<(), u32>,
    tick: Duration,
    /// Rows of different lengths are filled up: their cost is their length.
    padded: bool,
    service: &'a mut dyn Service,
    rng: fastrand::Rng,
    free: usize,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    /// Orders events of the same moment as they were foreseen.
    happened: u64,
    requests: Vec<Request>,
    batches: Vec<Option<Running>>,
    /// When the tick ends, where one has begun.
    ends: Option<Moment>,
    /// When somebody comes back to look.
    look: Option<Moment>,
    report: Report,
}

impl World<'_> {
    fn run(mut self, load: &Load) -> Report {
        let none = Vec::new();
        let arrivals = match load {
            Load::Open(arrivals) => arrivals,
            Load::Closed(clients) => {
                let mut begins = Moment::default();
                for (phase, of) in clients.phases.iter().enumerate() {
                    self.foresee(begins, Event::Phase(phase));
                    begins = begins + of.lasts;
                }
                &none
            }
        };
        let mut arrivals = arrivals.iter().peekable();
        loop {
            let arrival = arrivals.peek().map(|arrival| Moment::default() + arrival.at);
            let event = self.events.peek().map(|Reverse((moment, ..))| *moment);
            let Some(now) = [arrival, event].into_iter().flatten().min() else { break };
            self.clock.advance_to(now);
            while let Some(Reverse((_, _, event))) = self.events.pop_if_due(now) {
                self.happen(event, load);
            }
            while let Some(arrival) = arrivals.next_if(|arrival| Moment::default() + arrival.at <= now) {
                for _ in 0..arrival.rows {
                    self.ask(arrival.cost, arrival.timeout, None);
                }
            }
            self.end_tick(now);
            self.work();
        }
        self.report.waiting = self.batcher.stats().queued;
        self.report.elapsed = self.clock.now().since(Moment::default());
        self.report.stats = self.batcher.stats();
        self.report
    }

    fn foresee(&mut self, at: Moment, event: Event) {
        self.happened += 1;
        self.events.push(Reverse((at, self.happened, event)));
    }

    fn happen(&mut self, event: Event, load: &Load) {
        match (event, load) {
            (Event::Done(batch), _) => self.finish(batch, load),
            (Event::Ask { client }, Load::Closed(clients)) => self.ask_again(client, clients),
            (Event::Phase(phase), Load::Closed(clients)) => {
                let count = |phase: usize| clients.phases.get(phase).map_or(0, |phase| phase.clients);
                let before = phase.checked_sub(1).map_or(0, count);
                for client in before..count(phase) {
                    self.ask_again(client, clients);
                }
            }
            // The end of a tick and the look are taken after everything of their moment has happened.
            _ => {}
        }
    }

    /// A client asks, unless it has left by now.
    fn ask_again(&mut self, client: usize, clients: &Clients) {
        if client < clients.at(self.clock.now()) {
            let cost = self.rng.choice(&clients.costs).copied().unwrap_or(1);
            self.ask(cost, clients.timeout, Some(client));
        }
    }

    fn ask(&mut self, cost: u32, timeout: Option<Duration>, client: Option<usize>) {
        let now = self.clock.now();
        let Ok(number) = u32::try_from(self.requests.len()) else { return };
        let deadline = timeout.map(|timeout| now + timeout);
        self.requests.push(Request { arrived: now, deadline, client });
        self.report.asked += 1;
        let terms = Terms { deadline, cost, ..Terms::default() };
        let mut left = Left::default();
        let (key, length) = if self.padded { (row_of(cost), cost as usize) } else { (no_row(), 0) };
        let asked = self.batcher.submit(&key, terms, number, |rows| write(rows, length), &mut left);
        self.leave(&left);
        match asked {
            Ok(()) => {
                if self.ends.is_none() {
                    self.ends = Some(now + self.tick);
                    self.foresee(now + self.tick, Event::TickEnds);
                }
            }
            Err(error) => {
                self.report.refused += 1;
                if let Some(client) = client {
                    let wait = error.wait_before_retry().unwrap_or(ASK_AGAIN).max(Duration::from_millis(1));
                    self.foresee(now + wait, Event::Ask { client });
                }
            }
        }
    }

    fn end_tick(&mut self, now: Moment) {
        if self.ends.is_some_and(|ends| ends <= now) {
            self.ends = None;
            self.batcher.release();
        }
    }

    /// Every free worker takes what it may.
    fn work(&mut self) {
        while self.free > 0 {
            let waiting = self.batcher.stats().queued;
            let mut left = Left::default();
            let batch = self.batcher.take(&mut left);
            self.leave(&left);
            match batch {
                Some(batch) => {
                    let requests: Vec<u32> = batch.entries.iter().map(|entry| entry.waiter).collect();
                    self.start(&batch.cut, requests);
                }
                // All whom it would have taken had left.
                None if self.batcher.stats().queued < waiting => {}
                None => break,
            }
        }
        if self.free > 0 {
            self.look_again();
        }
    }

    /// Comes back when a batch that is held back may go.
    fn look_again(&mut self) {
        let now = self.clock.now();
        let Some(wait) = self.batcher.look_again_in().filter(|wait| !wait.is_zero()) else { return };
        let at = now + wait;
        if self.look.is_none_or(|look| look <= now || look > at) {
            self.look = Some(at);
            self.foresee(at, Event::Look);
        }
    }

    fn start(&mut self, cut: &Cut, requests: Vec<u32>) {
        let call = Call { rows: requests.len(), cost: cut.cost, padded_cost: cut.padded_cost };
        let took = self.service.takes(&call, &mut self.rng);
        self.free -= 1;
        self.report.count(&call, took);
        self.batches.push(Some(Running { number: cut.number, took, requests }));
        self.foresee(self.clock.now() + took, Event::Done(self.batches.len() - 1));
    }

    fn finish(&mut self, batch: usize, load: &Load) {
        let Some(running) = self.batches.get_mut(batch).and_then(Option::take) else { return };
        let now = self.clock.now();
        self.free += 1;
        self.batcher.finish(running.number, Ran::Whole(running.took));
        for number in running.requests {
            let Some(request) = self.requests.get(number as usize) else { continue };
            let in_time = request.deadline.is_none_or(|deadline| now <= deadline);
            let (arrived, client) = (request.arrived, request.client);
            self.report.answers.push(Answered { arrived, took: now.since(arrived), in_time });
            self.come_back(client, load);
        }
    }

    fn come_back(&mut self, client: Option<usize>, load: &Load) {
        if let (Some(client), Load::Closed(clients)) = (client, load) {
            let more = clients.turnaround_spread.mul_f64(self.rng.f64());
            self.foresee(self.clock.now() + clients.turnaround + more, Event::Ask { client });
        }
    }

    /// Counts those whose time had passed before the function saw them.
    fn leave(&mut self, left: &Left) {
        self.report.expired += left.0.len() as u64;
        for number in &left.0 {
            let client = self.requests.get(*number as usize).and_then(|request| request.client);
            if let Some(client) = client {
                self.foresee(self.clock.now() + ASK_AGAIN, Event::Ask { client });
            }
        }
    }
}

/// Rows without columns, for requests of which only the cost counts.
fn no_row() -> GroupKey<()> {
    GroupKey { key: (), specs: Specs::new() }
}

/// A row of that many bytes.
fn row_of(length: u32) -> GroupKey<()> {
    let spec = ColumnSpec::Numbers { dtype: DType::UInt8, shape: std::iter::once(length as usize).collect() };
    GroupKey { key: (), specs: Specs::from_iter([spec]) }
}

fn write(rows: &mut Rows, length: usize) {
    for column in rows.columns_mut() {
        if let Column::Numbers { memory, .. } = column {
            memory.grow(length);
        }
    }
}

/// Nobody leaves by themselves; those whose time has passed are noted.
#[derive(Default)]
struct Left(Vec<u32>);

impl Attendance<u32> for Left {
    fn is_gone(&mut self, _waiter: &u32) -> bool {
        false
    }

    fn forget(&mut self, _removed: Removed<u32>) {}

    fn expire(&mut self, removed: Removed<u32>) {
        self.0.extend(removed.entries.into_iter().map(|entry| entry.waiter));
    }
}

/// Taking what is due from a heap of events.
trait Due {
    fn pop_if_due(&mut self, now: Moment) -> Option<Reverse<(Moment, u64, Event)>>;
}

impl Due for BinaryHeap<Reverse<(Moment, u64, Event)>> {
    fn pop_if_due(&mut self, now: Moment) -> Option<Reverse<(Moment, u64, Event)>> {
        let due = self.peek().is_some_and(|Reverse((moment, ..))| *moment <= now);
        if due { self.pop() } else { None }
    }
}
