//! Whether a server is ready: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>, else the Open Inference
//! Protocol.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use super::super::http2::Http2;
use super::super::request::{Deadlines, GrpcCall, Request, Timeouts};
use super::{Caller, call};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::grpc::proto::health::health_check_response::ServingStatus;
use crate::wire::grpc::proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::wire::grpc::proto::inference::ServerReadyResponse;
use crate::wire::grpc::{Code, framed};
use crate::wire::oip::Question;

/// Bytes of the answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// Who can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Service {
    /// `grpc.health.v1.Health`.
    Health,
    /// `inference.GRPCInferenceService`.
    Inference,
}

/// What a server says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) enum Readiness {
    Ready,
    /// With what it said.
    NotReady(String),
    /// It does not know the question, or does not answer it for such as us; with what it said.
    Unknown(String),
}

/// Asks a server whether it is ready.
///
/// # Errors
/// Those of a call.
pub(in crate::client) async fn is_ready(
    service: Service,
    http2: &Http2,
    caller: &Caller,
    limit: Duration,
    endpoint: &Arc<str>,
) -> Result<Readiness> {
    let mut request = Request::call(service.question())?;
    request.timeouts = Timeouts { first: None, idle: None, total: Some(limit), ..Timeouts::default() };
    request.max_response = MAX_ANSWER;
    let deadlines = Deadlines::new(request.timeouts, Instant::now());
    let came = call(http2, caller, &request, &deadlines, endpoint).await.map_err(|lost| lost.error)?;
    match came.end.code {
        Code::Ok => service.read(&came.message, endpoint),
        code => {
            let said = format!("{} {}", code.name(), came.end.message);
            let is_down = code == Code::Unavailable;
            Ok(if is_down { Readiness::NotReady(said) } else { Readiness::Unknown(said) })
        }
    }
}

impl Service {
    fn question(self) -> GrpcCall {
        let (path, message) = match self {
            Self::Health => ("/grpc.health.v1.Health/Check", framed(&HealthCheckRequest::default())),
            Self::Inference => (Question::Ready.grpc_path(), Question::Ready.message()),
        };
        GrpcCall { path: Cow::Borrowed(path), message }
    }

    fn read(self, message: &Bytes, endpoint: &str) -> Result<Readiness> {
        let unreadable = |error| {
            let message = format!("{endpoint} answers a health check with what is no answer to it");
            Error::with_source(ErrorKind::ProtocolError, message, error)
        };
        let message = message.clone();
        let (ready, said) = match self {
            Self::Health => {
                let status = HealthCheckResponse::decode(message).map_err(unreadable)?.status();
                (status == ServingStatus::Serving, status.as_str_name())
            }
            Self::Inference => {
                let ready = ServerReadyResponse::decode(message).map_err(unreadable)?.ready;
                (ready, "ready=false")
            }
        };
        Ok(if ready { Readiness::Ready } else { Readiness::NotReady(said.to_owned()) })
    }
}
