//! The time that a call may take, and what it means when it is up.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::super::http2::SendError;
use super::super::request::{Deadlines, Due};
use super::super::timer::{Timer, Timers};
use crate::error::Result;

/// Waits within limits; a timer is set only where there is something to wait for.
pub(super) struct Wait {
    timer: Option<Timer>,
    timers: Arc<Timers>,
    endpoint: Arc<str>,
}

impl Wait {
    /// By the timers of a connection.
    pub(super) fn new(timers: Arc<Timers>, endpoint: Arc<str>) -> Self {
        Self { timer: None, timers, endpoint }
    }

    /// What `poll` gives, unless the moment comes first that `due` names.
    pub(super) async fn until<T>(
        &mut self,
        due: impl Fn() -> Option<Due>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<std::result::Result<T, SendError>>,
    ) -> std::result::Result<T, SendError> {
        let mut set = None;
        poll_fn(|context| match poll(context) {
            Poll::Pending => match *set.get_or_insert_with(&due) {
                Some(due) => self
                    .timer()
                    .poll_until(due.at, context)
                    .map(|()| Err(SendError::after(due.missed(&self.endpoint)))),
                None => Poll::Pending,
            },
            done @ Poll::Ready(_) => done,
        })
        .await
    }
}

impl Wait {
    fn timer(&mut self) -> &mut Timer {
        self.timer.get_or_insert_with(|| self.timers.take())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.timers.keep(timer);
        }
    }
}

/// The time that is left for a call which is sent now.
///
/// # Errors
/// [`DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded) where there is none.
pub(super) fn left_of(deadlines: &Deadlines, now: Instant, endpoint: &str) -> Result<Option<Duration>> {
    let Some(due) = deadlines.total() else { return Ok(None) };
    match due.at.saturating_duration_since(now) {
        Duration::ZERO => Err(due.missed(endpoint)),
        left => Ok(Some(left)),
    }
}
