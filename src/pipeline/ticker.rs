//! The end of a tick on the I/O runtime.
//!
//! A batch that leaves with the first request that was read holds one or two; a batch that leaves after every socket that
//! was ready has been read holds the whole burst. No timer is involved, and a lone request waits for nothing.

use std::sync::Arc;

use tokio::sync::Notify;

/// Rings when a tick ends in which [`touch`](Ticker::touch) was called.
#[derive(Debug, Default)]
pub struct Ticker {
    touched: Notify,
}

impl Ticker {
    /// A ticker that nobody has touched.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Asks for the end of this tick.
    pub fn touch(&self) {
        self.touched.notify_one();
    }

    /// Calls `at_end` at the end of every tick that was touched; runs until it is dropped.
    ///
    /// # Cancellation
    /// Dropping the future ends it between two calls.
    pub async fn run(self: Arc<Self>, at_end: impl Fn()) {
        loop {
            self.touched.notified().await;
            // Everything that is ready runs first: the runtime polls it before it comes back here.
            tokio::task::yield_now().await;
            at_end();
        }
    }
}
