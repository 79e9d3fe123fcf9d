//! The standard health service: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::closing;
use super::method::INFERENCE;
use crate::serve::Service;
use crate::wire::grpc::proto::health::health_check_response::ServingStatus;
use crate::wire::grpc::proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListResponse};
use crate::wire::grpc::{Code, Status, framed};

/// How often a watched service is looked at although nothing is said of it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Services that stand for the probes which HTTP has paths for.
const LIVE: &str = "penstock.live";
const STARTED: &str = "penstock.started";

/// Whether a service serves: all models by `""` or the name of the inference service, one by its own.
fn serving(service: &Service, name: &str) -> Option<ServingStatus> {
    let serves = match name {
        "" | INFERENCE => service.is_ready(),
        LIVE => service.is_alive(),
        STARTED => service.is_started(),
        model => service.model(model, None).ok()?.is_ready() && !service.is_closing(),
    };
    Some(if serves { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Whether a service serves.
///
/// # Errors
/// [`Code::NotFound`] for one that is not known.
pub(super) fn check(service: &Service, asked: &HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
    let name = &asked.service;
    serving(service, name).map(response).ok_or_else(|| {
        let message = format!(
            "there is no service '{name}'; there are '', '{INFERENCE}', '{LIVE}', '{STARTED}' and the models"
        );
        Status::new(Code::NotFound, message)
    })
}

/// Whether each service serves.
pub(super) fn list(service: &Service) -> HealthListResponse {
    let models = service.defaults().into_iter().map(|model| model.spec.name.clone());
    let names = ["", INFERENCE].into_iter().map(str::to_owned).chain(models);
    let statuses = names.filter_map(|name| {
        let status = response(serving(service, &name)?);
        Some((name, status))
    });
    HealthListResponse { statuses: statuses.collect() }
}

/// Says whether a service serves, and again at each change, until the server closes.
pub(super) async fn watch(
    service: Arc<Service>,
    asked: HealthCheckRequest,
    answers: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let mut changes = service.changes();
    let mut told = None;
    loop {
        // Marked as seen before it is looked at, so that nothing is missed.
        let is_closing = *changes.borrow_and_update();
        let now = serving(&service, &asked.service).unwrap_or(ServingStatus::ServiceUnknown);
        if told.replace(now) != Some(now) && answers.send(framed(&response(now))).await.is_err() {
            return Ok(());
        }
        if is_closing {
            return Err(closing());
        }
        // Nobody says that a heart has stopped: it is looked for.
        if timeout(LOOK_AGAIN, changes.changed()).await.is_ok_and(|changed| changed.is_err()) {
            return Err(closing());
        }
    }
}
