//! Whether a model's other end is ready: asked now and then, and at once when a batch has failed on its way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::upstream::Remote;
use crate::client::{Client, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::grpc::Code;
use crate::wire::oip::Question;

/// How long the other end may take to say that it is ready.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often one that is not ready is asked.
const WHILE_SICK: Duration = Duration::from_secs(1);

/// Keeps the model's readiness that of its other end, until it is dropped. `doubt` has it asked at once.
pub(super) async fn watch(remote: Arc<Remote>, doubt: Arc<Notify>, interval: Option<Duration>) {
    let mut well = true;
    loop {
        let pause = if well { interval } else { Some(WHILE_SICK) };
        match pause {
            // Either way it is time to ask.
            Some(pause) => drop(timeout(pause, doubt.notified()).await),
            None => doubt.notified().await,
        }
        let asked = ask(&remote).await;
        if asked.is_ok() != well {
            well = asked.is_ok();
            let model = remote.endpoint().spec.name.as_str();
            match &asked {
                Ok(()) => tracing::info!(target: "penstock::gateway", model, "the upstream is ready again"),
                Err(why) => {
                    tracing::warn!(target: "penstock::gateway", model, %why, "the upstream is not ready");
                }
            }
            remote.endpoint().set_well(well);
        }
    }
}

async fn ask(remote: &Remote) -> Result<()> {
    let (request, question): (Request, Question) = remote.question(ANSWER_LIMIT)?;
    let response = Client::send(remote.route(), request).await?;
    let ready = match &response.grpc {
        None => response.status.is_success(),
        Some(end) if end.code == Code::Ok => {
            question.answer(&response.body)?.get("ready").and_then(serde_json::Value::as_bool) == Some(true)
        }
        Some(end) => return end.error(&response.endpoint).map_or(Ok(()), Err),
    };
    if ready {
        return Ok(());
    }
    let message = format!("{} answered {}", response.endpoint, response.status.as_u16());
    Err(Error::new(ErrorKind::ModelNotReady, message))
}
