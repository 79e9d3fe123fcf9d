//! By when what must have come: the first that counts, the next, and the whole.

use tokio::time::Instant;

use super::super::request::{Deadlines, Due};

/// The time-outs of one stream. They run while there is nothing to take: whoever takes late is not waited for here.
#[derive(Debug)]
pub(in crate::client) struct Pace {
    deadlines: Deadlines,
    sent: Instant,
    /// Since when the first is waited for; none once it has come.
    first: Option<Instant>,
    /// When the last came, or was taken.
    since: Instant,
    /// Whether the head of the answer counts as its first, and every byte as the next: what other clients do.
    by_bytes: bool,
}

impl Pace {
    /// Of a request that was sent at `sent` and whose head has come now.
    pub(in crate::client) fn new(deadlines: Deadlines, sent: Instant, by_bytes: bool) -> Self {
        Self { deadlines, sent, first: (!by_bytes).then_some(sent), since: Instant::now(), by_bytes }
    }

    /// Whether every byte counts, whatever it says.
    pub(super) fn is_by_bytes(&self) -> bool {
        self.by_bytes
    }

    /// Something that counts has come.
    pub(super) fn came(&mut self, now: Instant) {
        self.first = None;
        self.since = now;
    }

    /// As [`came`](Self::came), for who looks at what comes elsewhere.
    pub(in crate::client) fn heard(&mut self, now: Instant) {
        self.came(now);
    }

    /// Whoever reads did not read for a while.
    pub(in crate::client) fn resumed(&mut self, now: Instant) {
        self.since = now;
    }

    /// What has come so far did not count, unless every byte does.
    pub(super) fn begin_again(&mut self) {
        self.first = (!self.by_bytes).then_some(self.sent);
    }

    /// The last that had come was taken.
    pub(super) fn emptied(&mut self, now: Instant) {
        self.since = now;
    }

    /// The next moment at which it must be looked at: what is due then, unless it has come.
    pub(in crate::client) fn due(&self, is_empty: bool) -> Option<Due> {
        match self.first {
            Some(sent) => self.deadlines.first(sent),
            None if is_empty => self.deadlines.idle(self.since),
            // Looked at again when it could be due at the earliest.
            None => self.deadlines.idle(Instant::now()),
        }
    }

    /// By when all of it must have come.
    pub(in crate::client) fn total(&self) -> Option<Due> {
        self.deadlines.total()
    }
}
