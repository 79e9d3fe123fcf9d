//! A timer that is set anew for each request and seldom touches the wheel of the runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// Fires at the time-out of some earlier request, not always of the one that is out: to set it anew for each one would
/// cost more than to look when it fires.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once `due` has come. A timer that is set for later is set earlier; one set for earlier looks again then.
    pub(super) fn poll_until(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

/// Timers of a connection that nobody waits by just now. Whoever takes one over needs not have it set: it fires early, and
/// is set then.
#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Vec<Timer>>);

impl Timers {
    /// One that was used before, if there is any.
    pub(super) fn take(&self) -> Timer {
        self.0.lock().pop().unwrap_or_default()
    }

    /// Keeps one for the next; there are never more than were used at a time.
    pub(super) fn keep(&self, timer: Timer) {
        self.0.lock().push(timer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_serves_one_deadline_after_another_in_any_order() {
        let mut timer = Timer::default();
        for seconds in [5, 9, 2, 2, 30] {
            let start = Instant::now();
            let due = start + Duration::from_secs(seconds);
            std::future::poll_fn(|context| timer.poll_until(due, context)).await;
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
    }
}
