//! Requests and batches that are recorded for their traces, as `penstock._tracing` makes spans of them.
//!
//! Names follow the semantic conventions of OpenTelemetry: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::batch::Parts;
use crate::flow::{TraceContext, WallClock};
use crate::pipeline::{BatchAccount, ModelSpec};
use crate::serve::AccessRecord;

/// A batch that is done, with a request that is recorded.
pub(super) struct BatchRecord {
    model: Arc<ModelSpec>,
    batch: Arc<BatchAccount>,
}

impl BatchRecord {
    pub(super) fn new(model: &Arc<ModelSpec>, batch: &Arc<BatchAccount>) -> Self {
        Self { model: Arc::clone(model), batch: Arc::clone(batch) }
    }

    /// The span, where it has one.
    pub(super) fn shown<'py>(
        &self,
        py: Python<'py>,
        wall: WallClock,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(own) = self.batch.trace() else { return Ok(None) };
        let batch = &self.batch;
        let said = PyDict::new(py);
        said.set_item("penstock.model", &self.model.name)?;
        said.set_item("penstock.model.version", &self.model.version)?;
        said.set_item("penstock.batch.number", batch.cut.number)?;
        said.set_item("penstock.batch.size", batch.rows)?;
        said.set_item("penstock.batch.reason", batch.reason)?;
        said.set_item("penstock.batch.failed", batch.failed)?;
        for (name, part) in Parts::NAMES.into_iter().zip(batch.parts().each()) {
            said.set_item(format!("penstock.batch.{name}_seconds"), part.as_secs_f64())?;
        }
        let members = batch.trace.members();
        let links: Vec<_> =
            members.iter().filter(|member| member.sampled).map(|member| ids(member)).collect();
        let failure =
            (batch.failed > 0 && batch.failed == batch.rows).then_some("every request of the batch failed");
        let times = (nanos(wall.at(batch.taken)), nanos(wall.at(batch.done)));
        let place = (ids(&own), batch.trace.parent().map(u64::from_be_bytes), own.state.as_deref());
        ("batch", place, times, said, links, failure, None::<(u64, u64)>).into_pyobject(py).map(Some)
    }
}

/// The spans of a request: its own, and that of its wait.
pub(super) fn of_request<'py>(
    py: Python<'py>,
    record: &AccessRecord,
    wall: WallClock,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let Some(trace) = record.trace.as_ref().filter(|trace| trace.recorded) else { return Ok(None) };
    let said = PyDict::new(py);
    said.set_item("http.request.method", record.method.as_str())?;
    said.set_item("url.path", record.path.as_str())?;
    said.set_item("network.protocol.name", "http")?;
    said.set_item("network.protocol.version", if record.protocol == "http/1.1" { "1.1" } else { "2" })?;
    said.set_item("http.request.body.size", record.request_bytes)?;
    said.set_item("http.response.body.size", record.response_bytes)?;
    match record.code {
        Some(code) => {
            let (service, method) =
                record.path.as_str().trim_start_matches('/').split_once('/').unwrap_or_default();
            said.set_item("rpc.system", "grpc")?;
            said.set_item("rpc.service", service)?;
            said.set_item("rpc.method", method)?;
            said.set_item("rpc.grpc.status_code", code.number())?;
        }
        None => said.set_item("http.response.status_code", record.status)?,
    }
    if let Some(peer) = record.peer {
        said.set_item("client.address", peer.ip().to_string())?;
        said.set_item("client.port", peer.port())?;
    }
    set(&said, "penstock.request.id", record.id.as_deref())?;
    set(&said, "penstock.model", record.model_name())?;
    set(&said, "penstock.rows", record.rows)?;
    set(&said, "penstock.batch.size", record.batch)?;
    set(&said, "penstock.batch.reason", record.reason)?;
    let failure = match record.code {
        Some(code) => (record.status >= 500).then(|| code.name().to_owned()),
        None => (record.status >= 500).then(|| record.status.to_string()),
    };
    if let Some(failure) = &failure {
        said.set_item("error.type", failure)?;
    }
    let spans = record.spans.as_deref();
    let links: Vec<_> = spans.and_then(|spans| spans.batch.as_ref()).map(ids).into_iter().collect();
    let ended = wall.at(record.at);
    let before = |at: SystemTime, time: Duration| at.checked_sub(time).unwrap_or(at);
    let waited = spans.map(|spans| (wall.at(spans.taken), spans.waited));
    let waited = waited.map(|(taken, waited)| (nanos(before(taken, waited)), nanos(taken)));
    let place = (ids(&trace.context), trace.parent.map(u64::from_be_bytes), trace.context.state.as_deref());
    let times = (nanos(before(ended, record.took)), nanos(ended));
    ("request", place, times, said, links, failure, waited).into_pyobject(py).map(Some)
}

fn set<'py, T: IntoPyObject<'py>>(said: &Bound<'py, PyDict>, name: &str, value: Option<T>) -> PyResult<()> {
    value.map_or(Ok(()), |value| said.set_item(name, value))
}

/// The numbers of a trace and of a span, as OpenTelemetry has them.
fn ids(context: &TraceContext) -> (u128, u64) {
    (u128::from_be_bytes(context.trace_id), u64::from_be_bytes(context.span_id))
}

/// Nanoseconds since 1970.
fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
