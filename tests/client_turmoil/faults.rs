//! One fault at a time: what a request sees of it, and that nothing of it stays.

use penstock::client::Retry;
use penstock::error::ErrorKind;
use turmoil::Sim;

use crate::server::Computed;
use crate::world::{Ledger, Outcome, Plan, TOTAL, ask, assert_at_rest, assert_closes, millis};

/// Ten requests, one every 20 ms, each in a task of its own; `fault` is called with the simulation each millisecond.
fn run(plan: &Plan, again: bool, mut fault: impl FnMut(&mut Sim<'_>, u64)) -> (Ledger, Computed) {
    let (ledger, computed) = (Ledger::default(), Computed::default());
    let mut sim = plan.network(&computed);
    let (noted, planned) = (ledger.clone(), plan.clone());
    sim.client("client", async move {
        let client = planned.client();
        let mut asked = Vec::new();
        for number in 0..10 {
            let (client, ledger) = (client.clone(), noted.clone());
            asked.push(tokio::task::spawn_local(async move {
                ledger.note(number, ask(&client, number, again).await);
            }));
            tokio::time::sleep(millis(20)).await;
        }
        for one in asked {
            tokio::time::timeout(TOTAL * 2, one).await.expect("a request hangs")?;
        }
        assert_at_rest(&client);
        assert_closes(&client).await;
        Ok(())
    });
    let mut ticks = 0;
    while !sim.step().unwrap() {
        ticks += 1;
        fault(&mut sim, ticks);
    }
    ledger.is_whole(10);
    (ledger, computed)
}

/// Both versions of HTTP.
fn plans() -> [Plan; 2] {
    [false, true].map(|http2| Plan { http2, ..Plan::default() })
}

fn no_retries() -> Retry {
    Retry { attempts: 1, ..Retry::default() }
}

/// How often the request that was computed most often was.
fn most(computed: &Computed) -> usize {
    let computed = computed.borrow();
    let count = |number: &str| computed.iter().filter(|(_, found)| found == number).count();
    computed.iter().map(|(_, number)| count(number)).max().unwrap_or_default()
}

#[test]
fn without_a_fault_all_are_answered() {
    for plan in plans() {
        let (ledger, computed) = run(&plan, false, |_, _| {});
        assert_eq!(ledger.count(Outcome::Answered), 10);
        assert_eq!((computed.borrow().len(), most(&computed)), (10, 1));
    }
}

#[test]
fn a_host_that_crashes_is_an_error_at_once_and_is_found_again() {
    for plan in plans() {
        let plan = Plan { retry: no_retries(), time: millis(40), ..plan };
        let (ledger, computed) = run(&plan, false, |sim, tick| match tick {
            60 => sim.crash("one"),
            120 => sim.bounce("one"),
            _ => {}
        });
        assert!(ledger.count(Outcome::Answered) >= 2, "{ledger:?}");
        let failed = |kind| ledger.count(Outcome::Failed(kind));
        let typed =
            failed(ErrorKind::ReadFailed) + failed(ErrorKind::WriteFailed) + failed(ErrorKind::ConnectFailed);
        assert!(typed >= 1, "{ledger:?}");
        assert_eq!(most(&computed), 1, "what may not be sent again was not");
    }
}

#[test]
fn a_partition_ends_in_the_limit_that_it_met_and_not_later() {
    for plan in plans() {
        let plan = Plan { retry: no_retries(), ..plan };
        let (ledger, _) = run(&plan, false, |sim, tick| {
            if tick == 70 {
                sim.partition("client", "one");
            }
        });
        assert!(ledger.count(Outcome::Answered) >= 1, "{ledger:?}");
        let timed = |outcome: Outcome| {
            matches!(
                outcome,
                Outcome::Failed(
                    ErrorKind::FirstChunkTimeout
                        | ErrorKind::ConnectTimeout
                        | ErrorKind::AcquireTimeout
                        | ErrorKind::ConnectFailed
                        | ErrorKind::ReadFailed
                        | ErrorKind::DeadlineExceeded
                )
            )
        };
        for (at, number, outcome) in ledger.trace() {
            assert!(outcome == Outcome::Answered || timed(outcome), "{number}: {outcome:?}");
            assert!(u128::from(at) <= (TOTAL + millis(400)).as_millis(), "{number} ended at {at} ms");
        }
    }
}

#[test]
fn what_is_held_back_and_let_go_in_time_is_answered() {
    for plan in plans() {
        let (ledger, computed) = run(&plan, false, |sim, tick| match tick {
            50 => sim.hold("client", "one"),
            600 => sim.release("client", "one"),
            _ => {}
        });
        assert_eq!(ledger.count(Outcome::Answered), 10, "{ledger:?}");
        assert_eq!(most(&computed), 1);
    }
}

#[test]
fn delays_below_the_limits_cost_nothing_but_time() {
    for plan in plans() {
        let (ledger, _) = run(&plan, false, |sim, tick| {
            if tick == 40 {
                sim.set_link_latency("client", "one", millis(300));
            }
        });
        assert_eq!(ledger.count(Outcome::Answered), 10, "{ledger:?}");
    }
}

#[test]
fn of_two_hosts_one_may_go_and_who_may_be_sent_again_does_not_notice() {
    for plan in plans() {
        let retry = Retry { attempts: 4, budget: 1.0, per_second: 100.0, ..Retry::default() };
        let plan = Plan { hosts: vec!["one", "two"], time: millis(30), retry, ..plan };
        let (ledger, _) = run(&plan, true, |sim, tick| {
            if tick == 60 {
                sim.crash("one");
            }
        });
        assert_eq!(ledger.count(Outcome::Answered), 10, "{ledger:?}");
    }
}
