//! What the state decides, on virtual time.

use std::time::Duration;

use super::super::{Obstacle, PoolSettings, Retired, Return};
use super::world::{Step, World};
use crate::error::ErrorKind;

const REUSABLE: Return = Return::Reusable { keep_alive: None };

fn seconds(seconds: f64) -> Step {
    Step::Advance(Duration::from_secs_f64(seconds))
}

fn give_back(which: usize) -> Step {
    Step::GiveBack { which, how: REUSABLE }
}

fn opened(capacity: usize) -> Step {
    Step::Opened { capacity, broken: false }
}

fn settings(min_size: usize, max_size: usize) -> PoolSettings {
    PoolSettings { min_size, max_size, ..PoolSettings::default() }
}

impl World {
    fn steps(&mut self, steps: impl IntoIterator<Item = Step>) {
        steps.into_iter().for_each(|step| self.step(step));
    }

    /// As many connections, all of them used once and idle.
    fn with_idle(settings: PoolSettings, count: usize) -> Self {
        let mut world = Self::new(settings, Some(1));
        for _ in 0..count {
            world.steps([Step::Acquire, opened(1)]);
        }
        for _ in 0..count {
            world.step(give_back(0));
        }
        assert_eq!(world.state.stats().idle, count);
        world
    }

    /// The connection that the only lease is of.
    fn lent_one(&self) -> usize {
        assert_eq!(self.leases.len(), 1);
        self.leases.values().next().unwrap().number
    }

    fn retired(&self, reason: Retired) -> u64 {
        self.state.stats().retired_for(reason)
    }

    fn obstacle(&self) -> Option<Obstacle> {
        self.state.explain(crate::flow::Clock::now(&self.clock)).obstacle
    }
}

#[test]
fn a_burst_opens_no_more_than_max_size_and_is_served_in_order() {
    let mut world = World::new(settings(0, 8), Some(1));
    (0..1_000).for_each(|_| world.step(Step::Acquire));
    assert_eq!((world.connecting, world.obstacle()), (8, Some(Obstacle::Connecting)));
    (0..8).for_each(|_| world.step(opened(1)));
    assert_eq!((world.leases.len(), world.waiting.len(), world.connecting), (8, 992, 0));
    assert_eq!(world.obstacle(), Some(Obstacle::AtMax));
    // The world itself checks the order.
    (0..1_000).for_each(|_| world.step(give_back(0)));
    let stats = world.state.stats();
    assert_eq!((stats.size, stats.idle, stats.created, stats.acquired, stats.reused), (8, 8, 8, 1_000, 992));
    assert_eq!(world.obstacle(), None);
    world.end();
}

#[test]
fn as_many_connects_are_under_way_as_there_are_requests_that_wait() {
    let mut world = World::new(settings(0, 100), Some(1));
    for waiting in 1..=5 {
        world.step(Step::Acquire);
        assert_eq!(world.connecting, waiting);
    }
    world.step(Step::Leave { which: 0 });
    world.step(opened(1));
    world.step(Step::Acquire);
    assert_eq!((world.connecting, world.waiting.len()), (4, 4), "one under way was nobody's any more");
}

#[test]
fn the_last_used_is_used_next() {
    let mut world = World::with_idle(settings(0, 4), 3);
    for _ in 0..4 {
        world.step(Step::Acquire);
        assert_eq!(world.lent_one(), 2);
        world.step(give_back(0));
    }
}

#[test]
fn a_free_connection_goes_to_whoever_waits_even_while_one_is_opened_for_them() {
    let mut world = World::new(settings(0, 4), Some(1));
    world.steps([Step::Acquire, opened(1), Step::Acquire]);
    assert_eq!((world.connecting, world.waiting.len()), (1, 1));
    world.step(give_back(0));
    assert_eq!((world.lent_one(), world.waiting.len()), (0, 0));
    world.step(opened(1));
    assert_eq!(world.state.stats().idle, 1);
    // What nobody needed so far is taken last.
    world.steps([give_back(0), Step::Acquire]);
    assert_eq!(world.lent_one(), 0);
}

#[test]
fn where_nothing_can_be_opened_everybody_is_told_at_once() {
    let mut world = World::new(settings(0, 3), Some(1));
    (0..50).for_each(|_| world.step(Step::Acquire));
    world.steps([Step::Failed, Step::Failed]);
    assert!(world.refused.is_empty(), "one may still succeed");
    world.step(Step::Failed);
    assert_eq!((world.refused.len(), world.waiting.len(), world.connecting), (50, 0, 0));
    assert_eq!(world.refused[0].message(), "refused");
    // After that one attempt at a time, and at once: it may be back.
    (0..5).for_each(|_| world.step(Step::Acquire));
    assert_eq!(world.connecting, 1);
    world.step(opened(1));
    assert_eq!((world.leases.len(), world.connecting), (1, 2));
}

#[test]
fn a_connection_that_is_closed_as_soon_as_it_is_open_counts_as_one_that_failed() {
    let mut world = World::new(settings(0, 3), Some(1));
    world.steps([Step::Acquire, Step::Opened { capacity: 1, broken: true }]);
    assert_eq!((world.refused.len(), world.connecting), (1, 0));
    assert_eq!(world.refused[0].kind(), ErrorKind::ConnectFailed);
}

#[test]
fn while_others_are_open_a_failed_connect_is_tried_again_after_a_pause() {
    let mut world = World::new(settings(0, 4), Some(1));
    world.steps([Step::Acquire, opened(1), Step::Acquire, Step::Failed]);
    assert_eq!((world.connecting, world.waiting.len()), (0, 1));
    assert_eq!(world.obstacle(), Some(Obstacle::BackingOff));
    world.step(seconds(0.004));
    assert_eq!(world.connecting, 0);
    world.step(seconds(0.007));
    assert_eq!(world.connecting, 1);
    for _ in 0..10 {
        world.steps([Step::Failed, seconds(5.0)]);
    }
    assert_eq!((world.connecting, world.waiting.len()), (1, 1));
    // The last open one breaks: there is nothing to wait for any more.
    world.step(Step::GiveBack { which: 0, how: Return::Dropped });
    world.step(Step::Failed);
    assert_eq!((world.refused.len(), world.waiting.len()), (1, 0));
}

#[test]
fn what_is_long_idle_ends_down_to_min_size() {
    let mut world = World::with_idle(settings(2, 8), 5);
    world.step(seconds(299.0));
    while !world.checks.is_empty() {
        world.step(Step::Checked { which: 0, healthy: true });
    }
    assert_eq!(world.state.stats().size, 5);
    world.step(seconds(2.0));
    assert_eq!((world.state.stats().size, world.retired(Retired::Idle)), (2, 3));
    let mut world = World::with_idle(PoolSettings { health_interval: None, ..settings(0, 8) }, 5);
    world.step(seconds(301.0));
    assert_eq!(world.state.stats().size, 0);
}

#[test]
fn the_servers_hint_ends_an_idle_connection_a_second_early() {
    let hint = |hint| Step::GiveBack { which: 0, how: Return::Reusable { keep_alive: Some(hint) } };
    let mut world = World::new(settings(0, 2), Some(1));
    world.steps([Step::Acquire, opened(1), hint(Duration::from_secs(5)), seconds(3.9), Step::Acquire]);
    assert_eq!(world.leases.len(), 1);
    world.steps([seconds(60.0), give_back(0), seconds(3.9)]);
    assert_eq!(world.state.stats().idle, 1, "the time in use does not count, and the hint holds on");
    world.step(seconds(0.1));
    assert_eq!((world.state.stats().size, world.retired(Retired::KeepAlive)), (0, 1));
    world.steps([Step::Acquire, opened(1), hint(Duration::ZERO)]);
    assert_eq!(world.state.stats().size, 0);
}

#[test]
fn age_ends_a_connection_early_at_random_and_never_in_use() {
    let settings = PoolSettings { idle_timeout: None, health_interval: None, ..settings(0, 100) };
    let mut world = World::with_idle(settings, 100);
    world.step(Step::Acquire);
    let kept = world.lent_one();
    world.step(seconds(539.0));
    assert_eq!(world.retired(Retired::Age), 0, "at most a tenth is left out");
    world.step(seconds(31.0));
    assert!((20..80).contains(&world.retired(Retired::Age)), "they end together");
    world.step(seconds(31.0));
    assert_eq!((world.retired(Retired::Age), world.lent_one()), (99, kept));
    world.step(give_back(0));
    assert_eq!((world.retired(Retired::Age), world.state.stats().size), (100, 0));
}

#[test]
fn idle_connections_are_checked_a_quarter_at_a_time() {
    let mut world = World::with_idle(PoolSettings { bypass: Duration::ZERO, ..settings(0, 8) }, 8);
    world.step(seconds(29.0));
    world.steps([Step::Acquire, give_back(0), seconds(1.0)]);
    assert_eq!(world.checks.len(), 2);
    let checked = Step::Checked { which: 0, healthy: true };
    for _ in 0..7 {
        assert!((1..=2).contains(&world.checks.len()));
        world.step(checked);
    }
    assert!(world.checks.is_empty(), "one that was just used needs no check");
    assert_eq!(world.state.stats().checks_passed, 7);
    world.step(seconds(29.0));
    assert_eq!(world.checks.len(), 1, "its turn comes 30 seconds after its use");
    world.step(Step::Checked { which: 0, healthy: false });
    assert_eq!((world.retired(Retired::Health), world.state.stats().checks_failed), (1, 1));
}

#[test]
fn one_used_within_the_bypass_is_not_checked() {
    let often = PoolSettings { health_interval: Some(Duration::from_millis(10)), ..settings(0, 8) };
    let mut world = World::with_idle(often, 1);
    world.step(seconds(0.4));
    assert!(world.checks.is_empty());
    world.step(seconds(0.2));
    assert_eq!(world.checks.len(), 1);
}

#[test]
fn a_request_that_comes_during_a_check_gets_the_connection_after_it() {
    let mut world = World::with_idle(settings(0, 1), 1);
    world.steps([seconds(30.0), Step::Acquire]);
    assert_eq!((world.waiting.len(), world.obstacle()), (1, Some(Obstacle::Checking)));
    world.step(Step::Checked { which: 0, healthy: true });
    assert_eq!(world.lent_one(), 0);
    world.steps([give_back(0), seconds(30.0), Step::Acquire, Step::Checked { which: 0, healthy: false }]);
    assert_eq!(world.connecting, 1, "one that failed is replaced for whoever waits");
}

#[test]
fn connections_are_opened_in_advance_after_the_first_success_one_at_a_time() {
    let mut world = World::new(settings(3, 8), Some(1));
    world.steps([Step::Acquire, opened(1)]);
    assert_eq!(world.connecting, 0);
    world.step(give_back(0));
    for _ in 0..2 {
        assert_eq!(world.connecting, 1);
        world.step(opened(1));
    }
    assert_eq!((world.connecting, world.state.stats().idle), (0, 3));
}

#[test]
fn one_connection_of_http2_is_enough_for_min_size() {
    let mut world = World::new(settings(10, 100), None);
    world.steps([Step::Acquire, opened(128), give_back(0)]);
    assert_eq!((world.connecting, world.state.stats().size), (0, 1));
}

#[test]
fn channels_count_by_themselves_and_carry_alike() {
    let channels = PoolSettings { spread: true, ..settings(3, 8) };
    let mut world = World::new(channels, None);
    world.steps([Step::Acquire, opened(128), give_back(0)]);
    for size in 1..3 {
        assert_eq!(
            (world.connecting, world.state.stats().size),
            (1, size),
            "as many channels as min_size says"
        );
        world.step(opened(128));
    }
    assert_eq!((world.connecting, world.state.stats().size), (0, 3));
    for carried in [1, 1, 1, 2, 2, 2] {
        world.step(Step::Acquire);
        let most = world.state.slots.iter().map(|(_, slot)| slot.leased).max();
        assert_eq!(most, Some(carried));
    }
    (0..6).for_each(|_| world.step(give_back(0)));
    world.step(seconds(400.0));
    assert_eq!(world.state.stats().size, 3, "idle ones are kept");
}

#[test]
fn a_server_that_closes_idle_connections_is_left_alone_more_and_more() {
    let mut world = World::new(PoolSettings { health_interval: None, ..settings(2, 8) }, Some(1));
    world.steps([Step::Acquire, opened(1), give_back(0), opened(1)]);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        // The one that nobody ever used.
        let newest = world.open.len() - 1;
        world.step(Step::Break { which: newest, drain: false });
        let mut pause = 0;
        while world.connecting == 0 {
            world.step(seconds(1.0));
            pause += 1;
        }
        pauses.push(pause);
        world.step(opened(1));
    }
    assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 32]);
    assert!(pauses.iter().all(|pause| *pause <= 301), "{pauses:?}");
}

#[test]
fn a_shared_connection_is_filled_before_another_is_opened() {
    let mut world = World::new(settings(0, 3), None);
    (0..8).for_each(|_| world.step(Step::Acquire));
    assert_eq!(world.connecting, 1, "the first tells what a connection carries");
    world.step(opened(3));
    assert_eq!((world.leases.len(), world.waiting.len(), world.connecting), (3, 5, 2));
    world.steps([opened(3), opened(1)]);
    assert_eq!(
        (world.leases.len(), world.waiting.len(), world.obstacle()),
        (7, 1, Some(Obstacle::StreamsFull))
    );
    world.step(Step::Capacity { which: 2, capacity: 2 });
    assert_eq!((world.leases.len(), world.waiting.len()), (8, 0), "the peer allows more");
    // A stream that breaks off gives back its own place alone.
    world.step(Step::GiveBack { which: 0, how: Return::Dropped });
    assert_eq!((world.state.stats().size, world.retired(Retired::Abandoned)), (3, 0));
    world.step(Step::Capacity { which: 0, capacity: 1 });
    world.step(Step::Acquire);
    assert_eq!(world.waiting.len(), 1, "it carries more than the peer allows by now");
}

#[test]
fn a_draining_connection_finishes_what_it_carries_and_takes_no_more() {
    let mut world = World::new(settings(0, 2), Some(3));
    world.steps([Step::Acquire, opened(3), Step::Acquire]);
    world.steps([Step::Break { which: 0, drain: true }, Step::Acquire]);
    assert_eq!((world.leases.len(), world.connecting, world.open.len()), (2, 1, 1));
    world.step(opened(3));
    assert_eq!((world.leases.len(), world.open.len()), (3, 2));
    world.steps([give_back(0), give_back(0)]);
    assert_eq!((world.open.len(), world.retired(Retired::Draining)), (1, 1));
}

#[test]
fn one_that_ended_in_the_middle_is_closed_and_one_that_was_not_touched_is_kept() {
    let mut world = World::new(settings(0, 1), Some(1));
    world.steps([Step::Acquire, opened(1), Step::GiveBack { which: 0, how: Return::Untouched }]);
    assert_eq!(world.state.stats().idle, 1);
    world.steps([Step::Acquire, Step::Acquire, Step::GiveBack { which: 0, how: Return::Dropped }]);
    assert_eq!((world.open.len(), world.connecting, world.retired(Retired::Abandoned)), (0, 1, 1));
    world.steps([opened(1), Step::GiveBack { which: 0, how: Return::Spent }]);
    assert_eq!((world.open.len(), world.retired(Retired::Spent)), (0, 1));
}

#[test]
fn a_lease_that_is_held_for_long_is_reported_once() {
    let settings = PoolSettings { held_too_long: Some(Duration::from_mins(1)), ..settings(0, 4) };
    let mut world = World::new(settings, Some(1));
    world.steps([Step::Acquire, opened(1), seconds(59.0), Step::Acquire, opened(1)]);
    assert!(world.reports.is_empty());
    world.step(seconds(1.0));
    assert_eq!(world.reports.len(), 1);
    assert_eq!(world.reports[0].age, Duration::from_mins(1));
    world.step(seconds(600.0));
    assert_eq!((world.reports.len(), world.state.stats().held_too_long), (2, 2));
    let held = world.state.explain(crate::flow::Clock::now(&world.clock)).held;
    assert_eq!(held[0].age, Duration::from_mins(11));
}

#[test]
fn a_wait_that_ends_says_what_it_waited_for() {
    let mut world = World::new(settings(0, 1), Some(1));
    world.steps([Step::Acquire, opened(1), Step::Acquire, Step::Acquire, seconds(2.0)]);
    let (_, ticket) = world.waiting.pop_front().unwrap();
    let error = world.state.give_up(ticket, crate::flow::Clock::now(&world.clock)).unwrap();
    assert_eq!(
        error.message(),
        "no connection to test became free within 2.000 seconds: 1 requests are carried by 1 connections of \
         max_size=1, 0 are being opened, 1 more requests wait"
    );
}

#[test]
fn without_a_pool_every_request_has_a_connection_of_its_own() {
    let mut world =
        World::new(PoolSettings { reuse: false, health_interval: None, ..settings(0, 8) }, Some(4));
    // Of a server that would take four at a time.
    world.steps([Step::Acquire, opened(4), Step::Acquire, opened(4)]);
    assert_eq!((world.leases.len(), world.state.stats().size), (2, 2));
    world.step(give_back(0));
    assert_eq!((world.retired(Retired::Spent), world.state.stats().idle), (1, 0));
    world.steps([Step::Acquire, opened(4)]);
    assert_eq!(world.leases.len(), 2, "nothing is handed on");
    world.steps([give_back(0), give_back(0)]);
    assert_eq!((world.retired(Retired::Spent), world.state.stats().reused), (3, 0));
}
