//! Models on other servers, from Python: how their batches are asked for.

use std::sync::Arc;

use pyo3::prelude::*;

use super::client::{Lent, NativeClient};
use super::errors::to_python;
use super::shift::Served;
use crate::batch::Shift;
use crate::gateway::{Relayed, Remote, RemoteSettings};
use crate::pipeline::Tally;
use crate::runtime;

/// How batches are asked for, as attributes of any object.
#[derive(FromPyObject)]
pub(crate) struct RemoteTerms {
    model: String,
    version: Option<String>,
    path: String,
    ready_path: String,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    binary: bool,
    idempotent: bool,
    concurrency: usize,
}

/// Has `client` carry the batches of that shift.
pub(super) fn start(
    py: Python<'_>,
    served: &Served,
    shift: &Arc<Shift>,
    client: &NativeClient,
    terms: RemoteTerms,
) -> PyResult<Relayed> {
    let Lent { client, defaults, timeouts, max_response, health_interval } = client.lent(py)?;
    let RemoteTerms { model, version, path, ready_path, headers, binary, idempotent, concurrency } = terms;
    let named = |name: &[u8]| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let defaults = defaults.into_iter().filter(|(name, _)| !named(name));
    let settings = RemoteSettings {
        fields: defaults.chain(headers.clone()).collect(),
        isolate: served.isolate,
        model,
        version,
        path,
        ready_path,
        binary,
        idempotent,
        concurrency,
        timeouts,
        max_response,
        health_interval,
    };
    let tally: Arc<dyn Tally> = Arc::clone(&served.counters) as _;
    let ends = (Arc::clone(&served.endpoint), Arc::clone(shift));
    let started =
        runtime::handle().and_then(|handle| Remote::start(&client, ends, settings, &tally, &handle));
    let started = started.map_err(|error| to_python(py, &error))?;
    served.pools.add(&served.label, &client);
    Ok(started)
}
