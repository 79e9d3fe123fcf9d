//! Models of text on other servers, from Python: how they are asked.

use std::sync::Arc;

use pyo3::prelude::*;

use super::client::{Lent, NativeClient};
use super::errors::{raised, to_python};
use super::shift::Served;
use crate::batch::Shift;
use crate::error::ErrorKind;
use crate::gateway::Relayed;
use crate::gateway::text::{TextProtocol, TextSettings, TextUpstream};
use crate::pipeline::Tally;
use crate::runtime;

/// How text is asked for, as attributes of any object.
#[derive(FromPyObject)]
pub(crate) struct TextTerms {
    protocol: String,
    prefix: String,
    ready_path: String,
    model: String,
    version: Option<String>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    concurrency: usize,
    max_event: usize,
}

/// Has `client` carry the requests of that shift.
pub(super) fn start(
    py: Python<'_>,
    served: &Served,
    shift: &Arc<Shift>,
    client: &NativeClient,
    terms: TextTerms,
) -> PyResult<Relayed> {
    let Lent { client, defaults, timeouts, max_response, health_interval } = client.lent(py)?;
    let named = |name: &[u8]| terms.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let defaults: Vec<_> = defaults.into_iter().filter(|(name, _)| !named(name)).collect();
    let protocol = TextProtocol::from_name(&terms.protocol);
    let protocol = protocol.ok_or_else(|| raised(py, ErrorKind::Config, "there are openai and generate"))?;
    let settings = TextSettings {
        protocol,
        prefix: terms.prefix,
        ready_path: terms.ready_path,
        model: terms.model,
        version: terms.version,
        headers: defaults.into_iter().chain(terms.headers).collect(),
        timeouts,
        max_event: terms.max_event,
        max_response,
        concurrency: terms.concurrency,
        health_interval,
        isolate: served.isolate,
    };
    let tally: Arc<dyn Tally> = Arc::clone(&served.counters) as _;
    let ends = (Arc::clone(&served.endpoint), Arc::clone(shift));
    let started =
        runtime::handle().and_then(|handle| TextUpstream::start(&client, ends, settings, &tally, &handle));
    let started = started.map_err(|error| to_python(py, &error))?;
    served.pools.add(&served.label, &client);
    Ok(started)
}
