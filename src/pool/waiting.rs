//! One who waits in line for a connection.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Connector;
use super::lease::Lease;
use super::line::Ticket;
use super::owner::Inside;
use crate::error::{Error, ErrorKind, Result};

/// What one who waits is told through.
pub(super) type Answer<C> = oneshot::Sender<Result<Lease<C>>>;

/// Leaves the line where it is dropped before the answer; an answer that came meanwhile, a lease, gives itself back.
pub(super) struct Waiting<C: Connector> {
    inside: Arc<Inside<C>>,
    ticket: Ticket,
    answered: oneshot::Receiver<Result<Lease<C>>>,
    over: bool,
}

impl<C: Connector> Waiting<C> {
    pub(super) fn new(
        inside: Arc<Inside<C>>,
        ticket: Ticket,
        answered: oneshot::Receiver<Result<Lease<C>>>,
    ) -> Self {
        Self { inside, ticket, answered, over: false }
    }

    pub(super) async fn until(mut self, until: Option<Instant>) -> Result<Lease<C>> {
        let in_time = match until {
            None => Ok((&mut self.answered).await),
            Some(until) => timeout_at(until, &mut self.answered).await,
        };
        let answer = if let Ok(answer) = in_time {
            answer
        } else {
            let ticket = self.ticket;
            if let Some(error) = self.inside.look(|state, now| state.give_up(ticket, now)) {
                self.over = true;
                return Err(error);
            }
            // It left the line at this very moment: the answer is on its way.
            (&mut self.answered).await
        };
        self.over = true;
        let lost =
            |error| Error::with_source(ErrorKind::Internal, "a request for a connection got lost", error);
        answer.map_err(lost)?.map(Lease::handed_over)
    }
}

impl<C: Connector> Drop for Waiting<C> {
    fn drop(&mut self) {
        if !self.over {
            let ticket = self.ticket;
            drop(self.inside.look(|state, _| state.leave(ticket)));
        }
    }
}
