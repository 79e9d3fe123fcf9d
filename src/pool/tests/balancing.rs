//! Endpoints in virtual time: each answers after its own time, or fails.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::super::{BalancePolicy, Balancer, EjectSettings, Outcome, Pick};
use crate::flow::Moment;

const POLICIES: [BalancePolicy; 4] = [
    BalancePolicy::RoundRobin,
    BalancePolicy::LeastOutstanding,
    BalancePolicy::P2c,
    BalancePolicy::P2cFirstByte,
];

fn usual(endpoint: usize) -> Pick {
    Pick { endpoint, probe: false }
}

fn at(seconds: f64) -> Moment {
    Moment::default() + Duration::from_secs_f64(seconds)
}

/// Requests come every millisecond for ten seconds from `begin`; endpoint `i` answers after `times[i]`, or fails at once
/// where that is `None`. Answers how many requests each got.
fn traffic(
    balancer: &mut Balancer,
    begin: f64,
    times: &[Option<f64>],
    random: &mut fastrand::Rng,
) -> Vec<usize> {
    let mut shares = vec![0; times.len()];
    let mut ends = BinaryHeap::new();
    for request in 0..10_000_u32 {
        let now = at(begin + f64::from(request) / 1_000.0);
        while let Some(Reverse((end, endpoint, probe))) = ends.pop_if_due(now) {
            balancer.first_byte(endpoint, Duration::from_secs_f64(times[endpoint].unwrap()), end);
            balancer.ended(Pick { endpoint, probe }, Outcome::Success, end);
        }
        let pick = balancer.pick(now, &[], random).unwrap();
        balancer.started(pick.endpoint);
        shares[pick.endpoint] += 1;
        match times[pick.endpoint] {
            Some(time) => {
                ends.push(Reverse((now + Duration::from_secs_f64(time), pick.endpoint, pick.probe)));
            }
            None => balancer.ended(pick, Outcome::Failure, now),
        }
    }
    while let Some(Reverse((end, endpoint, probe))) = ends.pop() {
        balancer.ended(Pick { endpoint, probe }, Outcome::Success, end);
    }
    assert!((0..times.len()).all(|endpoint| balancer.outstanding(endpoint) == 0));
    shares
}

/// When a request ends, where it is, and whether it is a probe.
type Ended = Reverse<(Moment, usize, bool)>;

trait PopIfDue {
    fn pop_if_due(&mut self, now: Moment) -> Option<Ended>;
}

impl PopIfDue for BinaryHeap<Ended> {
    fn pop_if_due(&mut self, now: Moment) -> Option<Ended> {
        if self.peek()?.0.0 <= now { self.pop() } else { None }
    }
}

#[test]
fn equal_endpoints_get_equal_shares() {
    for policy in POLICIES {
        let mut balancer = Balancer::new(policy, 4, EjectSettings::default());
        let shares = traffic(&mut balancer, 0.0, &[Some(0.01); 4], &mut fastrand::Rng::with_seed(1));
        assert!(shares.iter().all(|share| (2_200..2_800).contains(share)), "{policy:?}: {shares:?}");
    }
}

#[test]
fn one_that_is_ten_times_slower_gets_less_and_recovers() {
    let mut random = fastrand::Rng::with_seed(2);
    for policy in [BalancePolicy::LeastOutstanding, BalancePolicy::P2c, BalancePolicy::P2cFirstByte] {
        let mut balancer = Balancer::new(policy, 4, EjectSettings::default());
        let slow = [Some(0.02), Some(0.2), Some(0.02), Some(0.02)];
        let shares = traffic(&mut balancer, 0.0, &slow, &mut random);
        assert!(shares[1] < 900, "{policy:?}: {shares:?}");
        if policy == BalancePolicy::P2cFirstByte {
            assert!(shares[1] < 400, "{shares:?}");
        }
        // A minute without requests: what it was weighs no more.
        let shares = traffic(&mut balancer, 70.0, &[Some(0.02); 4], &mut random);
        assert!((1_900..3_100).contains(&shares[1]), "{policy:?}: {shares:?}");
    }
}

#[test]
fn one_that_is_dead_is_left_out_and_comes_back_through_a_probe() {
    let mut random = fastrand::Rng::with_seed(3);
    for policy in POLICIES {
        let mut balancer = Balancer::new(policy, 4, EjectSettings::default());
        let dead = [Some(0.01), None, Some(0.01), Some(0.01)];
        let shares = traffic(&mut balancer, 0.0, &dead, &mut random);
        assert!((1..=6).contains(&shares[1]), "{policy:?}: {shares:?}");
        // To be chosen by time, one that failed looks slow already.
        assert!(balancer.is_out(1, at(10.0)) || policy == BalancePolicy::P2cFirstByte);
        let alive = [Some(0.01); 4];
        traffic(&mut balancer, 20.0, &alive, &mut random);
        let shares = traffic(&mut balancer, 90.0, &alive, &mut random);
        assert!(!balancer.is_out(1, at(100.0)));
        assert!((1_800..3_200).contains(&shares[1]), "{policy:?}: {shares:?}");
    }
}

#[test]
fn one_failure_alone_does_not_put_an_endpoint_out() {
    let mut random = fastrand::Rng::with_seed(9);
    for policy in POLICIES {
        let mut balancer = Balancer::new(policy, 2, EjectSettings::default());
        traffic(&mut balancer, 0.0, &[Some(0.005); 2], &mut random);
        fail(&mut balancer, 1, 1, at(10.0));
        let shares = traffic(&mut balancer, 10.0, &[Some(0.005); 2], &mut random);
        assert!(shares[1] > 2_500, "{policy:?}: {shares:?}");
        let shares = traffic(&mut balancer, 20.0, &[Some(0.005); 2], &mut random);
        assert!((4_000..6_000).contains(&shares[1]), "{policy:?}: {shares:?}");
    }
}

#[test]
fn one_that_is_let_in_again_has_its_share_at_once() {
    let mut random = fastrand::Rng::with_seed(10);
    for policy in POLICIES {
        let mut balancer = Balancer::new(policy, 4, EjectSettings::default());
        traffic(&mut balancer, 0.0, &[Some(0.01), None, Some(0.01), Some(0.01)], &mut random);
        let shares = traffic(&mut balancer, 20.0, &[Some(0.01); 4], &mut random);
        assert!((2_000..3_000).contains(&shares[1]), "{policy:?}: {shares:?}");
    }
}

fn fail(balancer: &mut Balancer, endpoint: usize, times: usize, now: Moment) {
    for _ in 0..times {
        balancer.started(endpoint);
        balancer.ended(usual(endpoint), Outcome::Failure, now);
    }
}

#[test]
fn one_probe_at_a_time_and_the_time_out_grows() {
    let mut random = fastrand::Rng::with_seed(4);
    let mut balancer = Balancer::new(BalancePolicy::RoundRobin, 3, EjectSettings::default());
    fail(&mut balancer, 0, 4, at(0.0));
    assert!(!balancer.is_out(0, at(0.0)));
    fail(&mut balancer, 0, 1, at(0.0));
    assert!(balancer.is_out(0, at(0.0)));
    let mut time = 0.0;
    for pause in [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0] {
        for _ in 0..20 {
            assert_ne!(balancer.pick(at(time + pause - 0.1), &[], &mut random).unwrap().endpoint, 0);
        }
        time += pause;
        let probe = balancer.pick(at(time), &[], &mut random).unwrap();
        assert!(probe.probe && probe.endpoint == 0);
        for _ in 0..20 {
            assert_ne!(
                balancer.pick(at(time), &[], &mut random).unwrap().endpoint,
                0,
                "one probe is under way"
            );
        }
        balancer.started(0);
        balancer.ended(probe, Outcome::Failure, at(time));
    }
    time += 300.0;
    let probe = balancer.pick(at(time), &[], &mut random).unwrap();
    assert!(probe.probe);
    balancer.ended(probe, Outcome::Cancelled, at(time));
    assert!(balancer.pick(at(time), &[], &mut random).unwrap().probe, "one that was cancelled told nothing");
    balancer.ended(probe, Outcome::Success, at(time));
    assert!(!balancer.is_out(0, at(time)));
    // In for as long as it was out: it begins anew.
    fail(&mut balancer, 0, 5, at(time + 301.0));
    assert!(balancer.is_out(0, at(time + 310.0)));
    assert!(balancer.pick(at(time + 311.0), &[], &mut random).unwrap().probe);
}

#[test]
fn never_all_are_out() {
    let mut random = fastrand::Rng::with_seed(5);
    for policy in POLICIES {
        for count in 1..6 {
            let mut balancer = Balancer::new(policy, count, EjectSettings::default());
            for endpoint in 0..count {
                fail(&mut balancer, endpoint, 5, at(0.0));
                assert!(balancer.pick(at(1.0), &[], &mut random).is_some());
            }
            let mut picked: Vec<_> =
                (0..200).map(|_| balancer.pick(at(1.0), &[], &mut random).unwrap().endpoint).collect();
            picked.sort_unstable();
            picked.dedup();
            assert!(
                policy == BalancePolicy::LeastOutstanding || picked.len() == count,
                "{policy:?}: {picked:?}"
            );
        }
    }
}

#[test]
fn one_that_asked_to_be_left_alone_is_for_half_a_minute_at_most() {
    let mut random = fastrand::Rng::with_seed(6);
    let mut balancer = Balancer::new(BalancePolicy::RoundRobin, 2, EjectSettings::default());
    balancer.started(0);
    balancer.ended(usual(0), Outcome::Overloaded(Some(Duration::from_hours(1))), at(0.0));
    for second in 0..30 {
        assert_eq!(balancer.pick(at(f64::from(second)), &[], &mut random).unwrap().endpoint, 1);
    }
    let picked: Vec<_> = (0..4).map(|_| balancer.pick(at(30.0), &[], &mut random).unwrap()).collect();
    assert!(picked.iter().any(|pick| pick.endpoint == 0 && !pick.probe), "it needs no probe");
    for endpoint in 0..2 {
        balancer.ended(usual(endpoint), Outcome::Overloaded(Some(Duration::from_secs(10))), at(40.0));
    }
    assert!(balancer.pick(at(41.0), &[], &mut random).is_some());
}

#[test]
fn what_was_tried_already_is_not_tried_again() {
    let mut random = fastrand::Rng::with_seed(7);
    for policy in POLICIES {
        let mut balancer = Balancer::new(policy, 3, EjectSettings::default());
        for _ in 0..50 {
            assert_eq!(balancer.pick(at(0.0), &[0, 2], &mut random).unwrap().endpoint, 1);
        }
        assert_eq!(balancer.pick(at(0.0), &[0, 1, 2], &mut random), None);
        fail(&mut balancer, 1, 5, at(0.0));
        assert_eq!(balancer.pick(at(1.0), &[0, 2], &mut random), None, "what is left is out");
        assert_eq!(Balancer::new(policy, 0, EjectSettings::default()).pick(at(0.0), &[], &mut random), None);
    }
}

#[test]
fn a_long_stream_counts_as_carried_and_not_as_slow() {
    let mut random = fastrand::Rng::with_seed(8);
    let mut balancer = Balancer::new(BalancePolicy::P2cFirstByte, 2, EjectSettings::default());
    for endpoint in 0..2 {
        balancer.started(endpoint);
        balancer.first_byte(endpoint, Duration::from_millis(50), at(0.0));
    }
    balancer.ended(usual(1), Outcome::Success, at(0.0));
    for _ in 0..50 {
        assert_eq!(balancer.pick(at(60.0), &[], &mut random).unwrap().endpoint, 1, "the other still streams");
    }
    balancer.ended(usual(0), Outcome::Success, at(60.0));
    let picked: Vec<_> =
        (0..50).map(|_| balancer.pick(at(60.0), &[], &mut random).unwrap().endpoint).collect();
    assert!(picked.contains(&0) && picked.contains(&1));
}

#[test]
fn settings_that_contradict_themselves_are_refused() {
    let settings = EjectSettings::default();
    settings.check().unwrap();
    assert!(EjectSettings { failures: Some(0), ..settings.clone() }.check().is_err());
    assert!(EjectSettings { time: Duration::ZERO, ..settings.clone() }.check().is_err());
    assert!(EjectSettings { longest: Duration::from_secs(1), ..settings }.check().is_err());
}

#[test]
fn an_endpoint_that_says_nothing_any_more_is_left_alone_by_those_who_give_up() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut balancer = Balancer::new(BalancePolicy::P2cFirstByte, 2, EjectSettings::default());
    for endpoint in 0..2 {
        balancer.first_byte(endpoint, Duration::from_millis(1), at(0.0));
    }
    let patience = Duration::from_secs(2);
    let mut silent = std::collections::VecDeque::new();
    let mut given_up = 0;
    for request in 0..600 {
        let now = at(f64::from(request) / 10.0);
        while let Some(sent) = silent.pop_front_if(|sent| *sent + patience <= now) {
            balancer.waited_in_vain(1, now.since(sent), now);
            balancer.ended(usual(1), Outcome::Cancelled, now);
            given_up += 1;
        }
        let pick = balancer.pick(now, &[], &mut random).unwrap();
        balancer.started(pick.endpoint);
        if pick.endpoint == 1 {
            silent.push_back(now);
        } else {
            balancer.first_byte(0, Duration::from_millis(1), now);
            balancer.ended(pick, Outcome::Success, now);
        }
    }
    assert!((1..30).contains(&given_up), "{given_up} of 600 in a minute");
}

#[test]
fn a_caller_without_patience_does_not_make_an_endpoint_seem_fast() {
    let mut balancer = Balancer::new(BalancePolicy::P2cFirstByte, 2, EjectSettings::default());
    balancer.first_byte(0, Duration::from_millis(100), at(0.0));
    balancer.waited_in_vain(1, Duration::from_millis(1), at(0.0));
    assert_eq!(balancer.recent_first_byte(1, at(0.0)), None);
    balancer.waited_in_vain(0, Duration::from_millis(50), at(0.0));
    assert_eq!(balancer.recent_first_byte(0, at(0.0)), Some(Duration::from_millis(100)));
}
