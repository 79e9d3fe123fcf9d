//! What a server serves at one time: models by name. It is never changed, only replaced by another.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::flow::Monitor;
use crate::models::ModelId;
use crate::pipeline::{Endpoint, ModelSpec};

/// Models by name, and by what their cache calls them.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    /// The versions of each name, the highest first.
    by_name: BTreeMap<String, Vec<Arc<Listing>>>,
    residents: HashMap<ModelId, Arc<Listing>, ahash::RandomState>,
}

/// A model for as long as it is served, or somebody who found it has not put his request into its queue.
struct Listing {
    endpoint: Arc<Endpoint>,
    left: Arc<Monitor<bool>>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        *self.left.lock() = true;
        self.left.wake_all();
    }
}

/// A model that was found. One that is taken away is closed when nobody has found it any more: who has must keep this until
/// his request is in its queue.
#[derive(Clone)]
pub struct Found(Arc<Listing>);

impl Deref for Found {
    type Target = Arc<Endpoint>;

    fn deref(&self) -> &Arc<Endpoint> {
        &self.0.endpoint
    }
}

/// A model that was taken away, and those who had found it before.
pub struct Departure {
    left: Arc<Monitor<bool>>,
}

impl Departure {
    /// Blocks until all of them have their requests in its queue, or have gone, or it is `until`; answers whether that came.
    pub fn wait(&self, until: Instant) -> bool {
        let mut left = self.left.lock();
        while !*left && Instant::now() < until {
            left = self.left.wait(left, Some(until));
        }
        *left
    }
}

impl Shelf {
    /// Puts a model there.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is one of its name and version.
    pub(super) fn add(&mut self, endpoint: Arc<Endpoint>, id: Option<ModelId>) -> Result<()> {
        let ModelSpec { name, version, .. } = &*endpoint.spec;
        if self.versions(name).iter().any(|known| known.spec.version == *version) {
            let message = format!("two models are named '{name}' and have version '{version}'");
            return Err(Error::new(ErrorKind::Config, message));
        }
        self.put(endpoint, id);
        Ok(())
    }

    /// Puts a model there, in place of the one of its name and version.
    pub(super) fn replace(&mut self, endpoint: Arc<Endpoint>, id: Option<ModelId>) -> Option<Departure> {
        let departure = self.remove_named(&endpoint.spec.name.clone(), &endpoint.spec.version.clone());
        self.put(endpoint, id);
        departure
    }

    fn put(&mut self, endpoint: Arc<Endpoint>, id: Option<ModelId>) {
        let listing = Arc::new(Listing { endpoint, left: Arc::default() });
        if let Some(id) = id {
            self.residents.insert(id, Arc::clone(&listing));
        }
        let versions = self.by_name.entry(listing.endpoint.spec.name.clone()).or_default();
        versions.push(listing);
        let version = |listing: &Arc<Listing>| {
            let version = listing.endpoint.spec.version.clone();
            (version.parse::<u64>().ok(), version)
        };
        versions.sort_by_key(|listing| std::cmp::Reverse(version(listing)));
    }

    /// Takes a model away, where it is there.
    pub(super) fn remove(&mut self, endpoint: &Arc<Endpoint>) -> Option<Departure> {
        let ModelSpec { name, version, .. } = &*endpoint.spec;
        let is_there = self.versions(name).iter().any(|known| Arc::ptr_eq(known, endpoint));
        if is_there { self.remove_named(name, version) } else { None }
    }

    fn remove_named(&mut self, name: &str, version: &str) -> Option<Departure> {
        let versions = self.by_name.get_mut(name)?;
        let at = versions.iter().position(|known| known.endpoint.spec.version == version)?;
        let gone = versions.remove(at);
        if versions.is_empty() {
            self.by_name.remove(name);
        }
        self.residents.retain(|_, listing| !Arc::ptr_eq(listing, &gone));
        Some(Departure { left: Arc::clone(&gone.left) })
    }

    /// Says what the cache calls each model.
    pub(super) fn number(&mut self, id: impl Fn(&ModelSpec) -> Option<ModelId>) {
        let known = self.by_name.values().flatten();
        self.residents =
            known.filter_map(|listing| Some((id(&listing.endpoint.spec)?, Arc::clone(listing)))).collect();
    }

    /// Every version of a name, the highest first.
    pub(super) fn versions(&self, name: &str) -> Vec<Found> {
        self.by_name.get(name).into_iter().flatten().map(|listing| Found(Arc::clone(listing))).collect()
    }

    /// What serves the model that the cache calls so.
    pub(super) fn resident(&self, id: ModelId) -> Option<Found> {
        self.residents.get(&id).map(|listing| Found(Arc::clone(listing)))
    }

    /// The model of that name and version, or the only one of the name where none is given.
    pub(super) fn exact(&self, name: &str, version: Option<&str>) -> Option<Found> {
        let versions = self.by_name.get(name)?;
        let found = match (versions.as_slice(), version) {
            (versions, Some(version)) => {
                versions.iter().find(|listing| listing.endpoint.spec.version == version)?
            }
            ([only], None) => only,
            _ => return None,
        };
        Some(Found(Arc::clone(found)))
    }

    /// The highest version of a name.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`], naming what there is, where there is none, or it was not that which was asked for.
    pub(super) fn highest(&self, name: &str, version: Option<&str>) -> Result<Found> {
        let versions = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let message = match (versions, version) {
            ([highest, ..], None) => return Ok(Found(Arc::clone(highest))),
            ([], _) => {
                let known: Vec<_> = self.by_name.keys().collect();
                format!("there is no model '{name}'; there are {known:?}")
            }
            (_, Some(version)) => {
                let known: Vec<_> =
                    versions.iter().map(|listing| format!("'{}'", listing.endpoint.spec.version)).collect();
                format!("model '{name}' has no version '{version}'; it has {}", known.join(", "))
            }
        };
        Err(Error::new(ErrorKind::ModelNotFound, message))
    }

    /// Every name.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Every version of every model.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.by_name.values().flatten().map(|listing| &listing.endpoint)
    }
}
