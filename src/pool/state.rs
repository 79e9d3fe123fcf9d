//! Which connection serves which request: plain state, moved only by the calls here and in [`growth`](super::growth) and
//! [`sweep`](super::sweep), and by the time they are given. What is to be done outside, they answer with.

use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use super::backoff::Backoff;
use super::line::{Line, Ticket};
use super::slot::{Duty, Fit, Held, Return, Slot};
use super::stats::{Counts, Retired};
use super::{Connection, HeldLease, Place, PoolSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;

/// A place on a connection that somebody was given.
#[derive(Debug)]
pub struct Grant<C> {
    /// Its number until it is given back.
    pub lease: usize,
    /// The connection.
    pub connection: Arc<C>,
    /// True where the connection had carried a request before.
    pub reused: bool,
}

/// What the owner of the state must do.
#[derive(Debug)]
pub enum Action<C, W> {
    /// Open a connection, and say [`opened`](PoolState::opened) or [`failed`](PoolState::failed).
    Open,
    /// Give a waiter what it waited for.
    Grant(W, Grant<C>),
    /// Tell a waiter that it waits in vain.
    Refuse(W, Error),
    /// Close a connection: drop it, and say [`gone`](PoolState::gone).
    Close(Arc<C>),
    /// Check the health of a connection, and say [`checked`](PoolState::checked) with the same number.
    Check(usize, Arc<C>),
    /// Report a lease that is held for too long.
    Report(HeldLease),
}

/// What is to be done, in order. A hand-off needs no allocation.
pub type Actions<C, W> = SmallVec<[Action<C, W>; 2]>;

pub(super) struct Waiter<W> {
    pub(super) who: W,
    pub(super) place: Place,
    pub(super) arrived: Moment,
}

/// The connections to one endpoint, and those who wait for one.
pub struct PoolState<C, W> {
    pub(super) name: Arc<str>,
    pub(super) settings: PoolSettings,
    pub(super) slots: Slab<Slot<C>>,
    /// Connections that serve and have a free place, the least recently used first. The last is taken first: those that
    /// are not needed fall idle, and a shared one is filled before the next is touched.
    pub(super) free: Vec<usize>,
    pub(super) line: Line<Waiter<W>>,
    pub(super) leases: Slab<Held>,
    /// Connections that finish what they carry.
    pub(super) retiring: usize,
    /// Connections whose health is being checked.
    pub(super) checking: usize,
    pub(super) connecting: usize,
    /// Connections that are on their way to be closed: they count until they are.
    pub(super) closing: usize,
    pub(super) backoff: Backoff,
    pub(super) last_error: Option<Error>,
    /// What the next connection will carry at a time; `None` where only an open one can tell.
    pub(super) likely: Option<usize>,
    /// True once a request was served: before, no connection is opened in advance.
    pub(super) proven: bool,
    /// Connections opened in advance that the server closed before anybody used them.
    pub(super) in_vain: u32,
    pub(super) replenish_from: Moment,
    pub(super) alarm: Option<Moment>,
    pub(super) rang: bool,
    pub(super) closed: bool,
    pub(super) counts: Counts,
    pub(super) random: fastrand::Rng,
}

impl<C: Connection, W> PoolState<C, W> {
    /// A pool without connections. `name` stands in errors; `likely` is what a connection will carry at a time, as far as
    /// that is known; `seed` is what jitter is drawn from.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the settings contradict themselves.
    pub fn new(name: Arc<str>, settings: PoolSettings, likely: Option<usize>, seed: u64) -> Result<Self> {
        settings.check()?;
        Ok(Self {
            name,
            settings,
            slots: Slab::new(),
            free: Vec::new(),
            line: Line::new(),
            leases: Slab::new(),
            retiring: 0,
            checking: 0,
            connecting: 0,
            closing: 0,
            backoff: Backoff::default(),
            last_error: None,
            likely: likely.map(|capacity| capacity.max(1)),
            proven: false,
            in_vain: 0,
            replenish_from: Moment::default(),
            alarm: None,
            rang: false,
            closed: false,
            counts: Counts::new()?,
            random: fastrand::Rng::with_seed(seed),
        })
    }

    /// A place on an open connection; `None` where there is none that is free, or where others wait for one.
    pub fn take(&mut self, place: &Place, now: Moment, out: &mut Actions<C, W>) -> Option<Grant<C>> {
        if self.closed || !self.line.is_empty() {
            return None;
        }
        let at = self.pick(now, out)?;
        let grant = self.lend(at, place.clone(), now)?;
        if !grant.reused {
            // What was opened in advance was needed.
            self.in_vain = 0;
        }
        Some(grant)
    }

    /// Joins the line of those who wait. Whoever may [`take`](Self::take) must not wait.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] where the pool is closed.
    pub fn wait(&mut self, who: W, place: Place, now: Moment, out: &mut Actions<C, W>) -> Result<Ticket> {
        if self.closed {
            return Err(self.closed_error());
        }
        let ticket = self.line.join(Waiter { who, place, arrived: now });
        self.grow(now, out);
        Ok(ticket)
    }

    /// Leaves the line; `None` where the waiter was given or told something already.
    pub fn leave(&mut self, ticket: Ticket) -> Option<W> {
        let waiter = self.line.leave(ticket)?;
        self.counts.totals.cancelled += 1;
        Some(waiter.who)
    }

    /// Leaves the line because the time is up; `None` as in [`leave`](Self::leave).
    pub fn give_up(&mut self, ticket: Ticket, now: Moment) -> Option<Error> {
        let waiter = self.line.leave(ticket)?;
        self.counts.totals.timed_out += 1;
        let seconds = now.since(waiter.arrived).as_secs_f64();
        let (name, most, size) = (&self.name, self.settings.max_size, self.slots.len());
        let message = format!(
            "no connection to {name} became free within {seconds:.3} seconds: {} requests are carried by {size} \
             connections of max_size={most}, {} are being opened, {} more requests wait",
            self.leases.len(),
            self.connecting,
            self.line.len()
        );
        Some(match &self.last_error {
            Some(cause) => Error::with_source(ErrorKind::AcquireTimeout, message, cause.clone()),
            None => Error::new(ErrorKind::AcquireTimeout, message),
        })
    }

    /// Takes a lease back, and hands its place to whoever has waited longest.
    pub fn give_back(&mut self, lease: usize, how: Return, now: Moment, out: &mut Actions<C, W>) {
        let Some(at) = self.leases.try_remove(lease).map(|held| held.slot) else { return };
        let Some(slot) = self.slots.get_mut(at) else { return };
        let spent = slot.give_back(how, now);
        match (slot.duty, spent) {
            (Duty::Retiring, _) => self.remove_if_unused(at, out),
            (_, Some(reason)) => self.retire(at, reason, now, out),
            (_, None) => self.settle(at, now, out),
        }
        if !self.line.is_empty() {
            self.grow(now, out);
        }
        if !self.proven && matches!(how, Return::Reusable { .. }) {
            self.proven = true;
            self.replenish(now, out);
        }
    }

    /// Refuses everybody from here on, those who wait included, and closes what is idle. Leases go on to their end.
    pub fn close(&mut self, now: Moment, out: &mut Actions<C, W>) {
        self.closed = true;
        while let Some(waiter) = self.line.next() {
            out.push(Action::Refuse(waiter.who, self.closed_error()));
        }
        let serving = |(at, slot): (usize, &Slot<C>)| slot.serves().then_some(at);
        for at in self.slots.iter().filter_map(serving).collect::<Vec<_>>() {
            self.retire(at, Retired::Closed, now, out);
        }
    }

    /// As many connections as were to be closed are: others may take their place.
    pub fn gone(&mut self, count: usize, now: Moment, out: &mut Actions<C, W>) {
        self.closing = self.closing.saturating_sub(count);
        self.grow(now, out);
    }

    /// True once the pool is closed, every lease has ended and no connection is left.
    pub fn is_drained(&self) -> bool {
        self.closed && self.slots.is_empty() && self.connecting == 0 && self.closing == 0
    }

    pub(super) fn closed_error(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("the pool of {} is closed", self.name))
    }

    /// The connection to take next. Those that turn out to be useless are retired on the way.
    fn pick(&mut self, now: Moment, out: &mut Actions<C, W>) -> Option<usize> {
        while let Some(at) = self.first_choice() {
            match self.slots.get_mut(at).map(|slot| slot.look(now)) {
                Some(Fit::Free) => return Some(at),
                Some(Fit::Spent(reason)) => self.retire(at, reason, now, out),
                Some(Fit::Full) | None => self.unlist(at),
            }
        }
        None
    }

    /// The connection that was used last, or the one of them that carries least where requests are spread.
    fn first_choice(&self) -> Option<usize> {
        if !self.settings.spread {
            return self.free.last().copied();
        }
        let carried = |at: &&usize| self.slots.get(**at).map_or(0, |slot| slot.leased);
        self.free.iter().rev().min_by_key(carried).copied()
    }

    /// Lends a place of a connection that has one.
    fn lend(&mut self, at: usize, place: Place, now: Moment) -> Option<Grant<C>> {
        let slot = self.slots.get_mut(at)?;
        let reused = slot.uses > 0;
        slot.uses += 1;
        slot.leased += 1;
        let connection = Arc::clone(&slot.connection);
        if slot.leased >= slot.capacity {
            self.unlist(at);
        }
        let lease = self.leases.insert(Held { slot: at, place, since: now, reported: false });
        self.counts.acquired(reused);
        if let Some(limit) = self.settings.held_too_long {
            self.ring(now + limit);
        }
        Some(Grant { lease, connection, reused })
    }

    /// Hands the free places of a connection to those who wait; what is left is there to be taken.
    pub(super) fn settle(&mut self, at: usize, now: Moment, out: &mut Actions<C, W>) {
        while let Some(slot) = self.slots.get_mut(at) {
            match slot.look(now) {
                Fit::Spent(reason) => return self.retire(at, reason, now, out),
                Fit::Full => return self.unlist(at),
                Fit::Free => {}
            }
            let Some(waiter) = self.line.next() else {
                return self.list(at);
            };
            if let Some(grant) = self.lend(at, waiter.place, now) {
                self.counts.waited(now.since(waiter.arrived));
                out.push(Action::Grant(waiter.who, grant));
            }
        }
    }

    /// Gives a connection no more requests; it is closed at once where it carries none.
    pub(super) fn retire(&mut self, at: usize, reason: Retired, now: Moment, out: &mut Actions<C, W>) {
        self.unlist(at);
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.duty == Duty::Retiring {
            return;
        }
        if slot.uses == 0 && !matches!(reason, Retired::Idle | Retired::Age | Retired::Closed) {
            self.opened_in_vain(now);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            slot.duty = Duty::Retiring;
        }
        self.retiring += 1;
        self.counts.retired(reason);
        self.remove_if_unused(at, out);
    }

    fn remove_if_unused(&mut self, at: usize, out: &mut Actions<C, W>) {
        if self.slots.get(at).is_some_and(|slot| slot.leased == 0)
            && let Some(slot) = self.slots.try_remove(at)
        {
            self.retiring -= 1;
            self.discard(slot.connection, out);
        }
    }

    pub(super) fn discard(&mut self, connection: Arc<C>, out: &mut Actions<C, W>) {
        self.closing += 1;
        out.push(Action::Close(connection));
    }

    /// Puts a connection among those with a free place, by when it was used last.
    fn list(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let (used, idle, due) = (slot.last_used, slot.leased == 0, slot.due(&self.settings));
        if !std::mem::replace(&mut slot.listed, true) {
            let is_older = |other: &usize| self.slots.get(*other).is_none_or(|other| other.last_used <= used);
            if self.free.last().is_none_or(is_older) {
                self.free.push(at);
            } else {
                self.free.insert(self.free.partition_point(is_older), at);
            }
        }
        if idle {
            due.into_iter().flatten().for_each(|due| self.ring(due));
        }
    }

    pub(super) fn unlist(&mut self, at: usize) {
        let stood = |slot: &mut Slot<C>| std::mem::replace(&mut slot.listed, false);
        if !self.slots.get_mut(at).is_none_or(stood) {
            return;
        }
        if self.free.last() == Some(&at) {
            self.free.pop();
        } else if let Some(place) = self.free.iter().rposition(|other| *other == at) {
            self.free.remove(place);
        }
    }
}
