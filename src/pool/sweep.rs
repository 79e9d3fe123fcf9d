//! What time brings: idle connections end or are checked, long leases are reported, and when to look next.

use std::cmp::Reverse;
use std::sync::Arc;

use super::slot::{Duty, Slot};
use super::state::{Action, Actions, PoolState};
use super::stats::{HELD_SHOWN, Retired};
use super::{Connection, Explanation, HeldLease, Obstacle, PoolStats};
use crate::flow::Moment;

/// At most one in this many connections is checked at a time, so that the others are there for requests.
const CHECKED_OF: usize = 4;

impl<C: Connection, W> PoolState<C, W> {
    /// The next moment at which [`sweep`](Self::sweep) has something to do.
    pub fn due(&self) -> Option<Moment> {
        self.alarm
    }

    /// True where that moment was brought forward since somebody last asked.
    pub fn rang(&mut self) -> bool {
        std::mem::take(&mut self.rang)
    }

    /// Does what is due.
    pub fn sweep(&mut self, now: Moment, out: &mut Actions<C, W>) {
        if !self.closed {
            self.look_again(now, out);
            self.trim(now, out);
            self.check(now, out);
            self.report(now, out);
        }
        self.set_alarm(now);
        self.grow(now, out);
        self.replenish(now, out);
        self.rang = false;
    }

    /// A health check ended; the connection goes to those who wait, or away.
    pub fn checked(&mut self, at: usize, healthy: bool, now: Moment, out: &mut Actions<C, W>) {
        let Some(slot) = self.slots.get_mut(at).filter(|slot| slot.duty == Duty::Checked) else { return };
        slot.duty = Duty::Serving;
        slot.proved = now;
        self.checking -= 1;
        let count = if healthy {
            &mut self.counts.totals.checks_passed
        } else {
            &mut self.counts.totals.checks_failed
        };
        *count += 1;
        match (healthy, self.closed) {
            (false, _) => self.retire(at, Retired::Health, now, out),
            (true, true) => self.retire(at, Retired::Closed, now, out),
            (true, false) => self.settle(at, now, out),
        }
        self.grow(now, out);
        // Others may have had to wait for this one to be done.
        self.ring(now);
    }

    /// Looks at the pool no later than `due`.
    pub(super) fn ring(&mut self, due: Moment) {
        if self.alarm.is_none_or(|alarm| due < alarm) {
            self.alarm = Some(due);
            self.rang = true;
        }
    }

    /// Closes what has been idle for long, the least recently used first, down to `min_size`.
    fn trim(&mut self, now: Moment, out: &mut Actions<C, W>) {
        let Some(limit) = self.settings.idle_timeout else { return };
        let mut places = self.places();
        let long_idle = |slot: &Slot<C>| slot.is_idle() && slot.idle_since + limit <= now;
        let found = self.free.iter().filter_map(|at| Some((*at, self.slots.get(*at)?)));
        let found: Vec<_> =
            found.filter(|(_, slot)| long_idle(slot)).map(|(at, slot)| (at, self.weight(slot))).collect();
        for (at, weight) in found {
            if places >= self.settings.min_size.saturating_add(weight) {
                places -= weight;
                self.retire(at, Retired::Idle, now, out);
            }
        }
    }

    /// Checks idle connections that nothing has proved for long, the least recently used first.
    fn check(&mut self, now: Moment, out: &mut Actions<C, W>) {
        let Some(limit) = self.settings.unproved() else { return };
        let most = self.serving().div_ceil(CHECKED_OF);
        let unproved =
            |at: &usize| self.slots.get(*at).is_some_and(|slot| slot.is_idle() && slot.proved + limit <= now);
        let room = most.saturating_sub(self.checking);
        let found: Vec<_> = self.free.iter().copied().filter(unproved).take(room).collect();
        for at in found {
            self.unlist(at);
            if let Some(slot) = self.slots.get_mut(at) {
                slot.duty = Duty::Checked;
                self.checking += 1;
                out.push(Action::Check(at, Arc::clone(&slot.connection)));
            }
        }
    }

    /// Reports leases that are held for long, each once.
    fn report(&mut self, now: Moment, out: &mut Actions<C, W>) {
        let Some(limit) = self.settings.held_too_long else { return };
        for (_, held) in &mut self.leases {
            if !held.reported && held.since + limit <= now {
                held.reported = true;
                self.counts.totals.held_too_long += 1;
                let lease = HeldLease { place: held.place.clone(), age: now.since(held.since) };
                out.push(Action::Report(lease));
            }
        }
    }

    /// What is due by now was done, or waits for something else than time.
    fn set_alarm(&mut self, now: Moment) {
        self.alarm = None;
        if self.closed {
            return;
        }
        let idle = self.slots.iter().filter(|(_, slot)| slot.is_idle());
        let idle = idle.flat_map(|(_, slot)| slot.due(&self.settings)).flatten();
        let held = self.settings.held_too_long.into_iter().flat_map(|limit| {
            let unreported = self.leases.iter().filter(|(_, held)| !held.reported);
            unreported.map(move |(_, held)| held.since + limit)
        });
        if let Some(due) = idle.chain(held).filter(|due| *due > now).min() {
            self.ring(due);
        }
    }

    /// The numbers. How long leases were waited for, [`waits`](Self::waits) tells.
    pub(super) fn stats(&self) -> PoolStats {
        let count = |is: fn(&Slot<C>) -> bool| self.slots.iter().filter(|(_, slot)| is(slot)).count();
        PoolStats {
            size: self.slots.len(),
            idle: count(Slot::is_idle),
            in_use: count(|slot| slot.leased > 0),
            leases: self.leases.len(),
            waiting: self.line.len(),
            connecting: self.connecting,
            ..self.counts.totals.clone()
        }
    }

    /// Why requests wait, and who holds the connections.
    pub fn explain(&self, now: Moment) -> Explanation {
        let mut leases: Vec<_> = self.leases.iter().map(|(_, held)| held).collect();
        leases.sort_by_key(|held| Reverse(now.since(held.since)));
        let shown = leases.into_iter().take(HELD_SHOWN);
        let held = shown.map(|held| HeldLease { place: held.place.clone(), age: now.since(held.since) });
        let pause = self.backoff.until().since(now);
        Explanation {
            obstacle: self.obstacle(now),
            waiting: self.line.len(),
            oldest: self.line.first().map(|waiter| now.since(waiter.arrived)),
            last_error: self.last_error.clone(),
            retry_in: (self.backoff.is_failing() && !pause.is_zero()).then_some(pause),
            held: held.collect(),
        }
    }

    fn obstacle(&self, now: Moment) -> Option<Obstacle> {
        if self.closed {
            return Some(Obstacle::Closed);
        }
        if !self.free.is_empty() {
            return None;
        }
        if self.connecting > 0 {
            return Some(Obstacle::Connecting);
        }
        if self.size() >= self.settings.max_size {
            let checked = self.checking > 0 && self.checking == self.serving();
            let shared = self.slots.iter().any(|(_, slot)| slot.is_shared());
            return Some(match (checked, shared) {
                (true, _) => Obstacle::Checking,
                (_, true) => Obstacle::StreamsFull,
                _ => Obstacle::AtMax,
            });
        }
        let pause = self.backoff.is_failing() && self.serving() > 0 && now < self.backoff.until();
        pause.then_some(Obstacle::BackingOff)
    }
}
