//! A [`PoolState`] and everything that it has asked for: after every step it must keep what it promises, as seen from outside.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::line::Ticket;
use super::super::slot::{Duty, Fit, Slot};
use super::super::{Action, Actions, Grant, HeldLease, Place, PoolSettings, PoolState, Return};
use super::fake::{Fake, Peer};
use crate::error::{Error, ErrorKind};
use crate::flow::{Clock, Moment, VirtualClock};

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Acquire,
    GiveBack { which: usize, how: Return },
    Leave { which: usize },
    GiveUp { which: usize },
    Opened { capacity: usize, broken: bool },
    Failed,
    Checked { which: usize, healthy: bool },
    Advance(Duration),
    Break { which: usize, drain: bool },
    Capacity { which: usize, capacity: usize },
    Close,
}

/// The state, and beside it everything that it has asked for.
pub(super) struct World {
    pub(super) clock: VirtualClock,
    pub(super) state: PoolState<Fake, usize>,
    pub(super) connecting: usize,
    /// Those in line, the first first.
    pub(super) waiting: VecDeque<(usize, Ticket)>,
    /// Leases and the connections that they are of.
    pub(super) leases: BTreeMap<usize, Arc<Peer>>,
    pub(super) open: BTreeMap<usize, Arc<Peer>>,
    pub(super) checks: Vec<(usize, Arc<Peer>)>,
    pub(super) requests: usize,
    pub(super) connections: usize,
    pub(super) reports: Vec<HeldLease>,
    pub(super) refused: Vec<Error>,
    pub(super) closed: bool,
}

impl World {
    pub(super) fn new(settings: PoolSettings, likely: Option<usize>) -> Self {
        Self {
            clock: VirtualClock::new(),
            state: PoolState::new("test".into(), settings, likely, 7).unwrap(),
            connecting: 0,
            waiting: VecDeque::new(),
            leases: BTreeMap::new(),
            open: BTreeMap::new(),
            checks: Vec::new(),
            requests: 0,
            connections: 0,
            reports: Vec::new(),
            refused: Vec::new(),
            closed: false,
        }
    }

    pub(super) fn act<R>(
        &mut self,
        act: impl FnOnce(&mut PoolState<Fake, usize>, Moment, &mut Actions<Fake, usize>) -> R,
    ) -> R {
        let mut out = Actions::new();
        let answer = act(&mut self.state, self.clock.now(), &mut out);
        self.carry_out_all(out);
        answer
    }

    pub(super) fn carry_out_all(&mut self, mut out: Actions<Fake, usize>) {
        while !out.is_empty() {
            // What is to be closed is open until it is said to be gone.
            let opens = out.iter().filter(|action| matches!(action, Action::Open)).count();
            let most = self.state.settings.max_size;
            assert!(
                self.open.len() + self.connecting + opens <= most,
                "more than max_size={most} connections"
            );
            let closed = out.iter().filter(|action| matches!(action, Action::Close(_))).count();
            out.into_iter().for_each(|action| self.carry_out(action));
            out = Actions::new();
            if closed > 0 {
                self.state.gone(closed, self.clock.now(), &mut out);
            }
        }
    }

    pub(super) fn carry_out(&mut self, action: Action<Fake, usize>) {
        match action {
            Action::Open => {
                self.connecting += 1;
                let needed = self.waiting.len().max(1);
                assert!(self.connecting <= needed, "{} connects for {needed}", self.connecting);
            }
            Action::Grant(who, grant) => {
                let (first, _) = self.waiting.pop_front().expect("nobody waits");
                assert_eq!(who, first, "served out of turn");
                self.lent(&grant);
            }
            Action::Refuse(who, error) => {
                let (first, _) = self.waiting.pop_front().expect("nobody waits");
                assert_eq!(who, first);
                let kind = if self.closed { ErrorKind::Closed } else { ErrorKind::ConnectFailed };
                assert_eq!(error.kind(), kind);
                self.refused.push(error);
            }
            Action::Close(connection) => {
                let number = connection.0.number;
                assert!(self.leases.values().all(|lent| lent.number != number), "closed in use");
                assert!(self.checks.iter().all(|(_, peer)| peer.number != number), "closed in a check");
                self.open.remove(&number);
            }
            Action::Check(at, connection) => {
                let number = connection.0.number;
                assert!(self.leases.values().all(|lent| lent.number != number), "checked in use");
                self.checks.push((at, Arc::clone(&connection.0)));
            }
            Action::Report(lease) => self.reports.push(lease),
        }
    }

    pub(super) fn lent(&mut self, grant: &Grant<Fake>) {
        let peer = Arc::clone(&grant.connection.0);
        let carried = 1 + self.leases.values().filter(|lent| lent.number == peer.number).count();
        assert!(carried <= peer.capacity(), "{carried} requests on a connection for {}", peer.capacity());
        assert!(self.checks.iter().all(|(_, checked)| checked.number != peer.number), "lent in a check");
        assert!(self.leases.insert(grant.lease, peer).is_none(), "a lease was given twice");
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Acquire => self.acquire(),
            Step::GiveBack { which, how } => self.give_back(which, how),
            Step::Leave { which } if which < self.waiting.len() => {
                let (who, ticket) = self.waiting.remove(which).unwrap();
                assert_eq!(self.state.leave(ticket), Some(who));
                assert_eq!(self.state.leave(ticket), None);
            }
            Step::GiveUp { which } if which < self.waiting.len() => {
                let (_, ticket) = self.waiting.remove(which).unwrap();
                let error = self.state.give_up(ticket, self.clock.now()).unwrap();
                assert_eq!(error.kind(), ErrorKind::AcquireTimeout);
            }
            Step::Opened { capacity, broken } if self.connecting > 0 => self.opened(capacity, broken),
            Step::Failed if self.connecting > 0 => self.failed(),
            Step::Checked { which, healthy } if which < self.checks.len() => {
                let (at, _) = self.checks.remove(which);
                self.act(|state, now, out| state.checked(at, healthy, now, out));
            }
            Step::Advance(by) => self.clock.advance(by),
            Step::Break { which, drain } => {
                if let Some(peer) = self.open.values().nth(which) {
                    if drain { peer.drain() } else { peer.close() }
                }
                self.act(PoolState::look_again);
            }
            Step::Capacity { which, capacity } => {
                if let Some(peer) = self.open.values().nth(which) {
                    peer.set_capacity(capacity);
                }
                self.act(PoolState::look_again);
            }
            Step::Close => {
                self.closed = true;
                self.act(PoolState::close);
            }
            _ => {}
        }
        self.maintain();
        self.agree();
    }

    pub(super) fn acquire(&mut self) {
        let who = self.requests;
        self.requests += 1;
        if let Some(grant) = self.act(|state, now, out| state.take(&Place::Unknown, now, out)) {
            assert!(self.waiting.is_empty() && !self.closed, "somebody pushed in");
            self.lent(&grant);
            return;
        }
        let mut out = Actions::new();
        match self.state.wait(who, Place::Unknown, self.clock.now(), &mut out) {
            Ok(ticket) => self.waiting.push_back((who, ticket)),
            Err(error) => assert!(self.closed && error.kind() == ErrorKind::Closed),
        }
        self.carry_out_all(out);
    }

    pub(super) fn give_back(&mut self, which: usize, how: Return) {
        let Some(lease) = self.leases.keys().nth(which).copied() else { return };
        self.leases.remove(&lease);
        self.act(|state, now, out| state.give_back(lease, how, now, out));
    }

    pub(super) fn opened(&mut self, capacity: usize, broken: bool) {
        self.connecting -= 1;
        let peer = Peer::new(self.connections, capacity);
        self.connections += 1;
        if broken {
            peer.close();
        } else {
            self.open.insert(peer.number, Arc::clone(&peer));
        }
        self.act(|state, now, out| state.opened(Fake(peer), now, out));
    }

    pub(super) fn failed(&mut self) {
        self.connecting -= 1;
        let error = Error::new(ErrorKind::ConnectFailed, "refused");
        self.act(|state, now, out| state.failed(error, now, out));
    }

    /// As the owner's task does; it must come to rest.
    pub(super) fn maintain(&mut self) {
        for _ in 0..10 {
            self.state.rang();
            if self.state.due().is_none_or(|due| due > self.clock.now()) {
                return;
            }
            self.act(PoolState::sweep);
        }
        panic!("the alarm never ends");
    }

    pub(super) fn agree(&mut self) {
        let now = self.clock.now();
        let state = &mut self.state;
        assert_eq!((state.connecting, state.line.len()), (self.connecting, self.waiting.len()));
        assert_eq!((state.leases.len(), state.slots.len()), (self.leases.len(), self.open.len()));
        assert!(state.size() <= state.settings.max_size && state.closing == 0);
        let count = |duty| state.slots.iter().filter(|(_, slot)| slot.duty == duty).count();
        assert_eq!((count(Duty::Retiring), count(Duty::Checked)), (state.retiring, state.checking));
        assert_eq!(state.checking, self.checks.len());
        let listed = state.slots.iter().filter(|(_, slot)| slot.listed).count();
        assert_eq!(listed, state.free.len());
        assert!(state.free.iter().all(|at| state.slots[*at].listed && state.slots[*at].serves()));
        if !self.waiting.is_empty() {
            let free = |slot: &mut Slot<Fake>| slot.serves() && matches!(slot.look(now), Fit::Free);
            assert!(
                !state.slots.iter_mut().any(|(_, slot)| free(slot)),
                "somebody waits beside a free place"
            );
            let full = state.size() >= state.settings.max_size;
            let pause = state.backoff.is_failing() && state.serving() > 0 && state.due().is_some();
            assert!(state.connecting > 0 || full || pause, "nobody opens a connection for those who wait");
        }
        let numbers = state.stats();
        let retired: u64 = numbers.retired.iter().sum();
        let gone = numbers.created - u64::try_from(numbers.size).unwrap();
        let retiring = u64::try_from(state.retiring).unwrap();
        assert!(self.closed || retired == gone + retiring, "{numbers:?}");
        assert_eq!(numbers.idle + numbers.in_use, numbers.size - state.checking, "{numbers:?}");
    }

    /// Ends everything that is under way.
    pub(super) fn end(&mut self) {
        self.step(Step::Close);
        while self.connecting > 0 {
            self.step(Step::Failed);
        }
        while !self.checks.is_empty() {
            self.step(Step::Checked { which: 0, healthy: true });
        }
        while !self.leases.is_empty() {
            assert!(!self.state.is_drained());
            self.step(Step::GiveBack { which: 0, how: Return::Reusable { keep_alive: None } });
        }
        assert!(self.state.is_drained() && self.open.is_empty() && self.waiting.is_empty());
    }
}
