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
    // Let go of before the place is given back: a connection that ends here is then closed before another is opened.
    connection: Arc<C::Connection>,
    reused: bool,
    hold: Hold<C>,
}

/// A place on a connection until it is given back.
struct Hold<C: Connector> {
    inside: Arc<Inside<C>>,
    lease: usize,
    /// `None` once it was taken back.
    end: Option<Return>,
}

impl<C: Connector> Lease<C> {
    /// A lease on its way to whoever asked for it: dropped there, the connection is as good as before.
    pub(super) fn new(inside: Arc<Inside<C>>, grant: Grant<C::Connection>) -> Self {
        let hold = Hold { inside, lease: grant.lease, end: Some(Return::Untouched) };
        Self { connection: grant.connection, reused: grant.reused, hold }
    }

    /// The lease in the hands of whoever asked for it.
    pub(super) fn handed_over(mut self) -> Self {
        self.hold.end = Some(Return::Dropped);
        self
    }

    /// The number of a lease that nobody was there to take, for the pool to give to the next.
    pub(super) fn recall(mut self) -> usize {
        self.hold.end = None;
        self.hold.lease
    }

    /// The connection.
    pub fn connection(&self) -> &C::Connection {
        &self.connection
    }

    /// The connection, for whoever must hold it beyond the lease: what it still does there, the pool does not see.
    pub fn shared(&self) -> Arc<C::Connection> {
        Arc::clone(&self.connection)
    }

    /// True where the connection had carried a request before: it may have gone stale meanwhile.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Ends the lease. With `reusable` the connection takes further requests; `keep_alive` is how long the server said it
    /// keeps an idle one (`Keep-Alive: timeout=`). Without, it takes no more, and is closed when it carries none.
    pub fn finish(mut self, reusable: bool, keep_alive: Option<Duration>) {
        self.hold.end = Some(if reusable { Return::Reusable { keep_alive } } else { Return::Spent });
    }

    /// Ends the lease of a request that was never written: the connection is as good as before.
    pub fn untouched(mut self) {
        self.hold.end = Some(Return::Untouched);
    }
}

impl<C: Connector> Drop for Hold<C> {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let lease = self.lease;
            self.inside.step(|state, now, out| state.give_back(lease, end, now, out));
        }
    }
}

impl<C: Connector> Debug for Lease<C> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_struct("Lease")
            .field("lease", &self.hold.lease)
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}
