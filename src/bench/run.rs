//! Carries out a plan, from opening the connections to closing the books.

use std::sync::Arc;
use std::time::Instant as StdInstant;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::arrivals::{Pacer, Schedule};
use super::client::{Client, Shared};
use super::feed::{Feed, Source};
use super::ledger::{Ledger, Watch};
use super::link::{Link, Way};
use super::plan::{Mode, Plan};
use super::prepared::Prepared;
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
/// - [`ErrorKind::ConnectFailed`] or [`ErrorKind::ConnectTimeout`] where one of the first connections could not be
///   opened.
/// - [`ErrorKind::DeadlineExceeded`] where the deadline came before they were all open.
/// - [`ErrorKind::Internal`] where the timer that paces an open loop failed.
pub async fn run(plan: &Plan) -> Result<Report> {
    run_watched(plan, &Watch::new()?).await
}

/// As [`run`], while `watch` looks on from another thread and may end it early.
///
/// # Errors
///
/// As [`run`]; and [`ErrorKind::Closed`] where it was ended before all connections were open.
pub async fn run_watched(plan: &Plan, watch: &Watch) -> Result<Report> {
    plan.check()?;
    let deadline = Instant::now() + plan.deadline;
    let prepared = Prepared::new(plan)?;
    let ledger = watch.ledger();
    let links = tokio::select! {
        links = timeout_at(deadline, open_all(plan, &prepared)) => links.map_err(|_| {
            let clients = plan.clients;
            let message = format!("deadline {:?} passed before {clients} connections were open", plan.deadline);
            Error::new(ErrorKind::DeadlineExceeded, message)
        })??,
        () = ledger.asked_to_stop() => {
            return Err(Error::new(ErrorKind::Closed, "the run was ended before its connections were open"));
        }
    };
    let shared = Arc::new(Shared { plan: plan.clone(), prepared, ledger: Arc::clone(ledger) });
    let start = StdInstant::now();
    let pacer = pace(plan, start)?;
    let source = Source::new(plan, start, pacer.as_ref().map(Pacer::arrivals)).map(Arc::new);
    let source = source.ok_or_else(|| Error::new(ErrorKind::Internal, "an open loop has no arrivals"))?;
    ledger.open(source.counted_from());
    let mut clients = start_clients(&shared, &source, links);
    // At the deadline the report stands as it is; the clients are stopped where they are.
    let timed_out = tokio::select! {
        ended = timeout_at(deadline, all_done(&mut clients, ledger)) => ended.is_err(),
        () = ledger.asked_to_stop() => false,
    };
    let elapsed = StdInstant::now().saturating_duration_since(source.counted_from());
    let planned = source.planned();
    let backlog = pacer.as_ref().map_or(0, |pacer| pacer.arrivals().backlog());
    clients.shutdown().await;
    pacer.map_or(Ok(()), Pacer::finish)?;
    let mut report = ledger.close()?;
    (report.timed_out, report.backlog) = (timed_out, backlog);
    report.finish(planned, elapsed);
    Ok(report)
}

async fn open_all(plan: &Plan, prepared: &Prepared) -> Result<Vec<(Way, Link)>> {
    let mut links = Vec::with_capacity(plan.clients);
    for way in Way::of(plan.protocol, plan.clients) {
        let (link, _) = Link::open(&way, prepared).await?;
        links.push((way, link));
    }
    Ok(links)
}

fn pace(plan: &Plan, start: StdInstant) -> Result<Option<Pacer>> {
    match plan.mode {
        Mode::Closed { .. } | Mode::Shared { .. } | Mode::Timed { .. } => Ok(None),
        Mode::Open { rate_per_second, duration, spacing } => {
            let schedule = Schedule::new(rate_per_second, plan.warmup + duration, spacing);
            Pacer::start(schedule, start, plan.clients, plan.warmup).map(Some)
        }
    }
}

fn start_clients(shared: &Arc<Shared>, source: &Arc<Source>, links: Vec<(Way, Link)>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (client, (way, link)) in links.into_iter().enumerate() {
        let feed = Feed::new(Arc::clone(source), client);
        tasks.spawn(Client::new(Arc::clone(shared), feed, way, link).work());
    }
    tasks
}

async fn all_done(clients: &mut JoinSet<()>, ledger: &Ledger) {
    while let Some(ended) = clients.join_next().await {
        // A client that panicked sends no more, which the report must not hide.
        ledger.books().gave_up += u64::from(ended.is_err());
    }
}
