//! A request over as many attempts as it takes and may have.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::answer::Answer;
use super::attempt::Errand;
use super::fleet::Fleet;
use super::grpc::Duplex;
use super::http1::Lost;
use super::retry::{Failed, Retry};
use crate::error::Result;

/// A request until the head of its answer.
pub(super) async fn open(fleet: &Arc<Fleet>, errand: &Errand<'_>) -> Result<Box<Answer>> {
    let trip = fleet.begin(errand.request, &[], true)?;
    let number = trip.number();
    match errand.attempt(trip, 1).await {
        Ok(answer) if !fleet.retry.repeats(errand.request, 1, answer.response.status) => Ok(answer),
        // The rare path is boxed: a request that goes well does not carry it.
        first => Box::pin(again(fleet, errand, first, 1, vec![number])).await,
    }
}

/// What follows an attempt that did not do: others, as far as they are allowed, or its end.
pub(super) async fn again(
    fleet: &Arc<Fleet>,
    errand: &Errand<'_>,
    mut outcome: std::result::Result<Box<Answer>, Lost>,
    mut attempts: u32,
    mut tried: Vec<usize>,
) -> Result<Box<Answer>> {
    loop {
        let pause = match &outcome {
            Ok(answer) => {
                let repeats = fleet.retry.repeats(errand.request, attempts, answer.response.status);
                let asked_for = answer.response.retry_after().unwrap_or_default();
                repeats.then(|| turn(fleet, errand, attempts, tried.len(), asked_for)).flatten()
            }
            Err(lost) => after_loss(fleet, errand, lost, attempts, tried.len()),
        };
        let Some(pause) = pause else { return outcome.map_err(|lost| lost.error) };
        if let Ok(answer) = outcome {
            answer.let_go();
        }
        sleep(pause).await;
        attempts += 1;
        let trip = fleet.begin(errand.request, &tried, false)?;
        tried.push(trip.number());
        outcome = errand.attempt(trip, attempts).await;
    }
}

/// A stream of messages, opened at whichever endpoint has a connection for it. Once it is open it is never tried again.
pub(super) async fn open_duplex(fleet: &Arc<Fleet>, errand: &Errand<'_>) -> Result<Duplex> {
    let (mut attempts, mut tried) = (1, Vec::new());
    loop {
        let trip = fleet.begin(errand.request, &tried, attempts == 1)?;
        tried.push(trip.number());
        let lost = match errand.attempt_duplex(trip).await {
            Ok(duplex) => return Ok(duplex),
            Err(lost) => lost,
        };
        let Some(pause) = after_loss(fleet, errand, &lost, attempts, tried.len()) else {
            return Err(lost.error);
        };
        sleep(pause).await;
        attempts += 1;
    }
}

/// The pause before the attempt that follows a lost one; none where none may.
fn after_loss(
    fleet: &Fleet,
    errand: &Errand<'_>,
    lost: &Lost,
    attempts: u32,
    tried: usize,
) -> Option<Duration> {
    let failed = Failed { kind: lost.error.kind(), unsent: lost.unsent, silent: lost.silent };
    let allowed = fleet.retry.allows(errand.request, attempts, failed);
    allowed.then(|| turn(fleet, errand, attempts, tried, Duration::ZERO)).flatten()
}

/// The pause before the next attempt; none where it would come too late, or where the budget is spent.
fn turn(
    fleet: &Fleet,
    errand: &Errand<'_>,
    attempts: u32,
    tried: usize,
    asked_for: Duration,
) -> Option<Duration> {
    let elsewhere = fleet.count_for(errand.request) > tried;
    let pause = Retry::pause(attempts, elsewhere, fastrand::f64());
    let pause = if elsewhere { pause } else { pause.max(asked_for) };
    let over = Instant::now().checked_add(pause);
    let late = errand.deadlines.end().is_some_and(|end| over.is_none_or(|over| over >= end));
    (!late && fleet.may_retry()).then_some(pause)
}
