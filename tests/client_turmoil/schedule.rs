//! Many requests under a course of faults that a seed gives: each ends once, nothing hangs in simulated time, the pool
//! comes to rest, and the same seed gives the same course.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use penstock::client::Retry;
use penstock::error::ErrorKind;
use turmoil::Sim;

use crate::server::Computed;
use penstock::client::Client;

use crate::world::{Ledger, Outcome, Plan, TOTAL, ask, assert_at_rest, assert_closes, connections, millis};

const REQUESTS: usize = 400;
const HOSTS: [&str; 3] = ["one", "two", "three"];
/// Simulated milliseconds over which requests are begun, and after which the network is well again.
const COURSE: u64 = 8_000;

/// What the network does next, and to whom.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash(&'static str),
    Bounce(&'static str),
    Partition(&'static str),
    Repair(&'static str),
    Hold(&'static str),
    Release(&'static str),
    Latency(&'static str, u64),
}

impl Fault {
    fn happen(self, sim: &mut Sim<'_>) {
        match self {
            Self::Crash(host) => sim.crash(host),
            Self::Bounce(host) => sim.bounce(host),
            Self::Partition(host) => sim.partition("client", host),
            Self::Repair(host) => sim.repair("client", host),
            Self::Hold(host) => sim.hold("client", host),
            Self::Release(host) => sim.release("client", host),
            Self::Latency(host, time) => sim.set_link_latency("client", host, millis(time)),
        }
    }
}

/// Faults and their ends by the millisecond. A host has one at a time; all are over at the end of the course.
fn faults(seed: u64) -> BTreeMap<u64, Vec<Fault>> {
    let mut random = Rng::with_seed(seed);
    let mut course = BTreeMap::<u64, Vec<Fault>>::new();
    for host in HOSTS {
        let mut at = random.u64(100..1_000);
        while at < COURSE - 1_500 {
            let ends = at + random.u64(50..1_400);
            let (begins, over) = match random.u8(0..4) {
                0 => (Fault::Crash(host), Fault::Bounce(host)),
                1 => (Fault::Partition(host), Fault::Repair(host)),
                2 => (Fault::Hold(host), Fault::Release(host)),
                _ => (Fault::Latency(host, random.u64(20..700)), Fault::Latency(host, 1)),
            };
            course.entry(at).or_default().push(begins);
            course.entry(ends).or_default().push(over);
            at = ends + random.u64(20..900);
        }
    }
    course
}

/// All faults are over, and so is everything that they did.
async fn ends_well(client: &Client, http2: bool) {
    // In this network what was lost is not sent again, so a connection may be dead for good: one of HTTP/2 is asked for a
    // sign where a request got none, ten seconds after its last at the latest, and has ten seconds for it.
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_at_rest(client);
    // The network is well: so is the client. Over HTTP/1.1 nothing tells that the other end of an idle connection is
    // gone but a request that gets no answer.
    let mut dead = if http2 { 0 } else { connections(client) };
    while ask(client, REQUESTS, true).await != Outcome::Answered {
        assert!(dead > 0, "the network is well, and the client is not");
        dead -= 1;
    }
    assert_closes(client).await;
}

type Trace = (Vec<(u64, usize, Outcome)>, Vec<(&'static str, String)>);

fn run(seed: u64, http2: bool) -> Trace {
    let plan = Plan {
        seed,
        http2,
        hosts: HOSTS.to_vec(),
        time: millis(15),
        max_size: 4,
        retry: Retry { budget: 0.5, ..Retry::default() },
    };
    let (ledger, computed) = (Ledger::default(), Computed::default());
    let mut sim = plan.network(&computed);
    let noted = ledger.clone();
    sim.client("client", async move {
        let client = plan.client();
        let mut random = Rng::with_seed(!seed);
        let mut asked = Vec::new();
        for number in 0..REQUESTS {
            let (client, ledger) = (client.clone(), noted.clone());
            // A tenth is given up by its caller, at any moment.
            let patience = (random.u8(0..10) == 0).then(|| millis(random.u64(0..60)));
            asked.push(tokio::task::spawn_local(async move {
                let asking = ask(&client, number, may_go_again(number));
                let outcome = match patience {
                    None => asking.await,
                    Some(patience) => {
                        tokio::time::timeout(patience, asking).await.unwrap_or(Outcome::GivenUp)
                    }
                };
                ledger.note(number, outcome);
            }));
            tokio::time::sleep(millis(COURSE / REQUESTS as u64)).await;
        }
        for one in asked {
            tokio::time::timeout(TOTAL * 3, one).await.expect("a request hangs")?;
        }
        ends_well(&client, http2).await;
        Ok(())
    });
    let course = faults(seed);
    let mut ticks = 0;
    while !sim.step().unwrap() {
        ticks += 1;
        for fault in course.get(&ticks).into_iter().flatten() {
            fault.happen(&mut sim);
        }
    }
    ledger.is_whole(REQUESTS);
    let computed = computed.borrow().clone();
    (ledger.trace(), computed)
}

/// Half of the requests do no harm twice.
fn may_go_again(number: usize) -> bool {
    number.is_multiple_of(2)
}

/// What was answered was computed, and what must not be computed twice was not.
fn assert_honest((outcomes, computed): &Trace) {
    let times = |number: usize| computed.iter().filter(|(_, found)| *found == number.to_string()).count();
    for (_, number, outcome) in outcomes {
        let times = times(*number);
        assert!(times <= 1 || may_go_again(*number), "request {number} was computed {times} times");
        assert!(times >= 1 || *outcome != Outcome::Answered, "request {number} was answered by nobody");
        assert!(*outcome != Outcome::Failed(ErrorKind::Internal), "request {number}");
        if *outcome == Outcome::Failed(ErrorKind::ConnectFailed) && !may_go_again(*number) {
            assert_eq!(times, 0, "request {number} was computed although no connection was had");
        }
    }
}

#[test]
fn every_request_ends_once_whatever_happens() {
    for seed in 1..=6 {
        for http2 in [false, true] {
            let trace = run(seed, http2);
            assert_honest(&trace);
            let answered = trace.0.iter().filter(|(.., outcome)| *outcome == Outcome::Answered).count();
            assert!(answered > REQUESTS / 4, "seed {seed}: {answered} answers");
            assert!(answered < REQUESTS, "seed {seed}: no fault was felt");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_course() {
    for http2 in [false, true] {
        assert_eq!(run(7, http2), run(7, http2));
        assert_ne!(run(7, http2), run(8, http2));
    }
}
