//! The owner of a [`PoolState`]: it holds the lock and the clock, opens and checks connections in tasks of its own, and
//! wakes those who wait.

use std::sync::Arc;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::lease::Lease;
use super::slot::Return;
use super::state::{Action, Actions, Grant, PoolState};
use super::stats::{Explanation, HeldLease, PoolStats};
use super::tasks::{Attempt, Check, maintain};
use super::waiting::{Answer, Waiting};
use super::{Connector, Place, PoolSettings};
use crate::error::Result;
use crate::flow::Moment;

type State<C> = PoolState<<C as Connector>::Connection, Answer<C>>;
type Steps<C> = Actions<<C as Connector>::Connection, Answer<C>>;

/// How far a pool is with its closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
    Drained,
}

/// The connections to one endpoint. Cheap to clone; the last clone to go closes it.
///
/// It may be made and asked on any thread. [`acquire`](Self::acquire) is awaited on a tokio runtime with a timer.
pub struct Pool<C: Connector> {
    guard: Arc<Guard<C>>,
}

/// Closes the pool when nobody can ask it any more; leases and tasks know the inside alone.
struct Guard<C: Connector>(Arc<Inside<C>>);

/// What leases and the pool's own tasks share with it.
pub(super) struct Inside<C: Connector> {
    state: Mutex<State<C>>,
    pub(super) name: Arc<str>,
    pub(super) settings: PoolSettings,
    pub(super) connector: C,
    runtime: Handle,
    beginning: Instant,
    phase: watch::Sender<Phase>,
    alarm: Arc<Notify>,
}

impl<C: Connector> Pool<C> {
    /// A pool without connections. `name` says where they lead, for errors and events; its tasks run on `runtime`.
    ///
    /// # Errors
    /// [`Config`](crate::error::ErrorKind::Config) where the settings contradict themselves.
    pub fn new(
        name: impl Into<Arc<str>>,
        connector: C,
        settings: PoolSettings,
        runtime: &Handle,
    ) -> Result<Self> {
        let name = name.into();
        let likely = connector.likely_capacity();
        let state = PoolState::new(Arc::clone(&name), settings.clone(), likely, fastrand::u64(..))?;
        let inside = Arc::new(Inside {
            state: Mutex::new(state),
            name,
            settings,
            connector,
            runtime: runtime.clone(),
            beginning: Instant::now(),
            phase: watch::channel(Phase::Open).0,
            alarm: Arc::new(Notify::new()),
        });
        drop(runtime.spawn(maintain(Arc::downgrade(&inside), Arc::clone(&inside.alarm))));
        Ok(Self { guard: Arc::new(Guard(inside)) })
    }

    /// A connection, where one is free and nobody waits.
    pub fn try_acquire(&self, place: &Place) -> Option<Lease<C>> {
        let inside = self.inside();
        let grant = inside.step(|state, now, out| state.take(place, now, out))?;
        Some(Lease::new(Arc::clone(inside), grant).handed_over())
    }

    /// A connection, as soon as one is free for whoever asks: first come, first served. It ends with the wait at the
    /// earlier of `acquire_timeout` and `until`. Where it is dropped while it waits, what it was given meanwhile goes to
    /// the next.
    ///
    /// # Errors
    /// [`AcquireTimeout`](crate::error::ErrorKind::AcquireTimeout) where the time is up,
    /// [`Closed`](crate::error::ErrorKind::Closed) where the pool is closed, and the error of the connector where it can
    /// open no connection and none is open.
    pub async fn acquire(&self, until: Option<Instant>, place: Place) -> Result<Lease<C>> {
        let inside = self.inside();
        let entered = inside.step(|state, now, out| {
            if let Some(grant) = state.take(&place, now, out) {
                return Ok(Entered::Served(grant));
            }
            let (answer, answered) = oneshot::channel();
            let ticket = state.wait(answer, place, now, out)?;
            Ok(Entered::InLine(ticket, answered))
        })?;
        match entered {
            Entered::Served(grant) => Ok(Lease::new(Arc::clone(inside), grant).handed_over()),
            Entered::InLine(ticket, answered) => {
                let limit = inside.settings.acquire_timeout.map(|limit| Instant::now() + limit);
                let until = until.into_iter().chain(limit).min();
                Waiting::new(Arc::clone(inside), ticket, answered).until(until).await
            }
        }
    }

    /// Where the connections lead.
    pub fn name(&self) -> &str {
        &self.inside().name
    }

    /// The settings in force.
    pub fn settings(&self) -> &PoolSettings {
        &self.inside().settings
    }

    /// What opens connections.
    pub fn connector(&self) -> &C {
        &self.inside().connector
    }

    /// The numbers.
    pub fn stats(&self) -> PoolStats {
        let (stats, waits) = {
            let state = self.inside().state.lock();
            (state.stats(), state.counts.waits())
        };
        stats.with_waits(&waits)
    }

    /// How long each lease was waited for, in microseconds; zero where it was had at once.
    pub fn waits(&self) -> Histogram<u64> {
        self.inside().state.lock().counts.waits()
    }

    /// Why requests wait, and who holds the connections.
    pub fn explain(&self) -> Explanation {
        let now = self.inside().now();
        self.inside().state.lock().explain(now)
    }

    /// Looks at every connection's capacity and condition, for whoever knows that one has changed.
    pub fn look_again(&self) {
        self.inside().step(PoolState::look_again);
    }

    /// Refuses everybody from here on, those who wait included, and closes what is idle. Leases go on to their end.
    pub fn close(&self) {
        self.inside().close();
    }

    /// True once closing has begun.
    pub fn is_closed(&self) -> bool {
        self.inside().is_closed()
    }

    /// Waits until the pool is closed and every lease has ended.
    pub async fn closed(&self) {
        let mut phase = self.inside().phase.subscribe();
        // Its sender is inside the pool that this borrows.
        let _ = phase.wait_for(|phase| *phase == Phase::Drained).await;
    }

    fn inside(&self) -> &Arc<Inside<C>> {
        &self.guard.0
    }
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { guard: Arc::clone(&self.guard) }
    }
}

impl<C: Connector> Drop for Guard<C> {
    fn drop(&mut self) {
        self.0.close();
    }
}

enum Entered<C: Connector> {
    Served(Grant<C::Connection>),
    InLine(super::line::Ticket, oneshot::Receiver<Result<Lease<C>>>),
}

impl<C: Connector> Inside<C> {
    /// Moves the state, then does what it asks for without its lock.
    pub(super) fn step<R>(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut State<C>, Moment, &mut Steps<C>) -> R,
    ) -> R {
        let (answer, mut out, mut drained) = self.decide(decide);
        while !out.is_empty() {
            // A loop, for whoever is next may have left as well.
            let late = self.carry_out(out);
            ((), out, drained) = self.decide(|state, now, out| {
                late.into_iter().for_each(|lease| state.give_back(lease, Return::Untouched, now, out));
            });
        }
        if drained {
            self.phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Drained) != Phase::Drained);
        }
        answer
    }

    /// Reads the state, or moves it where nothing follows from that.
    pub(super) fn look<R>(&self, read: impl FnOnce(&mut State<C>, Moment) -> R) -> R {
        let now = self.now();
        read(&mut self.state.lock(), now)
    }

    /// The instant that `moment` stands for, for timers.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.beginning + moment.since(Moment::default())
    }

    /// Ends when the pool is closed.
    pub(super) async fn closing(&self) {
        let mut phase = self.phase.subscribe();
        // What it answers with holds a lock, and the sender is here.
        drop(phase.wait_for(|phase| *phase != Phase::Open).await);
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.phase.borrow() != Phase::Open
    }

    fn close(self: &Arc<Self>) {
        self.phase.send_if_modified(|phase| {
            let open = *phase == Phase::Open;
            if open {
                *phase = Phase::Closing;
            }
            open
        });
        self.step(PoolState::close);
        self.alarm.notify_one();
    }

    fn now(&self) -> Moment {
        Moment::from_nanos(u64::try_from(self.beginning.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn decide<R>(
        &self,
        decide: impl FnOnce(&mut State<C>, Moment, &mut Steps<C>) -> R,
    ) -> (R, Steps<C>, bool) {
        let now = self.now();
        let mut out = Actions::new();
        let mut state = self.state.lock();
        let answer = decide(&mut state, now, &mut out);
        let (rang, drained) = (state.rang(), state.is_drained());
        drop(state);
        if rang {
            self.alarm.notify_one();
        }
        (answer, out, drained)
    }

    /// Does what the state asked for; answers with the leases whose waiters left while they were on their way.
    fn carry_out(self: &Arc<Self>, out: Steps<C>) -> SmallVec<[usize; 2]> {
        let mut late = SmallVec::new();
        for action in out {
            match action {
                Action::Open => drop(self.runtime.spawn(Attempt::new(Arc::clone(self)).run())),
                Action::Grant(answer, grant) => {
                    if let Err(Ok(lease)) = answer.send(Ok(Lease::new(Arc::clone(self), grant))) {
                        late.push(lease.recall());
                    }
                }
                // One who left needs no telling.
                Action::Refuse(answer, error) => drop(answer.send(Err(error))),
                Action::Close(connection) => drop(connection),
                Action::Check(at, connection) => {
                    drop(self.runtime.spawn(Check::new(Arc::clone(self), at, connection).run()));
                }
                Action::Report(lease) => self.report(&lease),
            }
        }
        late
    }

    fn report(&self, lease: &HeldLease) {
        tracing::warn!(
            target: "penstock::pool",
            endpoint = &*self.name,
            place = %lease.place,
            seconds = lease.age.as_secs_f64(),
            "a connection has been held for longer than held_too_long"
        );
    }
}
