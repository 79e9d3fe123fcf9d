//! What a client's pools count, as OpenMetrics text: `penstock_pool_*`, labelled by endpoint.
//!
//! The counters live in the pools; here they are read when somebody asks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use smallvec::SmallVec;

use super::owner::{Client, EndpointStats};
use crate::pool::{PoolStats, Retired};

/// Everything that the pools of a client count, in the text format of OpenMetrics 1.0.
pub fn metrics_text(client: &Client) -> String {
    let mut registry = Registry::with_prefix("penstock");
    let stats: Vec<_> = client.stats().into_iter().map(|endpoint| (None, endpoint)).collect();
    registry.register_collector(Box::new(Pools(move || stats.clone())));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

/// The same among other metrics, of whatever clients `stats` tells of whenever the text is made: endpoints, each with the
/// label of a model that its client serves.
pub fn pool_collector(
    stats: impl Fn() -> Vec<(Arc<str>, EndpointStats)> + Send + Sync + 'static,
) -> Box<dyn Collector> {
    let labelled = move || stats().into_iter().map(|(model, endpoint)| (Some(model), endpoint)).collect();
    Box::new(Pools(labelled))
}

/// An endpoint, and the model that it belongs to, where it does.
type Labelled = (Option<Arc<str>>, EndpointStats);

struct Pools<F>(F);

impl<F> fmt::Debug for Pools<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pools")
    }
}

type Read<T> = fn(&PoolStats) -> T;

const GAUGES: [(&str, &str, Read<usize>); 6] = [
    ("connections", "Connections that are open", |stats| stats.size),
    ("connections_idle", "Connections that carry nothing", |stats| stats.idle),
    ("connections_in_use", "Connections that carry a request", |stats| stats.in_use),
    ("connections_opening", "Connections that are being opened", |stats| stats.connecting),
    ("leases", "Requests that have a connection", |stats| stats.leases),
    ("waiting", "Requests that wait for a connection", |stats| stats.waiting),
];

const COUNTERS: [(&str, &str, Read<u64>); 11] = [
    ("created", "Connections that were opened", |stats| stats.created),
    ("failed", "Connections that could not be opened", |stats| stats.failed),
    ("acquired", "Requests that got a connection", |stats| stats.acquired),
    ("reused", "Requests that got a connection that had carried another", |stats| stats.reused),
    ("waited", "Requests that had to wait for a connection", |stats| stats.waited),
    ("acquire_timeouts", "Requests that waited until their time was up", |stats| stats.timed_out),
    ("cancelled", "Requests that left while they waited", |stats| stats.cancelled),
    ("refused", "Requests for which no connection could be opened", |stats| stats.refused),
    ("checks_passed", "Health checks that went well", |stats| stats.checks_passed),
    ("checks_failed", "Health checks that failed", |stats| stats.checks_failed),
    ("held_too_long", "Connections that were held for longer than held_too_long", |stats| {
        stats.held_too_long
    }),
];

impl<F: Fn() -> Vec<Labelled> + Send + Sync + 'static> Collector for Pools<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        Endpoints((self.0)()).encode(encoder)
    }
}

struct Endpoints(Vec<Labelled>);

impl Endpoints {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, read) in GAUGES {
            self.family(&mut encoder, name, help, None, |endpoint| {
                ConstGauge::new(count(read(&endpoint.pool)))
            })?;
        }
        for (name, help, read) in COUNTERS {
            self.family(&mut encoder, name, help, None, |endpoint| ConstCounter::new(read(&endpoint.pool)))?;
        }
        let ejected = "1 while the endpoint is left out";
        self.family(&mut encoder, "ejected", ejected, None, |endpoint| {
            ConstGauge::new(i64::from(endpoint.ejected))
        })?;
        let outstanding = "Requests to the endpoint that are not over";
        self.family(&mut encoder, "outstanding", outstanding, None, |endpoint| {
            ConstGauge::new(count(endpoint.outstanding))
        })?;
        let rate = "Share of requests that reused a connection";
        self.family(&mut encoder, "reuse", rate, Some(&Unit::Ratios), |endpoint| {
            ConstGauge::new(endpoint.pool.reuse_rate())
        })?;
        for (name, help, read) in [
            ("acquire_p50", "The wait for a connection that half did not exceed", wait_p50 as Read<f64>),
            ("acquire_p99", "The wait for a connection that 99 % did not exceed", wait_p99),
        ] {
            let unit = Some(&Unit::Seconds);
            self.family(&mut encoder, name, help, unit, |endpoint| ConstGauge::new(read(&endpoint.pool)))?;
        }
        self.retired(&mut encoder)
    }

    fn family<M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        metric: impl Fn(&EndpointStats) -> M,
    ) -> Result<(), fmt::Error> {
        let metrics: Vec<M> = self.0.iter().map(|(_, endpoint)| metric(endpoint)).collect();
        let Some(first) = metrics.first() else { return Ok(()) };
        let name = format!("pool_{name}");
        let mut family = encoder.encode_descriptor(&name, help, unit, first.metric_type())?;
        for (labelled, metric) in self.0.iter().zip(&metrics) {
            metric.encode(family.encode_family(&labels_of(labelled).as_slice())?)?;
        }
        Ok(())
    }

    fn retired(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Connections that took no more requests, by why";
        let kind = ConstCounter::new(0_u64).metric_type();
        if self.0.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor("pool_retired", help, None, kind)?;
        for labelled in &self.0 {
            for reason in Retired::ALL {
                let mut labels = labels_of(labelled);
                labels.push(("reason", reason.name()));
                let counter = ConstCounter::new(labelled.1.pool.retired_for(reason));
                counter.encode(family.encode_family(&labels.as_slice())?)?;
            }
        }
        Ok(())
    }
}

fn labels_of((model, endpoint): &Labelled) -> SmallVec<[(&'static str, &str); 3]> {
    let model = model.as_deref().map(|model| ("model", model));
    model.into_iter().chain([("endpoint", &*endpoint.endpoint)]).collect()
}

fn wait_p50(stats: &PoolStats) -> f64 {
    stats.wait_p50.as_secs_f64()
}

fn wait_p99(stats: &PoolStats) -> f64 {
    stats.wait_p99.as_secs_f64()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
