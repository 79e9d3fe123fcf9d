//! Whether a model's other end is ready: asked now and then, and at once when a batch has failed on its way.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::upstream::Remote;
use crate::client::{Client, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Endpoint;
use crate::wire::grpc::Code;
use crate::wire::oip::Question;

/// How long the other end may take to say that it is ready.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often one that is not ready is asked.
const WHILE_SICK: Duration = Duration::from_secs(1);

/// A model's other end, as far as it can be asked whether it is ready.
pub(super) trait Asked: Send + Sync + 'static {
    /// The model.
    fn endpoint(&self) -> &Endpoint;

    /// Asks whether it is ready, within `limit`.
    ///
    /// # Errors
    /// Why it is not.
    fn ask(&self, limit: Duration) -> impl Future<Output = Result<()>> + Send;
}

/// True for a failure that says something of the other end, or of the way there.
pub(super) fn raises_doubt(kind: ErrorKind) -> bool {
    let transport = [ErrorKind::Transport.meaning().class, ErrorKind::ConnectTimeout.meaning().class];
    transport.contains(&kind.meaning().parent) || transport.contains(&kind.meaning().class)
}

/// Keeps the model's readiness that of its other end, until it is dropped. `doubt` has it asked at once.
pub(super) async fn watch(remote: Arc<impl Asked>, doubt: Arc<Notify>, interval: Option<Duration>) {
    let mut well = true;
    loop {
        let pause = if well { interval } else { Some(WHILE_SICK) };
        match pause {
            // Either way it is time to ask.
            Some(pause) => drop(timeout(pause, doubt.notified()).await),
            None => doubt.notified().await,
        }
        let asked = remote.ask(ANSWER_LIMIT).await;
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

impl Asked for Remote {
    fn endpoint(&self) -> &Endpoint {
        Self::endpoint(self)
    }

    async fn ask(&self, limit: Duration) -> Result<()> {
        let (request, question): (Request, Question) = self.question(limit)?;
        let response = Client::send(self.route(), request).await?;
        let ready = match &response.grpc {
            None => response.status.is_success(),
            Some(end) if end.code == Code::Ok => {
                question.answer(&response.body)?.get("ready").and_then(serde_json::Value::as_bool)
                    == Some(true)
            }
            Some(end) => return end.error(&response.endpoint).map_or(Ok(()), Err),
        };
        if ready {
            return Ok(());
        }
        let message = format!("{} answered {}", response.endpoint, response.status.as_u16());
        Err(Error::new(ErrorKind::ModelNotReady, message))
    }
}
