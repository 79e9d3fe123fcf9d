//! A body that is read as it comes by somebody who says himself what of it counts.

use tokio::time::Instant;

use super::inflow::Pace;
use super::owner::Body;
use crate::error::Result;

/// The time-outs of a body: until what counts first comes, until what counts next, and until all of it has come.
#[derive(Debug)]
pub struct Waiting(Pace);

impl Waiting {
    pub(super) fn new(pace: Pace) -> Self {
        Self(pace)
    }

    /// What has come counts.
    pub fn came(&mut self) {
        self.0.heard(Instant::now());
    }

    /// Nobody waited for a while: the time for the next begins now.
    pub fn goes_on(&mut self) {
        self.0.resumed(Instant::now());
    }
}

impl Body {
    /// Waits for the next portion, within those time-outs; none at the end.
    ///
    /// # Errors
    /// [`ErrorKind::FirstChunkTimeout`](crate::error::ErrorKind::FirstChunkTimeout),
    /// [`ErrorKind::IdleTimeout`](crate::error::ErrorKind::IdleTimeout) and
    /// [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded); those of a connection that fails.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: what has come stays in the body.
    pub async fn next_in(&mut self, waiting: &Waiting) -> Result<Option<Vec<u8>>> {
        let mut portion = Vec::new();
        Ok(self.read(&mut portion, || waiting.0.due(true)).await?.then_some(portion))
    }
}
