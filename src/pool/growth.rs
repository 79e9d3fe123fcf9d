//! When a connection is opened: as many as those who wait need, and a few in advance.

use std::sync::Arc;
use std::time::Duration;

use super::Connection;
use super::slot::Slot;
use super::state::{Action, Actions, PoolState};
use crate::error::{Error, ErrorKind};
use crate::flow::Moment;

/// The pause after a connection was opened in advance for nothing, doubled each time up to the longest.
const IN_VAIN_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_IN_VAIN_PAUSE: Duration = Duration::from_mins(5);
/// At most this share of `max_age` is left out.
const AGE_JITTER: f64 = 0.1;

impl<C: Connection, W> PoolState<C, W> {
    /// Connections that are open, being opened or about to be closed.
    pub fn size(&self) -> usize {
        self.slots.len() + self.connecting + self.closing
    }

    /// Connections that are open and take requests.
    pub(super) fn serving(&self) -> usize {
        self.slots.len() - self.retiring
    }

    /// A connection was opened: it goes to those who wait.
    pub fn opened(&mut self, connection: C, now: Moment, out: &mut Actions<C, W>) {
        if connection.condition() != super::Condition::Usable && !self.closed {
            let message = format!("{} closed a connection as soon as it was open", self.name);
            self.discard(Arc::new(connection), out);
            return self.failed(Error::new(ErrorKind::ConnectFailed, message), now, out);
        }
        self.connecting = self.connecting.saturating_sub(1);
        self.counts.totals.created += 1;
        let connection = Arc::new(connection);
        if self.closed {
            self.discard(connection, out);
            return;
        }
        self.backoff.succeed();
        self.last_error = None;
        let jitter = 1.0 - AGE_JITTER * self.random.f64();
        let expires = self.settings.max_age.map(|age| now + age.mul_f64(jitter));
        let slot = Slot::new(connection, expires, !self.settings.reuse, now);
        self.likely = Some(slot.capacity.max(1));
        let at = self.slots.insert(slot);
        self.settle(at, now, out);
        self.grow(now, out);
        self.replenish(now, out);
    }

    /// A connection could not be opened. Where none is left to wait for, everybody is told why at once.
    pub fn failed(&mut self, error: Error, now: Moment, out: &mut Actions<C, W>) {
        self.connecting = self.connecting.saturating_sub(1);
        if self.closed {
            return;
        }
        self.counts.totals.failed += 1;
        self.backoff.fail(now, &mut self.random);
        if self.serving() == 0 && self.connecting == 0 {
            while let Some(waiter) = self.line.next() {
                self.counts.totals.refused += 1;
                out.push(Action::Refuse(waiter.who, error.clone()));
            }
        }
        self.last_error = Some(error);
        self.grow(now, out);
        self.replenish(now, out);
    }

    /// Opens what those who wait need and nobody opens yet.
    pub(super) fn grow(&mut self, now: Moment, out: &mut Actions<C, W>) {
        let wanted = self.wanted(now);
        while !self.closed && self.connecting < wanted && self.size() < self.settings.max_size {
            self.connecting += 1;
            out.push(Action::Open);
        }
    }

    /// Connects that should be under way for those who wait.
    fn wanted(&mut self, now: Moment) -> usize {
        if self.line.is_empty() {
            return 0;
        }
        if self.backoff.is_failing() {
            // With none open each request may ask for one attempt, so that an endpoint that came back is found at once.
            let pause = self.serving() > 0 && now < self.backoff.until();
            if pause {
                self.ring(self.backoff.until());
            }
            return usize::from(!pause);
        }
        self.likely.map_or(1, |capacity| self.line.len().div_ceil(capacity))
    }

    /// Opens one connection in advance where the open ones carry less than `min_size`.
    pub(super) fn replenish(&mut self, now: Moment, out: &mut Actions<C, W>) {
        let idle = !self.proven || self.closed || self.connecting > 0;
        if idle || self.size() >= self.settings.max_size || self.places() >= self.settings.min_size {
            return;
        }
        let from = self.replenish_from.max(self.backoff.until());
        if now < from {
            self.ring(from);
        } else {
            self.connecting += 1;
            out.push(Action::Open);
        }
    }

    /// Requests that the open connections can carry together, or how many connections that is where these count.
    pub(super) fn places(&self) -> usize {
        let serving = self.slots.iter().filter(|(_, slot)| slot.duty != super::slot::Duty::Retiring);
        serving.map(|(_, slot)| self.weight(slot)).sum()
    }

    /// What a connection counts for where `min_size` is asked for.
    pub(super) fn weight(&self, slot: &Slot<C>) -> usize {
        if self.settings.spread { 1 } else { slot.capacity.max(1) }
    }

    /// A server that closes what nobody used is asked less and less often.
    pub(super) fn opened_in_vain(&mut self, now: Moment) {
        let pause = IN_VAIN_PAUSE.saturating_mul(1 << self.in_vain.min(16)).min(LONGEST_IN_VAIN_PAUSE);
        self.in_vain = self.in_vain.saturating_add(1);
        self.replenish_from = now + pause;
    }

    /// Refuses or serves what may have changed from outside: capacities and conditions.
    pub fn look_again(&mut self, now: Moment, out: &mut Actions<C, W>) {
        let serving = self.slots.iter().filter_map(|(at, slot)| slot.serves().then_some(at));
        for at in serving.collect::<Vec<_>>() {
            self.settle(at, now, out);
        }
        self.grow(now, out);
        self.replenish(now, out);
    }
}
