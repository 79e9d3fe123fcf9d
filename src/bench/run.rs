//! Carries out a plan, from opening the connections to closing the books.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant as StdInstant;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::arrivals::{Pacer, Schedule};
use super::client::{Client, Feed, Shared};
use super::link::Link;
use super::plan::{Mode, Plan};
use super::report::Report;
use crate::error::{Error, ErrorKind, Result};

/// Carries out `plan` on the runtime that this is called on, whose I/O and time drivers must be enabled.
///
/// All connections are opened before the first request is sent and before the clock starts. A connection that breaks
/// costs the request on it and is opened anew; a request that it had not taken yet is sent over the new one. The run
/// ends when every request has its answer, when no client has a connection left, or at the deadline, whichever comes
/// first; reaching the deadline is no error, and shows as [`Report::unfinished`].
///
/// Dropping the future closes all connections; what was found by then is lost.
///
/// # Errors
///
/// - [`ErrorKind::Config`] where the plan cannot be carried out; the text names the limit.
/// - [`ErrorKind::ConnectFailed`] where one of the first connections could not be opened.
/// - [`ErrorKind::DeadlineExceeded`] where the deadline came before they were all open.
/// - [`ErrorKind::Internal`] where the thread that paces an open loop could not be started.
pub async fn run(plan: &Plan) -> Result<Report> {
    plan.check()?;
    let deadline = Instant::now() + plan.deadline;
    let links = timeout_at(deadline, open_all(plan)).await.map_err(|_| {
        let clients = plan.clients;
        let message = format!("deadline {:?} passed before {clients} connections were open", plan.deadline);
        Error::new(ErrorKind::DeadlineExceeded, message)
    })??;
    let shared = Arc::new(Shared::new(plan)?);
    let start = StdInstant::now();
    let pacer = pace(plan, start)?;
    let mut clients = start_clients(&shared, links, pacer.as_ref());
    // At the deadline the report stands as it is; the clients are stopped where they are.
    let _ = timeout_at(deadline, all_done(&mut clients, &shared)).await;
    let elapsed = start.elapsed();
    let planned = planned(plan, pacer.as_ref());
    drop(pacer);
    clients.shutdown().await;
    let mut report = std::mem::replace(&mut *shared.report.lock(), Report::new()?);
    report.sent = shared.sent.load(Ordering::Relaxed);
    report.finish(planned, elapsed);
    Ok(report)
}

async fn open_all(plan: &Plan) -> Result<Vec<Link>> {
    let mut links = Vec::with_capacity(plan.clients);
    for _ in 0..plan.clients {
        links.push(Link::open(plan.target.address()).await?);
    }
    Ok(links)
}

fn pace(plan: &Plan, start: StdInstant) -> Result<Option<Pacer>> {
    match plan.mode {
        Mode::Closed { .. } => Ok(None),
        Mode::Open { rate_per_second, duration, spacing } => {
            let schedule = Schedule::new(rate_per_second, duration, spacing);
            Pacer::start(schedule, start, plan.clients).map(Some)
        }
    }
}

fn start_clients(shared: &Arc<Shared>, links: Vec<Link>, pacer: Option<&Pacer>) -> JoinSet<()> {
    let clients = links.len();
    let mut tasks = JoinSet::new();
    for (client, link) in links.into_iter().enumerate() {
        let feed = match (&shared.plan.mode, pacer) {
            (Mode::Closed { requests_per_client: requests }, _) => {
                Feed::Closed { client, clients, turn: 0, requests: *requests }
            }
            (Mode::Open { .. }, Some(pacer)) => Feed::Open(Arc::clone(pacer.arrivals())),
            (Mode::Open { .. }, None) => continue,
        };
        tasks.spawn(Client::new(Arc::clone(shared), feed, link).work());
    }
    tasks
}

async fn all_done(clients: &mut JoinSet<()>, shared: &Shared) {
    while let Some(ended) = clients.join_next().await {
        // A client that panicked sends no more, which the report must not hide.
        shared.report.lock().gave_up += u64::from(ended.is_err());
    }
}

fn planned(plan: &Plan, pacer: Option<&Pacer>) -> u64 {
    match plan.mode {
        Mode::Closed { requests_per_client } => plan.clients.saturating_mul(requests_per_client) as u64,
        Mode::Open { .. } => pacer.map_or(0, |pacer| pacer.arrivals().released()),
    }
}
