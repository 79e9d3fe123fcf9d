//! What the connections of all remote models of a server count.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::client::{Client, EndpointStats, pool_collector};
use crate::metrics::Registry;

/// The clients of the remote models that are loaded, each with the label of its model.
#[derive(Default)]
pub struct Pools(Mutex<Vec<(Arc<str>, Weak<Client>)>>);

impl Pools {
    /// Pools that stand among the metrics of `registry`.
    pub fn new(registry: &Registry) -> Arc<Self> {
        let pools = Arc::<Self>::default();
        let seen = Arc::downgrade(&pools);
        registry
            .collect(pool_collector(move || seen.upgrade().map(|pools| pools.stats()).unwrap_or_default()));
        pools
    }

    /// Adds a client, for as long as it lives.
    pub fn add(&self, model: &str, client: &Arc<Client>) {
        let mut known = self.0.lock();
        known.retain(|(_, client)| client.strong_count() > 0);
        known.push((model.into(), Arc::downgrade(client)));
    }

    /// What each endpoint counts, with the label of its model. Of two loads of a model, the last one's.
    pub fn stats(&self) -> Vec<(Arc<str>, EndpointStats)> {
        let clients: Vec<_> = {
            let known = self.0.lock();
            known.iter().filter_map(|(model, client)| Some((Arc::clone(model), client.upgrade()?))).collect()
        };
        let mut stats = Vec::<(Arc<str>, EndpointStats)>::new();
        for (model, client) in clients.iter().rev() {
            if stats.iter().all(|(other, _)| other != model) {
                stats.extend(client.stats().into_iter().map(|endpoint| (Arc::clone(model), endpoint)));
            }
        }
        stats
    }
}
