//! One open connection as a pool sees it, and one lease of it.

use std::sync::Arc;
use std::time::Duration;

use super::settings::PoolSettings;
use super::stats::Retired;
use super::{Condition, Connection, Place};
use crate::flow::Moment;

/// How long before the server would close an idle connection the pool does.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// What an open connection is for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// It takes requests, as far as it has free places.
    Serving,
    /// Its health is checked; nobody else has it.
    Checked,
    /// It finishes what it carries.
    Retiring,
}

/// What a look at a connection found.
pub(super) enum Fit {
    /// It has a free place.
    Free,
    /// It carries as much as it can.
    Full,
    /// It must take no more.
    Spent(Retired),
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// The exchange is over and the connection as good as before.
    Reusable {
        /// How long the server said it keeps an idle connection.
        keep_alive: Option<Duration>,
    },
    /// The exchange is over, and so is the connection: it takes no more requests.
    Spent,
    /// Nobody knows what state it is in. One that is not shared must be closed.
    Dropped,
    /// Nobody touched it: the grant came too late.
    Untouched,
}

/// A lease that has not ended.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) slot: usize,
    pub(super) place: Place,
    pub(super) since: Moment,
    pub(super) reported: bool,
}

/// An open connection.
pub(super) struct Slot<C> {
    pub(super) connection: Arc<C>,
    pub(super) duty: Duty,
    /// Requests that it can carry, as last seen.
    pub(super) capacity: usize,
    /// Requests that it carries.
    pub(super) leased: usize,
    /// True where it stands among those with a free place.
    pub(super) listed: bool,
    /// True where it carries one request, and no other after it.
    once: bool,
    /// True once it could carry several: one that broke off does then not speak for the others.
    shared: bool,
    /// Requests that it has carried.
    pub(super) uses: u64,
    /// When it last carried one; the beginning of time before the first.
    pub(super) last_used: Moment,
    pub(super) idle_since: Moment,
    /// When a request or a check last showed that it works.
    pub(super) proved: Moment,
    expires: Option<Moment>,
    /// What the server said it keeps an idle connection for, less a margin.
    keep_alive: Option<Duration>,
}

impl<C: Connection> Slot<C> {
    pub(super) fn new(connection: Arc<C>, expires: Option<Moment>, once: bool, now: Moment) -> Self {
        let capacity = if once { 1 } else { connection.capacity() };
        Self {
            connection,
            duty: Duty::Serving,
            capacity,
            leased: 0,
            listed: false,
            once,
            shared: capacity > 1,
            uses: 0,
            last_used: Moment::default(),
            idle_since: now,
            proved: now,
            expires,
            keep_alive: None,
        }
    }

    /// True where it could take a request if it has a place.
    pub(super) fn serves(&self) -> bool {
        self.duty == Duty::Serving
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    pub(super) fn is_idle(&self) -> bool {
        self.leased == 0 && self.serves()
    }

    pub(super) fn look(&mut self, now: Moment) -> Fit {
        self.capacity = if self.once { 1 } else { self.connection.capacity() };
        self.shared |= self.capacity > 1;
        if self.leased > 0 && self.leased >= self.capacity {
            return Fit::Full;
        }
        match self.connection.condition() {
            Condition::Closed => return Fit::Spent(Retired::Broken),
            Condition::Draining => return Fit::Spent(Retired::Draining),
            Condition::Usable => {}
        }
        if self.expires.is_some_and(|end| end <= now) {
            return Fit::Spent(Retired::Age);
        }
        if self.leased == 0 && self.keep_until().is_some_and(|end| end <= now) {
            return Fit::Spent(Retired::KeepAlive);
        }
        if self.leased < self.capacity { Fit::Free } else { Fit::Full }
    }

    /// Takes a lease's place back; answers why the connection must take no more, where it must not.
    pub(super) fn give_back(&mut self, how: Return, now: Moment) -> Option<Retired> {
        self.leased = self.leased.saturating_sub(1);
        if self.leased == 0 {
            self.idle_since = now;
        }
        match how {
            Return::Untouched => None,
            Return::Reusable { .. } if self.once => Some(Retired::Spent),
            Return::Reusable { keep_alive } => {
                self.last_used = now;
                self.proved = now;
                if let Some(hint) = keep_alive {
                    self.keep_alive = Some(hint.saturating_sub(KEEP_ALIVE_MARGIN.min(hint / 2)));
                }
                None
            }
            Return::Spent => Some(Retired::Spent),
            Return::Dropped if self.shared => None,
            Return::Dropped => Some(Retired::Abandoned),
        }
    }

    /// The next moments at which an idle connection needs to be looked at.
    pub(super) fn due(&self, settings: &PoolSettings) -> [Option<Moment>; 4] {
        [
            settings.idle_timeout.map(|limit| self.idle_since + limit),
            settings.unproved().map(|limit| self.proved + limit),
            self.keep_until(),
            self.expires,
        ]
    }

    fn keep_until(&self) -> Option<Moment> {
        self.keep_alive.map(|limit| self.idle_since + limit)
    }
}
