//! A place on a connection for as long as one request needs it.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use super::Connector;
use super::owner::Inside;
use super::slot::Return;
use super::state::Grant;

/// A place on a connection. It ends with [`finish`](Self::finish), after which the connection may be used again.
///
/// Dropped without it, nobody knows what state the connection is in: it is closed. Where it carries several requests at a
/// time, only this one's place is given back.
pub struct Lease<C: Connector> {
    inside: Arc<Inside<C>>,
    grant: Grant<C::Connection>,
    /// `None` once it was taken back.
    end: Option<Return>,
}

impl<C: Connector> Lease<C> {
    /// A lease on its way to whoever asked for it: dropped there, the connection is as good as before.
    pub(super) fn new(inside: Arc<Inside<C>>, grant: Grant<C::Connection>) -> Self {
        Self { inside, grant, end: Some(Return::Untouched) }
    }

    /// The lease in the hands of whoever asked for it.
    pub(super) fn handed_over(mut self) -> Self {
        self.end = Some(Return::Dropped);
        self
    }

    /// The number of a lease that nobody was there to take, for the pool to give to the next.
    pub(super) fn recall(mut self) -> usize {
        self.end = None;
        self.grant.lease
    }

    /// The connection.
    pub fn connection(&self) -> &C::Connection {
        &self.grant.connection
    }

    /// The connection, for whoever must hold it beyond the lease: what it still does there, the pool does not see.
    pub fn shared(&self) -> Arc<C::Connection> {
        Arc::clone(&self.grant.connection)
    }

    /// True where the connection had carried a request before: it may have gone stale meanwhile.
    pub fn is_reused(&self) -> bool {
        self.grant.reused
    }

    /// Ends the lease. With `reusable` the connection takes further requests; `keep_alive` is how long the server said it
    /// keeps an idle one (`Keep-Alive: timeout=`). Without, it takes no more, and is closed when it carries none.
    pub fn finish(mut self, reusable: bool, keep_alive: Option<Duration>) {
        self.end = Some(if reusable { Return::Reusable { keep_alive } } else { Return::Spent });
    }

    /// Ends the lease of a request that was never written: the connection is as good as before.
    pub fn untouched(mut self) {
        self.end = Some(Return::Untouched);
    }
}

impl<C: Connector> Drop for Lease<C> {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let lease = self.grant.lease;
            self.inside.step(|state, now, out| state.give_back(lease, end, now, out));
        }
    }
}

impl<C: Connector> Debug for Lease<C> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_struct("Lease")
            .field("lease", &self.grant.lease)
            .field("reused", &self.grant.reused)
            .finish_non_exhaustive()
    }
}
