//! Which endpoint is chosen, on a clock that the tests move.

use std::time::Duration;

use super::super::{BalancePolicy, Balancer, EjectSettings, Outcome, Pick};
use crate::flow::Moment;

/// A balancer, its time and its dice.
struct Case {
    balancer: Balancer,
    now: Moment,
    random: fastrand::Rng,
}

impl Case {
    fn new(policy: BalancePolicy, count: usize) -> Self {
        let settings = EjectSettings { failures: Some(3), ..EjectSettings::default() };
        Self {
            balancer: Balancer::new(policy, count, settings),
            now: Moment::default(),
            random: fastrand::Rng::with_seed(7),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn begin(&mut self) -> Pick {
        let pick = self.balancer.pick(self.now, &[], &mut self.random).unwrap();
        self.balancer.started(pick.endpoint);
        pick
    }

    fn end(&mut self, pick: Pick, outcome: Outcome) {
        self.balancer.ended(pick, outcome, self.now);
    }

    /// A request at that endpoint, whoever would have been chosen.
    fn at(&mut self, endpoint: usize, outcome: Outcome) {
        self.balancer.started(endpoint);
        self.end(Pick { endpoint, probe: false }, outcome);
    }

    fn eject(&mut self, endpoint: usize) {
        (0..3).for_each(|_| self.at(endpoint, Outcome::Failure));
        assert!(self.is_out(endpoint));
    }

    fn is_out(&self, endpoint: usize) -> bool {
        self.balancer.is_out(endpoint, self.now)
    }
}

#[test]
fn the_end_of_another_request_is_not_taken_for_that_of_the_probe() {
    for outcome in [Outcome::Failure, Outcome::Cancelled] {
        let mut case = Case::new(BalancePolicy::RoundRobin, 3);
        // A request that began before the endpoint was put out.
        case.balancer.started(0);
        case.eject(0);
        case.wait(10);
        let probe = case.begin();
        assert_eq!(probe, Pick { endpoint: 0, probe: true });
        case.end(Pick { endpoint: 0, probe: false }, outcome);
        let next = case.begin();
        assert!(!next.probe && next.endpoint != 0, "there is one probe at a time: {next:?}");
        case.end(probe, Outcome::Success);
        assert!(!case.is_out(0), "{outcome:?} was that of another");
    }
}

#[test]
fn a_probe_that_fails_puts_the_endpoint_out_for_twice_as_long_and_one_given_up_is_followed_by_another() {
    let mut case = Case::new(BalancePolicy::RoundRobin, 3);
    case.eject(1);
    case.wait(10);
    let probe = case.begin();
    case.end(probe, Outcome::Cancelled);
    let probe = case.begin();
    assert_eq!(probe, Pick { endpoint: 1, probe: true });
    case.end(probe, Outcome::Failure);
    case.wait(19);
    assert!((0..6).all(|_| case.begin().endpoint != 1));
    case.wait(1);
    assert!(case.begin().probe);
}

#[test]
fn an_endpoint_that_is_not_ready_is_out_until_it_is() {
    let mut case = Case::new(BalancePolicy::RoundRobin, 3);
    assert!(!case.balancer.checked(2, true, case.now), "it was in");
    assert!(case.balancer.checked(2, false, case.now));
    assert!(case.is_out(2));
    case.wait(5);
    assert!(!case.balancer.checked(2, false, case.now), "it was out");
    case.wait(9);
    assert!((0..6).all(|_| case.begin().endpoint != 2), "the second check counts anew");
    assert!(case.balancer.checked(2, true, case.now));
    assert!(!case.is_out(2));
    assert!((0..6).filter(|_| case.begin().endpoint == 2).count() == 2);
}

#[test]
fn where_nobody_checks_a_probe_finds_out() {
    let mut case = Case::new(BalancePolicy::RoundRobin, 2);
    case.balancer.checked(0, false, case.now);
    case.wait(10);
    let probe = case.begin();
    assert_eq!(probe, Pick { endpoint: 0, probe: true });
    case.end(probe, Outcome::Success);
    assert!(!case.is_out(0));
    assert!(case.balancer.checked(0, false, case.now), "that is news again");
}

#[test]
fn one_that_failures_put_out_is_not_let_in_by_its_own_word() {
    let mut case = Case::new(BalancePolicy::RoundRobin, 3);
    case.eject(0);
    assert!(!case.balancer.checked(0, true, case.now));
    assert!(case.is_out(0));
}

#[test]
fn one_that_was_let_in_again_has_its_share_at_once() {
    let mut case = Case::new(BalancePolicy::P2cFirstByte, 2);
    for endpoint in [0, 1] {
        case.balancer.first_byte(endpoint, Duration::from_millis(1), case.now);
    }
    case.eject(0);
    case.wait(10);
    let probe = case.begin();
    assert!(probe.probe);
    case.end(probe, Outcome::Success);
    let mut picks = [0, 0];
    for _ in 0..100 {
        let pick = case.begin();
        picks[pick.endpoint] += 1;
        case.end(pick, Outcome::Success);
    }
    assert!(picks[0] > 20, "{picks:?}");
}

#[test]
fn a_request_goes_to_those_that_can_serve_it_even_where_all_of_them_are_out() {
    for policy in [
        BalancePolicy::RoundRobin,
        BalancePolicy::LeastOutstanding,
        BalancePolicy::P2c,
        BalancePolicy::P2cFirstByte,
    ] {
        let mut case = Case::new(policy, 5);
        let can = |at: usize| at >= 3;
        let pick = |case: &mut Case, tried: &[usize]| {
            case.balancer.pick_among(case.now, &can, tried, &mut case.random).map(|pick| pick.endpoint)
        };
        for _ in 0..20 {
            assert!(pick(&mut case, &[]).is_some_and(can));
        }
        case.eject(3);
        assert!((0..20).all(|_| pick(&mut case, &[]) == Some(4)), "half of them is not too many");
        assert_eq!(pick(&mut case, &[4]), None);
        case.eject(4);
        assert!(pick(&mut case, &[]).is_some_and(can));
        // One that cannot serve it is not tried by it either.
        case.eject(0);
        case.wait(11);
        assert_eq!(pick(&mut case, &[3, 4]), None);
        assert!((0..2).all(|_| pick(&mut case, &[]).is_some_and(can)));
    }
}
