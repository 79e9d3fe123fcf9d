//! The tasks of a pool: one for each connect and each health check, and one that sleeps until something is due.

use std::sync::{Arc, Weak};

use tokio::select;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::Connector;
use super::owner::Inside;
use crate::error::{Error, ErrorKind, Result};

/// A connect under way. However it ends, also by a panic or with its runtime, the pool learns of it.
pub(super) struct Attempt<C: Connector> {
    inside: Arc<Inside<C>>,
    over: bool,
}

impl<C: Connector> Attempt<C> {
    pub(super) fn new(inside: Arc<Inside<C>>) -> Self {
        Self { inside, over: false }
    }

    pub(super) async fn run(mut self) {
        let result = select! {
            biased;
            () = self.inside.closing() => Err(Error::new(ErrorKind::Closed, "the pool was closed")),
            result = self.inside.connector.connect() => result,
        };
        self.end(result);
    }

    fn end(&mut self, result: Result<C::Connection>) {
        self.over = true;
        self.inside.step(|state, now, out| match result {
            Ok(connection) => state.opened(connection, now, out),
            Err(error) => state.failed(error, now, out),
        });
    }
}

impl<C: Connector> Drop for Attempt<C> {
    fn drop(&mut self) {
        if !self.over {
            let message = "a connect ended without a result: it panicked, or its runtime was stopped";
            self.end(Err(Error::new(ErrorKind::Internal, message)));
        }
    }
}

/// A health check under way; one that does not end in time, or not at all, has failed.
pub(super) struct Check<C: Connector> {
    inside: Arc<Inside<C>>,
    at: usize,
    connection: Arc<C::Connection>,
    healthy: bool,
}

impl<C: Connector> Check<C> {
    pub(super) fn new(inside: Arc<Inside<C>>, at: usize, connection: Arc<C::Connection>) -> Self {
        Self { inside, at, connection, healthy: false }
    }

    pub(super) async fn run(mut self) {
        let limit = self.inside.settings.health_timeout;
        let checked = select! {
            biased;
            () = self.inside.closing() => return,
            checked = timeout(limit, self.inside.connector.check(&self.connection)) => checked,
        };
        self.healthy = matches!(checked, Ok(Ok(())));
        if !self.healthy {
            let reason = match &checked {
                Ok(Err(error)) => error.message(),
                _ => "it did not end within health_timeout",
            };
            tracing::info!(
                target: "penstock::pool",
                endpoint = &*self.inside.name,
                reason,
                "a health check failed and its connection is closed"
            );
        }
    }
}

impl<C: Connector> Drop for Check<C> {
    fn drop(&mut self) {
        let (at, healthy) = (self.at, self.healthy);
        self.inside.step(|state, now, out| state.checked(at, healthy, now, out));
    }
}

/// Sleeps until something is due, or earlier where it is told so. It does not keep the pool alive.
pub(super) async fn maintain<C: Connector>(inside: Weak<Inside<C>>, alarm: Arc<Notify>) {
    loop {
        let due = {
            let Some(inside) = inside.upgrade().filter(|inside| !inside.is_closed()) else { return };
            let due = inside.step(|state, now, out| {
                if state.due().is_some_and(|due| due <= now) {
                    state.sweep(now, out);
                }
                state.due()
            });
            due.map(|due| inside.instant(due))
        };
        match due {
            None => alarm.notified().await,
            Some(due) => select! {
                () = sleep_until(due) => {}
                () = alarm.notified() => {}
            },
        }
    }
}
